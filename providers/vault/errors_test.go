package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

func wantError(t *testing.T, err error, reason sdk.Reason, object, text string) {
	t.Helper()
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok {
		t.Fatalf("error = %v (%T), want an *sdk.Error with reason %s", err, err, reason)
	}
	if e.Reason != reason || e.Object != object || !strings.Contains(e.Message, text) {
		t.Errorf("error = %s, object %q, %q;\nwant %s, object %q, %q", e.Reason, e.Object, e.Message, reason, object, text)
	}
}

// TestErrorsOfStore changes one thing of a request that succeeds, and looks at
// what the real server's refusal becomes.
func TestErrorsOfStore(t *testing.T) {
	t.Parallel()
	n := newTenant(t, `
path "KV/data/*" { capabilities = ["read"] }
path "KV/app" { capabilities = ["read"] }
path "KV/delete/*" { capabilities = ["read"] }
path "sys/tools/random" { capabilities = ["read", "update"] }
`)
	n.put(t, "app", map[string]any{"k": "v"})
	n.put(t, "gone", map[string]any{"k": "v"})
	n.call(t, "DELETE", n.name+"/data/gone", nil)
	tests := map[string]struct {
		change  func(r *sdk.Request)
		objects string
		reason  sdk.Reason
		object  string
		text    string
	}{
		"role": {
			change: func(r *sdk.Request) { r.Parameters["roleName"] = "nobody" },
			reason: sdk.ReasonLoginFailed, text: "Check that the auth method is mounted there, that the role exists",
		},
		"subject of another": {
			change: func(r *sdk.Request) {
				r.Pod.ServiceAccount.Name = "other"
				r.Tokens[0].Token = sdk.NewSecretString(n.jwt(t, map[string]any{"sub": "system:serviceaccount:shop:other"}))
			},
			reason: sdk.ReasonLoginFailed, text: "as service account shop/other",
		},
		"audience": {
			change: func(r *sdk.Request) {
				r.Parameters["audience"] = "wrong"
				r.Tokens[0].Audience = "wrong"
				r.Tokens[0].Token = sdk.NewSecretString(n.jwt(t, map[string]any{"aud": "wrong"}))
			},
			reason: sdk.ReasonLoginFailed, text: `accepts tokens of audience "wrong"`,
		},
		"signature": {
			change: func(r *sdk.Request) {
				r.Tokens[0].Token = sdk.NewSecretString(r.Tokens[0].Token.Reveal()[:len(r.Tokens[0].Token.Reveal())-8] + "AAAAAAAA")
			},
			reason: sdk.ReasonLoginFailed, text: "failed to login",
		},
		"auth mount": {
			change: func(r *sdk.Request) { r.Parameters["vaultAuthMountPath"] = "nowhere" },
			reason: sdk.ReasonLoginFailed, text: "at auth/nowhere",
		},
		"policy": {
			objects: `- {objectName: o, secretPath: secret/data/app, secretKey: k}`,
			reason:  sdk.ReasonAccessDenied, object: "o", text: `The policies of role "app" must allow "read" on "secret/data/app"`,
		},
		"policy and path without data": {
			objects: `- {objectName: o, secretPath: secret/app, secretKey: k}`,
			reason:  sdk.ReasonAccessDenied, object: "o", text: `If the mount is kv version 2, secretPath is "secret/data/app"`,
		},
		"path": {
			objects: `- {objectName: o, secretPath: KV/data/nowhere, secretKey: k}`,
			reason:  sdk.ReasonObjectNotFound, object: "o", text: `/data/nowhere": there is nothing at this path`,
		},
		"path without data": {
			objects: `- {objectName: o, secretPath: KV/app, secretKey: k}`,
			reason:  sdk.ReasonObjectNotFound, object: "o", text: `The mount is kv version 2: use secretPath "` + n.name + `/data/app"`,
		},
		"deleted": {
			objects: `- {objectName: o, secretPath: KV/data/gone, secretKey: k}`,
			reason:  sdk.ReasonObjectNotFound, object: "o", text: "this version of it is deleted",
		},
		"version": {
			objects: `- {objectName: o, secretPath: "KV/data/app?version=9", secretKey: k}`,
			reason:  sdk.ReasonObjectNotFound, object: "o", text: "there is nothing at this path",
		},
		"key": {
			objects: `- {objectName: o, secretPath: KV/data/app, secretKey: other}`,
			reason:  sdk.ReasonObjectNotFound, object: "o", text: `key "other" does not exist at the secret path`,
		},
		"encoding": {
			objects: `- {objectName: o, secretPath: KV/data/app, secretKey: k, encoding: hex}`,
			reason:  sdk.ReasonInvalidParameters, text: `objects["o"].encoding: the value is not encoded as the class says: not hex`,
		},
		"arguments": {
			objects: `- {objectName: o, secretPath: sys/tools/random, method: POST, secretArgs: {bytes: -1}}`,
			reason:  sdk.ReasonInvalidParameters, text: "the store refuses the request",
		},
		"first of two": {
			objects: "- {objectName: one, secretPath: KV/data/nowhere, secretKey: k}\n- {objectName: two, secretPath: secret/data/x}",
			reason:  sdk.ReasonObjectNotFound, object: "one", text: "nothing at this path",
		},
		"no server": {
			change: func(r *sdk.Request) { r.Parameters["vaultAddress"] = "http://127.0.0.1:1" },
			reason: sdk.ReasonStoreUnavailable, text: "http://127.0.0.1:1 cannot be reached",
		},
		"CA file": {
			change: func(r *sdk.Request) { r.Parameters["vaultCACertPath"] = "/nowhere.pem" },
			reason: sdk.ReasonInvalidParameters, text: "Paths are those of the provider's pod",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.objects == "" {
				tt.objects = `- {objectName: k, secretPath: KV/data/app, secretKey: k}`
			}
			req := n.request(t, n.address, tt.objects)
			req.VolumeID = "volume of " + name
			if tt.change != nil {
				tt.change(req)
			}
			_, err := start(t, nil).Fetch(t.Context(), req)
			wantError(t, err, tt.reason, tt.object, tt.text)
			if strings.Contains(fmt.Sprint(err), req.Tokens[0].Token.Reveal()) {
				t.Error("the error holds the pod's token")
			}
		})
	}
}

