package stack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/openbao"
	"github.com/postern-dev/postern/test/stack"
)

// The two servers must agree by themselves before a daemon of ours is blamed.
func TestPodLogsIntoOpenBaoWithItsToken(t *testing.T) {
	t.Parallel()
	s := start(t)
	ctx := t.Context()
	must(t, s.API.EnsureServiceAccount(ctx, "shop", "web"))
	must(t, s.API.EnsureServiceAccount(ctx, "shop", "other"))
	must(t, s.Bao.PutSecret(ctx, "app", map[string]any{"username": "bob"}))
	must(t, s.Bao.PutPolicy(ctx, "app", `path "secret/data/app" { capabilities = ["read"] }`))
	must(t, s.Bao.PutRole(ctx, openbao.Role{
		Name: "app", Namespace: "shop", ServiceAccount: "web", Audience: "vault", Policies: []string{"app"},
	}))
	for _, test := range []struct {
		account, audience string
		want              int
	}{
		{"web", "vault", http.StatusOK},
		{"web", "elsewhere", http.StatusForbidden},
		{"other", "vault", http.StatusForbidden},
	} {
		t.Run(test.account+" with a token for "+test.audience, func(t *testing.T) {
			pod, err := s.API.CreatePod(ctx, apiserver.Pod{
				Namespace: "shop", Name: test.account + "-" + test.audience, ServiceAccount: test.account,
				Volume: "secrets", SecretProviderClass: "app",
			})
			must(t, err)
			encoded, err := s.API.Tokens(ctx, pod, test.audience)
			must(t, err)
			var tokens map[string]struct{ Token string }
			must(t, json.Unmarshal([]byte(encoded), &tokens))
			if code, body := login(ctx, t, s.Bao.Address, "app", tokens[test.audience].Token); code != test.want {
				t.Errorf("login: %d %s, want %d", code, body, test.want)
			}
		})
	}
}

func login(ctx context.Context, t *testing.T, address, role, jwt string) (int, string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"role": role, "jwt": jwt})
	must(t, err)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/v1/auth/kubernetes/login", bytes.NewReader(body))
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode == http.StatusOK {
		answer = nil // it holds a token
	}
	return resp.StatusCode, strings.TrimSpace(string(answer))
}

func start(t *testing.T) *stack.Stack {
	t.Helper()
	builder, err := build.Here(os.Getenv, os.Stderr)
	must(t, err)
	s, err := stack.Start(t.Context(), stack.Config{Builder: builder, Root: builder.Root(), Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, s.Stop()) })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
