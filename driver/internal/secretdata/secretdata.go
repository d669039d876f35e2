// Package secretdata makes the content of a Kubernetes Secret out of a volume's
// files, as a SecretProviderClass asks for it under secretObjects.
//
// It talks to nobody. All that the API server would refuse is found here, so
// that the error names the field of the class and says what to do.
package secretdata

import (
	"bytes"
	"strings"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/internal/redact"
)

// MaxSize is how many bytes the values of a Secret may have in sum: the API
// server's limit.
const MaxSize = 1 << 20

// File is one file of a volume.
type File struct {
	// Path is relative to the volume, with slashes, and clean.
	Path string
	// Contents is only read, and not kept.
	Contents redact.Bytes
}

// Secret is what a Kubernetes Secret is to hold. It shares no memory with the
// files that it was made of.
type Secret struct {
	Name string
	Type string
	// Labels and Annotations are those of the class. None is one that the
	// driver sets itself, but for LabelManaged with its own value.
	Labels      map[string]string
	Annotations map[string]string
	Data        map[string]redact.Bytes
}

// Wipe overwrites the data.
func (s *Secret) Wipe() {
	for _, value := range s.Data {
		value.Wipe()
	}
}

// Build makes the Secret that object asks for. Its error is an [rpc.Error] with
// INVALID_PARAMETERS that lists all that is wrong: trying again helps only
// after the class or the files have changed.
//
// [rpc.Error]: github.com/postern-dev/postern/internal/rpc.Error
func Build(object *apiv1.SecretObject, files []File) (Secret, error) {
	if object == nil {
		object = new(apiv1.SecretObject)
	}
	secret := Secret{
		Name:        strings.TrimSpace(object.SecretName),
		Type:        strings.TrimSpace(object.Type),
		Labels:      object.Labels,
		Annotations: object.Annotations,
	}
	if secret.Type == "" {
		secret.Type = typeOpaque
	}
	found := &problems{secret: secret.Name}
	checkMetadata(secret, found)
	sources := selectFiles(object, files, found)
	checkType(secret, sources, found)

	derived := derive(secret.Type, sources, found)
	checkSize(sources, derived, found)
	if err := found.err(); err != nil {
		derived.wipe()
		return Secret{}, err
	}
	secret.Data = derived
	for key, s := range sources {
		if _, ok := derived[key]; !ok {
			secret.Data[key] = redact.NewBytes(bytes.Clone(s.file.Contents.Reveal()))
		}
	}
	return secret, nil
}

// values are the data of a Secret that are not a file as it is.
type values map[string]redact.Bytes

func (v values) wipe() {
	for _, value := range v {
		value.Wipe()
	}
}

// derive makes the values of the keys whose files have to be taken apart.
func derive(secretType string, sources map[string]source, found *problems) values {
	if secretType != typeTLS {
		return values{}
	}
	return deriveTLS(sources, found)
}

func checkSize(sources map[string]source, derived values, found *problems) {
	size := 0
	for key, s := range sources {
		if value, ok := derived[key]; ok {
			size += value.Len()
		} else {
			size += s.file.Contents.Len()
		}
	}
	if size > MaxSize {
		found.add("data", "has %d bytes in sum, a Secret holds at most %d: take fewer files, or split it into several Secrets", size, MaxSize)
	}
}
