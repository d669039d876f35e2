package store

import (
	"context"
	"hash/crc32"
	"strings"

	"cloud.google.com/go/parametermanager/apiv1/parametermanagerpb"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// payload is what an answer has in it.
type payload struct {
	// resource is the full name, and version its last part.
	resource, version string
	contents          []byte
}

// read reads one version.
func (s *Store) read(ctx context.Context, as As, ref Ref) Answer {
	answer := Answer{Ref: ref}
	permission, get := accessVersion, accessSecret
	if ref.Kind == params.Parameter {
		permission, get = renderParameter, renderParameterVersion
	}
	e, err := s.endpoints.enter(endpointKey{ref.Kind, ref.Location})
	if err != nil {
		answer.Err = (&request{permission: permission, resource: ref.Resource}).refused(err)
		return answer
	}
	defer s.endpoints.leave(e)
	var got payload
	began := s.proofs.begin()
	failure := s.ask(e, as, permission, ref.Resource).repeat(ctx, func(ctx context.Context, e *endpoint, login grpc.CallOption) error {
		var err error
		got, err = get(ctx, e, ref, login)
		return err
	})
	if failure != nil {
		answer.Err = failure
		return answer
	}
	if answer.Version, err = s.proofs.read(ref.numbered(got.version), got.contents, began); err != nil {
		answer.Err = (&request{permission: permission, resource: ref.Resource}).refused(err)
		return answer
	}
	answer.Resource, answer.Contents = got.resource, sdk.NewSecret(got.contents)
	return answer
}

// accessSecret reads a version of a secret.
func accessSecret(ctx context.Context, e *endpoint, ref Ref, login grpc.CallOption) (payload, error) {
	resp, err := e.secrets.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: ref.Resource}, login)
	if err != nil {
		return payload{}, err
	}
	data := resp.GetPayload().GetData()
	switch {
	case resp.GetPayload() == nil || resp.GetPayload().DataCrc32C == nil:
		return payload{}, corruptedError("the answer has no checksum, so that it cannot be trusted")
	case resp.GetPayload().GetDataCrc32C() != int64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))):
		return payload{}, corruptedError("the answer does not have the checksum that came with it")
	}
	return ref.payload(resp.GetName(), data)
}

// renderParameterVersion reads a version of a parameter, with the secrets in it that
// it refers to. For that there is no checksum.
func renderParameterVersion(ctx context.Context, e *endpoint, ref Ref, login grpc.CallOption) (payload, error) {
	resp, err := e.parameters.RenderParameterVersion(ctx, &parametermanagerpb.RenderParameterVersionRequest{Name: ref.Resource}, login)
	if err != nil {
		return payload{}, err
	}
	data := resp.GetRenderedPayload()
	if len(data) == 0 && len(resp.GetPayload().GetData()) > 0 {
		return payload{}, corruptedError("the answer has the parameter's template, and not what it renders to")
	}
	return ref.payload(resp.GetParameterVersion(), data)
}

// payload returns the contents of an answer, if it is that of the Ref.
func (r Ref) payload(name string, contents []byte) (payload, error) {
	version, ok := r.versionIn(name)
	if !ok {
		return payload{}, corruptedError("the answer is of another version than was asked for")
	}
	return payload{resource: name, version: version, contents: contents}, nil
}

// versionIn returns the version that a full name in an answer is of, if that can be
// the Ref's: of the same names, but for the project, which may be said by its id or by
// its number, and for the version, where what was asked for stands for a number.
func (r Ref) versionIn(name string) (version string, ok bool) {
	asked, got := strings.Split(r.Resource, "/"), strings.Split(name, "/")
	if len(asked) != len(got) || len(got) < 4 {
		return "", false
	}
	last := len(got) - 1
	for i := range last {
		if i != 1 && asked[i] != got[i] {
			return "", false
		}
	}
	if isNumber(asked[1]) == isNumber(got[1]) && asked[1] != got[1] {
		return "", false
	}
	if r.Kind == params.Parameter || isNumber(asked[last]) {
		return got[last], asked[last] == got[last]
	}
	return got[last], isNumber(got[last])
}

// numbered is the Ref's version of a number.
func (r Ref) numbered(number string) numbered {
	return numbered{secret: r.Resource[:strings.LastIndexByte(r.Resource, '/')], number: number}
}

func isNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// projectOf is the project of a Ref, by its id or by its number.
func projectOf(ref Ref) string {
	project, _, _ := strings.Cut(strings.TrimPrefix(ref.Resource, "projects/"), "/")
	return project
}
