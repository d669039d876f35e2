package parametermanager

import (
	"encoding/json"
	"regexp"
	"strconv"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/iam"
	"github.com/postern-dev/postern/test/gcp/resource"
)

// maxReferences is how many secrets a version may refer to.
const maxReferences = 15

// reference is where a secret is to stand: __REF__(//secretmanager.googleapis.com/NAME),
// which may be in quotes.
func reference() *regexp.Regexp {
	return regexp.MustCompile(`__REF__\((?:\\?["'])?//secretmanager\.googleapis\.com/([^"'()\\]+)(?:\\?["'])?\)`)
}

// render puts the secrets where their references are. The parameter itself has to
// have access to them.
func (s *Store) render(f found) ([]byte, error) {
	if f.parameter.format == control.Unformatted {
		return f.version.contents, nil
	}
	pattern := reference()
	if count := len(pattern.FindAllIndex(f.version.contents, -1)); count > maxReferences {
		return nil, &api.Refusal{Code: codes.FailedPrecondition, Message: "The parameter version has " + strconv.Itoa(count) + " secret references."}
	}
	var failed error
	rendered := pattern.ReplaceAllFunc(f.version.contents, func(match []byte) []byte {
		contents, err := s.referred(f, string(pattern.FindSubmatch(match)[1]))
		if err != nil && failed == nil {
			failed = err
		}
		return contents
	})
	return rendered, failed
}

// referred returns the contents of a secret as they stand in a string of JSON, or
// of YAML in double quotes.
func (s *Store) referred(f found, name string) ([]byte, error) {
	n, ok := resource.Parse(name)
	location := f.parameter.name.Location
	if location == Global {
		location = ""
	}
	if !ok || n.Collection != resource.Secrets || n.Version == "" || n.Location != location {
		return nil, &api.Refusal{Code: codes.FailedPrecondition, Message: "The secret reference '" + name + "' of the parameter version is invalid."}
	}
	contents, err := s.secrets.Value(iam.Token{Members: f.parameter.members()}, n)
	if err != nil {
		return nil, err
	}
	quoted, err := json.Marshal(string(contents))
	if err != nil {
		return nil, err
	}
	return quoted[1 : len(quoted)-1], nil
}
