package store

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/postern-dev/postern/providers/sdk"
)

// serve answers with each handler once, with the last for ever.
func serve(t *testing.T, handlers ...http.HandlerFunc) (string, *atomic.Int32) {
	t.Helper()
	calls := &atomic.Int32{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(calls.Add(1))
		handlers[min(n, len(handlers))-1](w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, calls
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

func newPool(t *testing.T) *Pool {
	t.Helper()
	p := New(Config{})
	t.Cleanup(p.Close)
	return p
}

const good = `{"data":{"k":"canary"}}`

func TestReadRetries(t *testing.T) {
	t.Parallel()
	hangUp := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	tests := map[string]struct {
		method string
		first  http.HandlerFunc
		calls  int32
		status int // of the error; -1: none; 0: no answer
	}{
		"500":             {"GET", answer(500, ""), 2, -1},
		"503":             {"GET", answer(503, ""), 2, -1},
		"412":             {"GET", answer(412, ""), 2, -1},
		"429":             {"GET", answer(429, "", "Retry-After", "1"), 2, -1},
		"429 for long":    {"GET", answer(429, "", "Retry-After", "60"), 1, 429},
		"connection lost": {"GET", hangUp, 2, -1},
		"LIST":            {"LIST", answer(500, ""), 2, -1},
		"501":             {"GET", answer(501, ""), 1, 501},
		"404":             {"GET", answer(404, ""), 1, 404},
		"403":             {"GET", answer(403, ""), 1, 403},
		"POST":            {"POST", answer(503, ""), 1, 503},
		"POST, lost":      {"POST", hangUp, 1, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, calls := serve(t, tt.first, answer(200, good))
			_, err := newPool(t).Read(t.Context(), Endpoint{Address: address}, sdk.SecretString{},
				Request{Method: tt.method, Path: "v1/kv/a"})
			status := -1
			if e, ok := errors.AsType[*Error](err); ok {
				status = e.Status
			}
			if calls.Load() != tt.calls || status != tt.status {
				t.Errorf("%d calls, error %v; want %d, status %d", calls.Load(), err, tt.calls, tt.status)
			}
		})
	}
}

func TestReadGivesUpBeforeDeadline(t *testing.T) {
	t.Parallel()
	address, calls := serve(t, answer(503, `{"errors":["sealed"]}`))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := newPool(t).Read(ctx, Endpoint{Address: address}, sdk.SecretString{}, Request{Method: "GET", Path: "v1/kv/a"})
	if !Is(err, 503) || calls.Load() != 1 || ctx.Err() != nil {
		t.Errorf("%d calls, %v, context %v; want what the server said, in time", calls.Load(), err, ctx.Err())
	}
}

func TestReadRequest(t *testing.T) {
	t.Parallel()
	type seen struct{ method, uri, token, namespace, body string }
	got := make(chan seen, 1)
	address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&body)
		got <- seen{r.Method, r.RequestURI, r.Header.Get("X-Vault-Token"), r.Header.Get("X-Vault-Namespace"), string(body)}
		answer(200, good)(w, r)
	})
	_, err := newPool(t).Read(t.Context(), Endpoint{Address: address, Namespace: "team"}, sdk.NewSecretString("s.token"), Request{
		Method: "PUT", Path: "v1/pki/issue/a", Query: url.Values{"x": {"1"}}, Body: []byte(`{"a":12345678901234567890}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (seen{"PUT", "/v1/pki/issue/a?x=1", "s.token", "team", `{"a":12345678901234567890}`}); <-got != want {
		t.Errorf("request is not %+v", want)
	}
}

func TestErrorTexts(t *testing.T) {
	t.Parallel()
	address, _ := serve(t, answer(403, `{"errors":["jwt canary-jwt is\n bad","`+strings.Repeat("x", 2000)+`"],"warnings":["w"]}`))
	_, err := newPool(t).Login(t.Context(), Endpoint{Address: address}, Login{Mount: "jwt", Role: "r", JWT: sdk.NewSecretString("canary-jwt")})
	text := fmt.Sprint(err)
	if !strings.HasPrefix(text, "HTTP status 403: jwt [redacted] is bad; xxx") || !strings.HasSuffix(text, "...; w") || len(text) > 700 {
		t.Errorf("error = %s", text)
	}
}

// TestCAFileChanges: a CA that is renewed on disk is used without a restart.
func TestCAFileChanges(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(answer(200, good))
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	other := httptest.NewUnstartedServer(nil)
	t.Cleanup(other.Close)
	write := func(der []byte, extra string) {
		if err := os.WriteFile(file, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), extra...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := newPool(t)
	read := func(tls TLS) error {
		_, err := p.Read(t.Context(), Endpoint{Address: s.URL, TLS: tls}, sdk.SecretString{}, Request{Method: "GET", Path: "v1/kv/a"})
		return err
	}
	var e *Error
	if err := read(TLS{}); !errors.As(err, &e) || !e.Untrusted() {
		t.Errorf("without a CA: %v", err)
	}
	if err := read(TLS{CACert: file}); !errors.As(err, &e) || !e.Misconfigured() {
		t.Errorf("without a file: %v", err)
	}
	write(s.Certificate().Raw, "")
	if err := read(TLS{CACert: file}); err != nil {
		t.Errorf("with the CA: %v", err)
	}
	if err := read(TLS{CACert: file, ServerName: "wrong.example"}); !errors.As(err, &e) || !e.Untrusted() {
		t.Errorf("with another name: %v", err)
	}
	if err := read(TLS{SkipVerify: true}); err != nil {
		t.Errorf("without verification: %v", err)
	}
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := read(TLS{CACert: file}); !errors.As(err, &e) || !e.Misconfigured() {
		t.Errorf("with a file that has become bad: %v", err)
	}
}

func TestPoolIsBoundedAndShared(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	for i := range 3 * maxClients {
		if _, err := p.client(Endpoint{Address: fmt.Sprintf("http://v%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.clients) != maxClients {
		t.Errorf("%d clients, want %d", len(p.clients), maxClients)
	}
	one, _ := p.client(Endpoint{Address: "http://v", Namespace: "a"})
	two, _ := p.client(Endpoint{Address: "http://v", Namespace: "b"})
	three, _ := p.client(Endpoint{Address: "http://v", TLS: TLS{ServerName: "n"}})
	if one != two || one == three {
		t.Error("clients are shared by namespaces, and not by TLS configurations")
	}
}

func TestAnswerPrintsNothing(t *testing.T) {
	t.Parallel()
	a := NewAnswer(&api.Secret{LeaseID: "canary", Data: map[string]any{"k": "canary"}})
	var text string
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		text += fmt.Sprintf(format, a)
	}
	encoded, err := json.Marshal(map[string]any{"a": a})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "a", a)
	if text += string(encoded) + log.String(); strings.Contains(text, "canary") {
		t.Errorf("printed: %s", text)
	}
}

// TestLeaseCalls: what is asked of leases and of the logins of others, as the
// API has it.
func TestLeaseCalls(t *testing.T) {
	t.Parallel()
	type seen struct{ path, body string }
	for name, tt := range map[string]struct {
		answer string
		call   func(p *Pool, ep Endpoint) (any, error)
		want   seen
		got    any
	}{
		"renew": {
			`{"lease_id":"l","lease_duration":60,"renewable":true}`,
			func(p *Pool, ep Endpoint) (any, error) { return p.RenewLease(t.Context(), ep, sdk.SecretString{}, "l") },
			seen{"/v1/sys/leases/renew", `{"lease_id":"l"}`},
			Lease{Duration: time.Minute, Renewable: true},
		},
		"look up": {
			`{"data":{"id":"l","ttl":30,"renewable":false}}`,
			func(p *Pool, ep Endpoint) (any, error) {
				return p.LookupLease(t.Context(), ep, sdk.SecretString{}, "l")
			},
			seen{"/v1/sys/leases/lookup", `{"lease_id":"l"}`},
			Lease{Duration: 30 * time.Second},
		},
		"renew a login": {
			`{"auth":{"client_token":"","accessor":"a","lease_duration":90,"renewable":true}}`,
			func(p *Pool, ep Endpoint) (any, error) {
				return p.RenewAccessor(t.Context(), ep, sdk.SecretString{}, "a")
			},
			seen{"/v1/auth/token/renew-accessor", `{"accessor":"a"}`},
			90 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan seen, 1)
			address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
				var body json.RawMessage
				_ = json.NewDecoder(r.Body).Decode(&body)
				got <- seen{r.RequestURI, string(body)}
				answer(200, tt.answer)(w, r)
			})
			result, err := tt.call(newPool(t), Endpoint{Address: address})
			if err != nil {
				t.Fatal(err)
			}
			if request := <-got; request != tt.want {
				t.Errorf("asked %+v, want %+v", request, tt.want)
			}
			if result != tt.got {
				t.Errorf("got %v, want %v", result, tt.got)
			}
			for _, nothing := range []string{"", `{"data":{}}`} {
				address, _ := serve(t, answer(200, nothing))
				if _, err := tt.call(newPool(t), Endpoint{Address: address}); err == nil && (nothing == "" || name != "renew") {
					t.Errorf("an answer of %q is taken for one", nothing)
				}
			}
		})
	}
}

// TestLeaseErrorsHideIDs: an id is as good as the right to renew what it names.
func TestLeaseErrorsHideIDs(t *testing.T) {
	t.Parallel()
	address, _ := serve(t, answer(400, `{"errors":["no canary-id here"]}`))
	ep, p := Endpoint{Address: address}, newPool(t)
	_, renew := p.RenewLease(t.Context(), ep, sdk.SecretString{}, "canary-id")
	_, lookup := p.LookupLease(t.Context(), ep, sdk.SecretString{}, "canary-id")
	_, accessor := p.RenewAccessor(t.Context(), ep, sdk.SecretString{}, "canary-id")
	for _, err := range []error{renew, lookup, accessor, p.RevokeLease(t.Context(), ep, sdk.SecretString{}, "canary-id")} {
		if !Is(err, 400) || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "[redacted]") {
			t.Errorf("error = %v", err)
		}
	}
}
