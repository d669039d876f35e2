package sdk

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"slices"
	"strings"
	"time"

	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
)

// What kubelet and the upstream driver put among the attributes.
const (
	kubeletPrefix           = "csi.storage.k8s.io/"
	podNameKey              = kubeletPrefix + "pod.name"
	podNamespaceKey         = kubeletPrefix + "pod.namespace"
	podUIDKey               = kubeletPrefix + "pod.uid"
	serviceAccountNameKey   = kubeletPrefix + "serviceAccount.name"
	serviceAccountTokensKey = kubeletPrefix + "serviceAccount.tokens"
	secretProviderClassKey  = "secretProviderClass"
)

// requestOfMount converts a request of the upstream protocol, whose attributes,
// secrets and permission are JSON within strings.
//
// kubelet's own attributes become the pod and its tokens; the rest are the
// class's parameters. The tokens may also be among the secrets, under the same
// key, from where they are not passed on as a secret. The volume's id is made
// of its target path: the protocol has none, and the path is unique on a node.
func requestOfMount(in *v1alpha1.MountRequest) (*Request, error) {
	d := NewDecoder(nil)
	attributes := jsonStrings(d, "attributes", in.GetAttributes())
	secrets := jsonStrings(d, "secrets", in.GetSecrets())
	tokens := attributes[serviceAccountTokensKey]
	if t := secrets[serviceAccountTokensKey]; t != "" {
		tokens = t
	}
	delete(secrets, serviceAccountTokensKey)
	if in.GetTargetPath() == "" {
		d.Violate("target_path", "is not set: this is a defect of the caller")
	}
	req := &Request{
		VolumeID: volumeIDOf(in.GetTargetPath()),
		Pod: Pod{
			Namespace:      attributes[podNamespaceKey],
			Name:           attributes[podNameKey],
			UID:            attributes[podUIDKey],
			ServiceAccount: ServiceAccount{Name: attributes[serviceAccountNameKey]},
		},
		SecretProviderClass: attributes[secretProviderClassKey],
		Parameters:          make(Parameters, len(attributes)),
		Tokens:              tokensOf(d, tokens),
		Secrets:             secretStrings(secrets),
		DefaultFileMode:     permissionOf(d, in.GetPermission()),
	}
	for key, value := range attributes {
		if !strings.HasPrefix(key, kubeletPrefix) && key != secretProviderClassKey {
			req.Parameters[key] = value
		}
	}
	return req, d.Err()
}

// volumeIDOf names a volume by where it is mounted. It is a hash, so that
// nobody takes it for a path.
func volumeIDOf(targetPath string) string {
	if targetPath == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(targetPath))
	return "target-" + hex.EncodeToString(sum[:])
}

// jsonStrings decodes an object of strings. The literal null is none. What is
// wrong is said without the text, which holds tokens and secrets.
func jsonStrings(d *Decoder, field, text string) map[string]string {
	if text == "" && field == "secrets" {
		return nil
	}
	var out map[string]string
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		d.Violate(field, "is not a JSON object of strings")
		return nil
	}
	return out
}

// tokensOf decodes kubelet's map of audience to token.
func tokensOf(d *Decoder, text string) Tokens {
	if text == "" {
		return nil
	}
	var decoded map[string]struct {
		Token      string    `json:"token"`
		Expiration time.Time `json:"expirationTimestamp"`
	}
	if err := json.Unmarshal([]byte(text), &decoded); err != nil {
		d.Violate(serviceAccountTokensKey, "is not kubelet's JSON object of tokens")
		return nil
	}
	tokens := make(Tokens, 0, len(decoded))
	for audience, t := range decoded {
		tokens = append(tokens, Token{Audience: audience, Token: NewSecretString(t.Token), Expiry: t.Expiration})
	}
	slices.SortFunc(tokens, func(a, b Token) int { return strings.Compare(a.Audience, b.Audience) })
	return tokens
}

// permissionOf decodes the decimal JSON number that the upstream driver sends.
func permissionOf(d *Decoder, text string) fs.FileMode {
	if text == "" {
		return 0
	}
	var mode uint32
	if err := json.Unmarshal([]byte(text), &mode); err != nil || fs.FileMode(mode)&^fs.ModePerm != 0 {
		d.Violate("permission", "is not a file mode in decimal, at most 511")
		return 0
	}
	return fs.FileMode(mode)
}
