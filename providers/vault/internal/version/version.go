// Package version makes the versions of objects.
//
// # Decision
//
// A version is shown to everybody who may read SecretProviderClassPodStatus
// objects. It must change if and only if what the object puts into the volume
// changes, be the same after a restart and on every node, and tell nothing of
// the content. A key to sign with would have to be kept somewhere, in a
// Kubernetes Secret or on each node's disk: neither is wanted. So:
//
//   - A kv version 2 secret has a version of its own. It is used, with the time
//     of its creation, as a secret that was destroyed and made anew begins at 1
//     again. Nothing of the content goes in.
//   - A credential is as unique as its lease's id, or as one that is made up for
//     it. That is hashed: it is random, so that the hash tells nothing. A process
//     that knows the id knows the version, also without the content.
//   - For all else only the content tells, with all of the object's configuration
//     as the salt: [sdk.ContentVersions] makes it slow to guess from. Those whose
//     secrets could be guessed in a few million tries should use kv version 2.
//
// The object's configuration, the file's mode and the server are part of every
// version.
package version

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// size is how many bytes of a digest are shown.
const size = 16

// Maker makes versions.
type Maker struct{ contents *sdk.ContentVersions }

// New returns a Maker.
func New() *Maker { return &Maker{contents: sdk.NewContentVersions()} }

// Input is what an object's version depends on.
type Input struct {
	Endpoint store.Endpoint
	Object   params.Object
	// Mode is the file's.
	Mode fs.FileMode
	// Credential is the id of what was issued with the answer, if anything was.
	// Neither answer nor contents are needed then.
	Credential string
	Answer     *store.Answer
	Contents   []byte
}

// Of returns the version of an object.
func (m *Maker) Of(in Input) (string, error) {
	config := configOf(in)
	if in.Credential != "" {
		return digest(config, in.Credential), nil
	}
	if number, created, ok := versioned(in); ok {
		return number + "-" + digest(config, number, created), nil
	}
	return m.contents.Of(config, in.Contents)
}

// versioned returns the version of a kv version 2 secret. Whole envelopes hold
// more than the version is of (the metadata), so that they do not count, and
// neither does what merely looks like it.
func versioned(in Input) (number, created string, ok bool) {
	_, metadata, ok := in.Answer.Versioned()
	if !ok || !in.Object.Request.ReadOnly() || !strings.Contains(in.Object.Request.Path, "/data/") {
		return "", "", false
	}
	if in.Object.Key == "" && in.Object.Format != params.Data {
		return "", "", false
	}
	n, isNumber := metadata["version"].(json.Number)
	created, isText := metadata["created_time"].(string)
	return n.String(), created, isNumber && isText && n != "" && created != ""
}

func configOf(in Input) string {
	o := in.Object
	return join("postern-vault-1", in.Endpoint.Address, in.Endpoint.Namespace, o.Name, o.ReadKey(),
		o.Key, string(o.Format), string(o.Encoding), fmt.Sprintf("%o", in.Mode))
}

// join writes parts so that no two lists of parts give the same text.
func join(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "%d:%s", len(p), p)
	}
	return b.String()
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(join(parts...)))
	return base64.RawURLEncoding.EncodeToString(sum[:size])
}
