package provider_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/postern-dev/postern/gateway/internal/provider"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/internal/rpc"
	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func legacyAnswer() *v1alpha1.MountResponse {
	return &v1alpha1.MountResponse{
		ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "db", Version: "1"}},
		Files:         []*v1alpha1.File{{Path: "password", Mode: 0o640, Contents: []byte("s3cret")}},
	}
}

// TestLegacy_Wire holds each field against what the upstream driver sends.
func TestLegacy_Wire(t *testing.T) {
	t.Parallel()
	l := &providertest.Legacy{Response: legacyAnswer()}
	conn, _ := start(t, l)
	req := providertest.Request("aws")
	req.Parameters["csi.storage.k8s.io/pod.name"] = "somebody-else"
	req.Parameters["csi.storage.k8s.io/serviceAccount.tokens"] = "forged"
	req.Parameters["secretProviderClass"] = "other"
	req.Tokens = []*secretv1.Token{token("sts.amazonaws.com"), token("vault")}
	req.CurrentObjects = []*secretv1.ObjectVersion{{Id: "db", Version: "0"}}
	got, err := provider.NewLegacy(conn).Fetch(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	want := &providerv1.FetchResponse{
		Files:   []*secretv1.File{{Path: "password", Mode: 0o640, Contents: []byte("s3cret")}},
		Objects: []*secretv1.ObjectVersion{{Id: "db", Version: "1"}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}

	mount := l.Requests()[0]
	var attributes map[string]string
	if err := json.Unmarshal([]byte(mount.GetAttributes()), &attributes); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{
		"roleName":                               "web",
		"secretProviderClass":                    "db",
		"csi.storage.k8s.io/pod.name":            "web-0",
		"csi.storage.k8s.io/pod.namespace":       "shop",
		"csi.storage.k8s.io/pod.uid":             "8a6f",
		"csi.storage.k8s.io/serviceAccount.name": "web",
		"csi.storage.k8s.io/ephemeral":           "true",
		"csi.storage.k8s.io/serviceAccount.tokens": `{"sts.amazonaws.com":{"token":"jwt-for-sts.amazonaws.com","expirationTimestamp":"2030-01-02T03:04:05Z"},` +
			`"vault":{"token":"jwt-for-vault","expirationTimestamp":"2030-01-02T03:04:05Z"}}`,
	}, attributes); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if mount.GetSecrets() != "null" {
		t.Errorf("secrets are %q, want null", mount.GetSecrets())
	}
	if mount.GetPermission() != "420" {
		t.Errorf("permission is %q, want 420", mount.GetPermission())
	}
	if mount.GetTargetPath() != req.GetTargetPath() {
		t.Errorf("target path is %q, want %q", mount.GetTargetPath(), req.GetTargetPath())
	}
	if len(mount.GetCurrentObjectVersion()) != 0 {
		t.Errorf("current object versions are %v, want none", mount.GetCurrentObjectVersion())
	}
	if diff := cmp.Diff([]string{"localhost"}, l.Authorities()); diff != "" {
		t.Errorf("authority (-want +got):\n%s", diff)
	}
}

func TestLegacy_Request(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		mutate func(*gatewayv1.FetchRequest)
		check  func(*v1alpha1.MountRequest) bool
	}{
		{"no tokens, not even forged ones", func(r *gatewayv1.FetchRequest) {
			r.Parameters["csi.storage.k8s.io/serviceAccount.tokens"] = "forged"
		}, func(m *v1alpha1.MountRequest) bool {
			return !strings.Contains(m.GetAttributes(), "serviceAccount.tokens")
		}},
		{"secrets", func(r *gatewayv1.FetchRequest) {
			r.Secrets = map[string]string{"user": "u", "csi.storage.k8s.io/serviceAccount.tokens": "x"}
		}, func(m *v1alpha1.MountRequest) bool { return m.GetSecrets() == `{"user":"u"}` }},
		{"no secrets but tokens among them", func(r *gatewayv1.FetchRequest) {
			r.Secrets = map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": "x"}
		}, func(m *v1alpha1.MountRequest) bool { return m.GetSecrets() == "null" }},
		{"no mode", func(r *gatewayv1.FetchRequest) { r.DefaultFileMode = 0 }, func(m *v1alpha1.MountRequest) bool {
			return m.GetPermission() == "420"
		}},
		{"a mode", func(r *gatewayv1.FetchRequest) { r.DefaultFileMode = 0o400 }, func(m *v1alpha1.MountRequest) bool {
			return m.GetPermission() == "256"
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := &providertest.Legacy{Response: legacyAnswer()}
			conn, _ := start(t, l)
			req := providertest.Request("aws")
			tt.mutate(req)
			if _, err := provider.NewLegacy(conn).Fetch(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			if !tt.check(l.Requests()[0]) {
				t.Errorf("the provider was sent secrets %q, permission %q, attributes %q",
					l.Requests()[0].GetSecrets(), l.Requests()[0].GetPermission(), l.Requests()[0].GetAttributes())
			}
		})
	}
}

func TestLegacy_Failures(t *testing.T) {
	t.Parallel()
	invalid := func(message string) *rpc.Error {
		return &rpc.Error{Reason: "INVALID_RESPONSE", Code: codes.Internal, Message: message}
	}
	tests := []struct {
		name   string
		mutate func(*providertest.Legacy)
		want   *rpc.Error
	}{
		{
			"error code", func(l *providertest.Legacy) { l.Response.Error = &v1alpha1.Error{Code: "GRPCProviderError"} },
			&rpc.Error{Reason: "INTERNAL", Code: codes.Internal, Message: `the provider failed with error code "GRPCProviderError": see its log`},
		},
		{
			"no objects", func(l *providertest.Legacy) { l.Response.ObjectVersion = nil },
			invalid("the answer has no object versions: check that the SecretProviderClass lists objects, and the provider's log"),
		},
		{
			"no files", func(l *providertest.Legacy) { l.Response.Files = nil },
			invalid("the answer has no files, so the provider wrote them into the volume itself, which is not supported: " +
				"turn on driver-writes-secrets in the provider (for AWS: --driver-writes-secrets=true)"),
		},
		{
			"UNAVAILABLE is not tried again", func(l *providertest.Legacy) { l.Error = status.Error(codes.Unavailable, "boom") },
			&rpc.Error{Reason: "STORE_UNAVAILABLE", Code: codes.Unavailable, Message: "boom"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := &providertest.Legacy{Response: legacyAnswer()}
			tt.mutate(l)
			conn, _ := start(t, l)
			_, err := provider.NewLegacy(conn).Fetch(t.Context(), providertest.Request("aws"))
			checkError(t, err, tt.want)
			if n := len(l.Requests()); n != 1 {
				t.Errorf("the provider was called %d times, want once", n)
			}
		})
	}
}

func TestLegacy_NoTargetPath(t *testing.T) {
	t.Parallel()
	l := &providertest.Legacy{Response: legacyAnswer()}
	conn, _ := start(t, l)
	req := providertest.Request("aws")
	req.TargetPath = ""
	_, err := provider.NewLegacy(conn).Fetch(t.Context(), req)
	checkError(t, err, &rpc.Error{
		Reason: "INVALID_PARAMETERS", Code: codes.InvalidArgument,
		Message: "target_path is empty: providers of the upstream protocol refuse that",
	})
}

// As in the upstream driver, of two files or objects of one name the last wins.
func TestLegacy_LastOfOneNameWins(t *testing.T) {
	t.Parallel()
	l := &providertest.Legacy{Response: legacyAnswer()}
	l.Response.Files = append(l.Response.Files, &v1alpha1.File{Path: "password", Mode: -1, Contents: []byte("new")})
	l.Response.ObjectVersion = append(l.Response.ObjectVersion, &v1alpha1.ObjectVersion{Id: "db", Version: "2"})
	conn, _ := start(t, l)
	got, err := provider.NewLegacy(conn).Fetch(t.Context(), providertest.Request("aws"))
	if err != nil {
		t.Fatal(err)
	}
	want := &providerv1.FetchResponse{
		Files:   []*secretv1.File{{Path: "password", Mode: 1<<32 - 1, Contents: []byte("new")}},
		Objects: []*secretv1.ObjectVersion{{Id: "db", Version: "2"}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}