// TestErrorsOfServer: what servers answer that are not well.
func TestErrorsOfServer(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		login, read http.HandlerFunc
		reason      sdk.Reason
		object      string
		text        string
		retryAfter  time.Duration
	}{
		"sealed":            {login: answer(503, `{"errors":["Vault is sealed"]}`), reason: sdk.ReasonStoreUnavailable, text: "is sealed or in maintenance: HTTP status 503: Vault is sealed"},
		"proxy's page":      {login: answer(502, `<html>secret-canary</html>`), reason: sdk.ReasonStoreUnavailable, text: "HTTP status 502"},
		"not the API":       {login: answer(200, `<html>hello</html>`), reason: sdk.ReasonStoreUnavailable, text: "does the address lead to Vault?"},
		"no token":          {login: answer(200, `{"auth":null}`), reason: sdk.ReasonStoreUnavailable, text: "the answer holds no token"},
		"slow down":         {read: answer(429, `{"errors":["request path quota exceeded"]}`, "Retry-After", "30"), reason: sdk.ReasonRateLimited, object: "o", text: "asks to slow down", retryAfter: 30 * time.Second},
		"empty":             {read: answer(204, ""), reason: sdk.ReasonObjectNotFound, object: "o", text: "there is nothing at this path (the store's answer is empty)"},
		"empty with 200":    {read: answer(200, ""), reason: sdk.ReasonObjectNotFound, object: "o", text: "the store's answer is empty"},
		"null":              {read: answer(200, "null"), reason: sdk.ReasonObjectNotFound, object: "o", text: `key "k" does not exist`},
		"null data":         {read: answer(200, `{"data":null,"warnings":["look out"]}`), reason: sdk.ReasonObjectNotFound, object: "o", text: "The store warns: look out"},
		"internal":          {read: answer(500, `{"errors":["internal error"]}`), reason: sdk.ReasonStoreUnavailable, object: "o", text: "error requesting secret: HTTP status 500: internal error"},
		"token in an error": {read: answer(403, `{"errors":["token s.canary-token is bad"]}`), reason: sdk.ReasonAccessDenied, object: "o", text: "token [redacted] is bad"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			if tt.login == nil {
				tt.login = answer(200, `{"auth":{"client_token":"s.canary-token","accessor":"a","lease_duration":600,"renewable":true}}`)
			}
			if tt.read == nil {
				tt.read = answer(200, `{"data":{"k":"v"}}`)
			}
			mux.HandleFunc("/v1/auth/kubernetes/login", tt.login)
			mux.HandleFunc("/v1/kv/app", tt.read)
			fake := httptest.NewServer(mux)
			t.Cleanup(fake.Close)
			_, err := start(t, nil).Fetch(t.Context(), opaqueRequest(fake.URL, "- {objectName: o, secretPath: kv/app, secretKey: k}"))
			wantError(t, err, tt.reason, tt.object, tt.text)
			if e, _ := errors.AsType[*sdk.Error](err); e.RetryAfter != tt.retryAfter {
				t.Errorf("retry after %v, want %v", e.RetryAfter, tt.retryAfter)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error holds a canary: %v", err)
			}
		})
	}
}

