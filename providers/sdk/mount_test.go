package sdk

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
)

const (
	targetPath = "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/secrets/mount"
	// volumeID is made of targetPath; it must never change, or a provider
	// that is upgraded loses its leases.
	volumeID = "target-6d91fb88"
)

func validAttributes() map[string]string {
	return map[string]string{
		"csi.storage.k8s.io/pod.name":              "pod-1",
		"csi.storage.k8s.io/pod.namespace":         "shop",
		"csi.storage.k8s.io/pod.uid":               "uid-1",
		"csi.storage.k8s.io/serviceAccount.name":   "account",
		"csi.storage.k8s.io/ephemeral":             "true",
		"csi.storage.k8s.io/serviceAccount.tokens": `{"b":{"token":"token-b","expirationTimestamp":"2026-11-21T02:00:00Z"},"a":{"token":"token-a"}}`,
		"secretProviderClass":                      "class",
		"objects":                                  "- objectName: x",
		"roleName":                                 "role",
	}
}

func mountRequestOf(t *testing.T, attributes map[string]string, secrets string) *v1alpha1.MountRequest {
	t.Helper()
	b, err := json.Marshal(attributes)
	if err != nil {
		t.Fatal(err)
	}
	return &v1alpha1.MountRequest{
		Attributes: string(b), Secrets: secrets, TargetPath: targetPath, Permission: "420",
	}
}

// compareSecrets lets cmp compare values by content.
func compareSecrets() cmp.Option {
	return cmp.Comparer(func(a, b SecretString) bool { return a == b })
}

func TestRequestOfMount(t *testing.T) {
	t.Parallel()
	got, err := requestOfMount(mountRequestOf(t, validAttributes(), "null"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Request{
		VolumeID:            volumeIDOf(targetPath),
		Pod:                 Pod{Namespace: "shop", Name: "pod-1", UID: "uid-1", ServiceAccount: ServiceAccount{Name: "account"}},
		SecretProviderClass: "class",
		Parameters:          Parameters{"objects": "- objectName: x", "roleName": "role"},
		Tokens: Tokens{
			{Audience: "a", Token: NewSecretString("token-a")},
			{Audience: "b", Token: NewSecretString("token-b"), Expiry: time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)},
		},
		DefaultFileMode: 0o644,
	}
	if diff := cmp.Diff(want, got, compareSecrets()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(got.VolumeID, volumeID) {
		t.Errorf("volume id is %s, want %s...: it must never change", got.VolumeID, volumeID)
	}
}

func TestRequestOfMount_Secrets(t *testing.T) {
	t.Parallel()
	attributes := validAttributes()
	delete(attributes, serviceAccountTokensKey)
	for _, tt := range []struct {
		name, secrets string
		tokens        Tokens
		want          map[string]SecretString
	}{
		{name: "null", secrets: "null"},
		{name: "empty", secrets: ""},
		{name: "none", secrets: "{}", want: map[string]SecretString{}},
		{
			name: "plain", secrets: `{"clientid":"id","clientsecret":"s3cret"}`,
			want: map[string]SecretString{"clientid": NewSecretString("id"), "clientsecret": NewSecretString("s3cret")},
		},
		{
			name:    "tokens in secrets",
			secrets: `{"key":"value","csi.storage.k8s.io/serviceAccount.tokens":"{\"a\":{\"token\":\"token-a\"}}"}`,
			tokens:  Tokens{{Audience: "a", Token: NewSecretString("token-a")}},
			want:    map[string]SecretString{"key": NewSecretString("value")},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := requestOfMount(mountRequestOf(t, attributes, tt.secrets))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.Secrets, compareSecrets()); diff != "" {
				t.Errorf("secrets (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.tokens, got.Tokens, compareSecrets()); diff != "" {
				t.Errorf("tokens (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRequestOfMount_Malformed(t *testing.T) {
	t.Parallel()
	const canary = "canary-0123456789"
	for _, tt := range []struct {
		name   string
		mutate func(*v1alpha1.MountRequest)
		want   []FieldViolation
	}{
		{
			"attributes", func(r *v1alpha1.MountRequest) { r.Attributes = `{"x":"` + canary },
			[]FieldViolation{{"attributes", "is not a JSON object of strings"}},
		},
		{
			"attributes of numbers", func(r *v1alpha1.MountRequest) { r.Attributes = `{"x":7}` },
			[]FieldViolation{{"attributes", "is not a JSON object of strings"}},
		},
		{
			"secrets", func(r *v1alpha1.MountRequest) { r.Secrets = canary },
			[]FieldViolation{{"secrets", "is not a JSON object of strings"}},
		},
		{
			"tokens", func(r *v1alpha1.MountRequest) { r.Secrets = `{"` + serviceAccountTokensKey + `":"` + canary + `"}` },
			[]FieldViolation{{serviceAccountTokensKey, "is not kubelet's JSON object of tokens"}},
		},
		{
			"permission in octal", func(r *v1alpha1.MountRequest) { r.Permission = "0644" },
			[]FieldViolation{{"permission", "is not a file mode in decimal, at most 511"}},
		},
		{
			"permission too large", func(r *v1alpha1.MountRequest) { r.Permission = "512" },
			[]FieldViolation{{"permission", "is not a file mode in decimal, at most 511"}},
		},
		{
			"target path", func(r *v1alpha1.MountRequest) { r.TargetPath = "" },
			[]FieldViolation{{"target_path", "is not set: this is a defect of the caller"}},
		},
		{
			"all at once", func(r *v1alpha1.MountRequest) { r.Permission, r.TargetPath = "x", "" },
			[]FieldViolation{
				{"target_path", "is not set: this is a defect of the caller"},
				{"permission", "is not a file mode in decimal, at most 511"},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := mountRequestOf(t, validAttributes(), "null")
			tt.mutate(in)
			_, err := requestOfMount(in)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Reason != ReasonInvalidParameters {
				t.Fatalf("requestOfMount() = %v, want INVALID_PARAMETERS", err)
			}
			if diff := cmp.Diff(tt.want, e.Fields); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows what it cannot parse: %v", err)
			}
		})
	}
}
