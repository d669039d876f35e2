package minio

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/build"
)

func TestAssumeRoleWithWebIdentity(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	server := start(t, Config{Issuer: issuer.server.URL, IssuerCA: issuer.authority(t)})
	for name, test := range map[string]struct {
		claims map[string]any
		role   string
		status int
		text   string
	}{
		"a pod's token":    {status: http.StatusOK, text: "<SessionToken>"},
		"another audience": {claims: map[string]any{"aud": []string{"vault"}}, status: http.StatusBadRequest, text: "must match configured OpenID Client ID"},
		"expired":          {claims: map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}, status: http.StatusBadRequest, text: "expired"},
		"another role":     {role: "arn:aws:iam::111122223333:role/app", status: http.StatusBadRequest, text: "RoleArn"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			role := server.RoleARN
			if test.role != "" {
				role = test.role
			}
			status, answer := assume(t, server, role, issuer.token(t, test.claims))
			if status != test.status || !strings.Contains(answer, test.text) {
				t.Errorf("status %d, want %d with %q:\n%s", status, test.status, test.text, answer)
			}
		})
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	cfg := Config{Minio: binary(t), Dir: t.TempDir(), Issuer: issuer.server.URL, IssuerCA: "/nonexistent"}
	if server, err := Start(t.Context(), cfg); err == nil {
		server.Stop()
		t.Error("Start() with an authority that is not there = nil, want an error")
	}
	cfg.IssuerCA, cfg.Minio = "", "/bin/false"
	if server, err := Start(t.Context(), cfg); err == nil {
		server.Stop()
		t.Error("Start() of a program that ends = nil, want an error")
	} else if !strings.Contains(err.Error(), "before it was ready") {
		t.Errorf("Start() = %v, want that it ended", err)
	}
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Minio, cfg.Dir = binary(t), t.TempDir()
	server, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return server
}

func binary(t *testing.T) string {
	t.Helper()
	builder, err := build.Here(os.Getenv, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	path, err := builder.Server(t.Context(), build.Minio())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func assume(t *testing.T, server *Server, role, token string) (status int, answer string) {
	t.Helper()
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"},
		"RoleArn": {role}, "RoleSessionName": {"test"}, "WebIdentityToken": {token},
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.Endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// issuer signs tokens as an API server does, and serves its key by HTTPS.
type issuer struct {
	key    *rsa.PrivateKey
	server *httptest.Server
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	mux := http.NewServeMux()
	i.server = httptest.NewTLSServer(mux)
	t.Cleanup(i.server.Close)
	serve(t, mux, "/.well-known/openid-configuration", map[string]any{
		"issuer": i.server.URL, "jwks_uri": i.server.URL + "/openid/v1/jwks",
		"id_token_signing_alg_values_supported": []string{"RS256"},
	})
	serve(t, mux, "/openid/v1/jwks", map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1",
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}}})
	return i
}

func serve(t *testing.T, mux *http.ServeMux, path string, document any) {
	t.Helper()
	body := encode(t, document)
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
}

// authority writes that of the issuer's certificate to a file.
func (i *issuer) authority(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "issuer.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.server.Certificate().Raw})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (i *issuer) token(t *testing.T, change map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"iss": i.server.URL, "aud": []string{Audience}, "sub": "system:serviceaccount:shop:cart",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, change)
	signed := segment(t, map[string]string{"alg": "RS256", "kid": "1"}) + "." + segment(t, claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func segment(t *testing.T, v any) string {
	t.Helper()
	return base64.RawURLEncoding.EncodeToString(encode(t, v))
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	encoded, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}
