package authority_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/gateway/internal/authority"
	"github.com/postern-dev/postern/internal/rpc"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func pod() *secretv1.Pod {
	return &secretv1.Pod{
		Namespace: "shop", Name: "web-0", Uid: "8a6f",
		ServiceAccount: &secretv1.ServiceAccount{Name: "web"},
	}
}

func now() time.Time { return time.Unix(1_800_000_000, 0) }

// claims are those of a token as kubelet requests it.
func claims() map[string]any {
	return map[string]any{
		"aud": []string{"vault"},
		"exp": now().Add(time.Hour).Unix(),
		"iat": now().Unix(),
		"iss": "https://kubernetes.default.svc",
		"jti": "0c7e",
		"kubernetes.io": map[string]any{
			"namespace":      "shop",
			"node":           map[string]any{"name": "n1", "uid": "1"},
			"pod":            map[string]any{"name": "web-0", "uid": "8a6f"},
			"serviceaccount": map[string]any{"name": "web", "uid": "2"},
		},
		"nbf": now().Unix(),
		"sub": "system:serviceaccount:shop:web",
	}
}

func jwt(t testing.TB, claims any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString(payload) + ".c2lnbmF0dXJl"
}

func TestCheck(t *testing.T) {
	t.Parallel()
	with := func(key string, value any) func(*testing.T) string {
		return func(t *testing.T) string {
			t.Helper()
			c := claims()
			c[key] = value
			return jwt(t, c)
		}
	}
	raw := func(token string) func(*testing.T) string { return func(*testing.T) string { return token } }
	otherPod := map[string]any{"namespace": "shop", "pod": map[string]any{"uid": "other"}}
	tests := []struct {
		name  string
		token func(*testing.T) string
		// want is part of the error; none for a token that is good.
		want string
	}{
		{"as kubelet requests it", with("jti", "x"), ""},
		{"one audience as text", with("aud", "vault"), ""},
		{"several audiences", with("aud", []string{"sts", "vault"}), ""},
		{"expires in a second", with("exp", now().Unix()+1), ""},
		{"expiry with a fraction", with("exp", float64(now().Unix())+0.5), ""},

		{"other audience", with("aud", "sts"), "is for another audience"},
		{"audience's beginning", with("aud", "vaul"), "is for another audience"},
		{"no audience", with("aud", nil), "is for another audience"},
		{"other namespace", with("sub", "system:serviceaccount:other:web"), "not of the pod's service account"},
		{"other account", with("sub", "system:serviceaccount:shop:other"), "not of the pod's service account"},
		{"a user", with("sub", "admin"), "not of the pod's service account"},
		{"more than a subject", with("sub", "system:serviceaccount:shop:web:x"), "not of the pod's service account"},
		{"less than a subject", with("sub", "system:serviceaccount:shop"), "not of the pod's service account"},
		{"no subject", with("sub", ""), "not of the pod's service account"},
		{"other pod", with("kubernetes.io", otherPod), "not of this pod"},
		{"bound to no pod", with("kubernetes.io", map[string]any{}), "not of this pod"},
		{"no claims of Kubernetes", with("kubernetes.io", nil), "not of this pod"},
		{"expired", with("exp", now().Unix()), "has expired"},
		{"expired long ago", with("exp", 1), "has expired"},
		{"no expiry", with("exp", nil), "does not say when it expires"},

		{"empty", raw(""), "three parts"},
		{"two parts", raw("a.b"), "three parts"},
		{"four parts", raw("a.b.c.d"), "three parts"},
		{"not base64", raw("a.%.c"), "not base64url"},
		{"not JSON", raw("a.aGk.c"), "does not hold the claims"},
		{"other types", with("sub", 7), "does not hold the claims"},
		{"audience of another type", with("aud", 7), "does not hold the claims"},
		{"expiry of another type", with("exp", "soon"), "does not hold the claims"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			token := tt.token(t)
			err := authority.Check([]*secretv1.Token{{Audience: "vault", Token: token}}, pod(), now())
			if tt.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), `audience "vault"`) {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			if rpc.FromError(err).Reason != rpc.ReasonTokenInvalid || status.Code(err) != codes.Unauthenticated {
				t.Errorf("got %s, %s", rpc.FromError(err).Reason, status.Code(err))
			}
			if _, payload, _ := strings.Cut(token, "."); len(payload) > 10 && strings.Contains(err.Error(), payload[:10]) {
				t.Errorf("the error holds the token: %v", err)
			}
		})
	}
}

// One bad token among good ones is enough, and no token is nothing to check.
func TestCheck_All(t *testing.T) {
	t.Parallel()
	good, other := claims(), claims()
	other["aud"], other["exp"] = "sts", 1
	tokens := []*secretv1.Token{{Audience: "vault", Token: jwt(t, good)}, {Audience: "sts", Token: jwt(t, other)}}
	if err := authority.Check(tokens, pod(), now()); err == nil || !strings.Contains(err.Error(), `"sts"`) {
		t.Errorf("got %v", err)
	}
	if err := authority.Check(tokens[:1], pod(), now()); err != nil {
		t.Error(err)
	}
	if err := authority.Check(nil, pod(), now()); err != nil {
		t.Error(err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(jwt(f, claims()))
	f.Add("a.e30.c")
	f.Fuzz(func(t *testing.T, token string) {
		err := authority.Check([]*secretv1.Token{{Audience: "vault", Token: token}}, pod(), now())
		if err == nil && !strings.Contains(token, ".") {
			t.Errorf("%q passes", token)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	tokens := []*secretv1.Token{{Audience: "vault", Token: jwt(b, claims())}}
	p, at := pod(), now()
	b.ReportAllocs()
	for b.Loop() {
		if err := authority.Check(tokens, p, at); err != nil {
			b.Fatal(err)
		}
	}
}