func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// opaqueRequest has a token that is no JWT.
func opaqueRequest(address, objects string) *sdk.Request {
	return &sdk.Request{
		VolumeID:        "volume-1",
		Pod:             sdk.Pod{Namespace: "shop", Name: "cart-1", UID: "uid-1", ServiceAccount: sdk.ServiceAccount{Name: "cart"}},
		Parameters:      sdk.Parameters{"roleName": "app", "vaultAddress": address, "objects": objects},
		Tokens:          sdk.Tokens{{Audience: "vault", Token: sdk.NewSecretString("canary-of-the-pod")}},
		DefaultFileMode: 0o644,
	}
}

func TestUntrustedServer(t *testing.T) {
	t.Parallel()
	fake := httptest.NewTLSServer(answer(200, `{}`))
	t.Cleanup(fake.Close)
	_, err := start(t, nil).Fetch(t.Context(), opaqueRequest(fake.URL, "- {objectName: o, secretPath: kv/app}"))
	wantError(t, err, sdk.ReasonStoreUnavailable, "", "Set vaultCACertPath to a file of the provider's pod")
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	fake := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or its context does not end with the connection
		<-r.Context().Done()
	}))
	t.Cleanup(fake.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := start(t, nil).Fetch(ctx, opaqueRequest(fake.URL, "- {objectName: o, secretPath: kv/app}"))
	wantError(t, err, sdk.ReasonDeadlineExceeded, "", "did not answer in time")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is no context.DeadlineExceeded", err)
	}
}

// TestTokens: a session serves no pod that could not have made it.
func TestTokens(t *testing.T) {
	t.Parallel()
	logins := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/auth/kubernetes/login", func(w http.ResponseWriter, r *http.Request) {
		logins++
		answer(200, `{"auth":{"client_token":"s.1","accessor":"a","lease_duration":600}}`)(w, r)
	})
	mux.HandleFunc("/v1/kv/app", answer(200, `{"data":{"k":"v"}}`))
	fake := httptest.NewServer(mux)
	t.Cleanup(fake.Close)
	p := start(t, nil)
	jwt := func(claims map[string]any) sdk.SecretString {
		all := map[string]any{"sub": "system:serviceaccount:shop:cart", "exp": time.Now().Add(time.Hour).Unix()}
		for k, v := range claims {
			all[k] = v
		}
		payload, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return sdk.NewSecretString("e30." + base64URL(payload) + ".c2ln")
	}
	request := func() *sdk.Request {
		r := opaqueRequest(fake.URL, "- {objectName: o, secretPath: kv/app, secretKey: k}")
		r.Tokens[0].Token = jwt(nil)
		return r
	}
	fetchOK(t, p, request())
	tests := map[string]struct {
		change func(*sdk.Request)
		reason sdk.Reason
		text   string
	}{
		"none":            {func(r *sdk.Request) { r.Tokens = nil }, sdk.ReasonTokenMissing, "tokenRequests"},
		"Helm value":      {func(r *sdk.Request) { r.Tokens = nil }, sdk.ReasonTokenMissing, "Helm chart: add {audience: vault}"},
		"empty":           {func(r *sdk.Request) { r.Tokens[0].Token = sdk.SecretString{} }, sdk.ReasonTokenMissing, `"vault"`},
		"other audience":  {func(r *sdk.Request) { r.Parameters["audience"] = "other" }, sdk.ReasonTokenMissing, `"other"`},
		"other account":   {func(r *sdk.Request) { r.Pod.ServiceAccount.Name = "other" }, sdk.ReasonTokenInvalid, "and not for the pod's"},
		"other namespace": {func(r *sdk.Request) { r.Pod.Namespace = "other" }, sdk.ReasonTokenInvalid, "and not for the pod's"},
		"expired claim":   {func(r *sdk.Request) { r.Tokens[0].Token = jwt(map[string]any{"exp": 1000}) }, sdk.ReasonTokenInvalid, "expired at 1970-01-01T00:16:40Z"},
		"expired opaque": {func(r *sdk.Request) {
			r.Tokens[0].Token, r.Tokens[0].Expiry = sdk.NewSecretString("x"), time.Unix(1000, 0)
		}, sdk.ReasonTokenInvalid, "expired at"},
		"other pod": {func(r *sdk.Request) {
			r.Tokens[0].Token = jwt(map[string]any{"kubernetes.io": map[string]any{"pod": map[string]any{"uid": "uid-9"}}})
		}, sdk.ReasonTokenInvalid, "another pod"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req := request()
			tt.change(req)
			_, err := p.Fetch(t.Context(), req)
			wantError(t, err, tt.reason, "", tt.text)
		})
	}
	if logins != 1 {
		t.Errorf("%d logins, want 1", logins)
	}
}
