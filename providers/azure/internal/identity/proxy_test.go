package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const proxySNI = "a0123.ests.aks"

// tokenProxy is one of AKS, with a certificate for one name.
type tokenProxy struct {
	*httptest.Server
	ca []byte // PEM

	mu       sync.Mutex
	requests []proxied
	answer   http.HandlerFunc // to requests for a token; nil: an access token
	closed   chan struct{}    // gets one for each connection that has ended
}

// proxied is a request that it got.
type proxied struct {
	What, Host, SNI string
	Form            url.Values
}

func startTokenProxy(t *testing.T) *tokenProxy {
	t.Helper()
	certificate, ca := certificateFor(t, proxySNI)
	p := &tokenProxy{ca: ca, closed: make(chan struct{}, 100)}
	p.Server = httptest.NewUnstartedServer(p)
	p.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	p.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of handshakes that are to fail
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			p.closed <- struct{}{}
		}
	}
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

// certificateFor is self-signed.
func certificateFor(t *testing.T, name string) (certificate tls.Certificate, ca []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (p *tokenProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm() // what cannot be parsed is not there
	p.mu.Lock()
	p.requests = append(p.requests, proxied{What: r.Method + " " + r.URL.Path, Host: r.Host, SNI: r.TLS.ServerName, Form: r.PostForm})
	answer := p.answer
	p.mu.Unlock()
	switch {
	case isMetadata(r.URL.Path):
		_, _ = w.Write([]byte(metadataOf("https://" + r.Host + strings.TrimPrefix(r.URL.Path, "/proxy"))))
	case answer != nil:
		answer(w, r)
	default:
		_, _ = w.Write([]byte(issued(1, time.Hour)))
	}
}

// file writes certificates to a file.
func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// bound returns a Manager that logs in at the proxy, and nowhere else.
func bound(p TokenProxy) *Manager {
	nowhere := &transport{answer: always(http.StatusTeapot, "")}
	return manager(nowhere, func(c *Config) { c.TokenProxy = p })
}

// TestIdentityBinding: all of a login goes to the proxy, by its name in TLS, as if
// it were Entra.
func TestIdentityBinding(t *testing.T) {
	t.Parallel()
	p := startTokenProxy(t)
	got := acquire(t, bound(TokenProxy{URL: p.URL + "/proxy", SNIName: proxySNI, CAFile: file(t, p.ca)}), of(IdentityBinding, "a"))
	if text(t, got) != access(1, tenantA) || time.Until(got.Expires()) < 50*time.Minute {
		t.Errorf("%v until %v", got, got.Expires())
	}
	form := assertion("a", "https://vault.azure.net/.default")
	form.Set("client_info", "1")
	want := []proxied{
		{What: "GET /proxy/" + tenantA + "/v2.0/.well-known/openid-configuration", Host: "login.microsoftonline.com", SNI: proxySNI},
		{What: "POST /proxy/" + tenantA + "/oauth2/v2.0/token", Host: "login.microsoftonline.com", SNI: proxySNI, Form: form},
	}
	select {
	case <-p.closed:
	case <-time.After(time.Minute):
		t.Error("the connection is left open")
	}
	p.requests[0].Form = nil
	if diff := cmp.Diff(want, p.requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestTokenProxyCertificates: only what the file of now holds is trusted, for the
// name of the proxy alone.
func TestTokenProxyCertificates(t *testing.T) {
	t.Parallel()
	p := startTokenProxy(t)
	_, other := certificateFor(t, proxySNI)
	for name, test := range map[string]struct {
		proxy TokenProxy
		kind  ErrorKind
		want  string
	}{
		"of others":     {TokenProxy{SNIName: proxySNI, CAFile: file(t, other)}, Unavailable, "x509"},
		"of the system": {TokenProxy{SNIName: proxySNI}, Unavailable, "x509"},
		"another name":  {TokenProxy{SNIName: "other.ests.aks", CAFile: file(t, p.ca)}, Unavailable, "other.ests.aks"},
		"none":          {TokenProxy{SNIName: proxySNI, CAFile: file(t, nil)}, Invalid, "holds none"},
		"no file":       {TokenProxy{SNIName: proxySNI, CAFile: "/nonexistent"}, Invalid, "/nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.proxy.URL = p.URL
			_, err := bound(test.proxy).Acquire(t.Context(), of(IdentityBinding, "a"))
			e := failure(t, err)
			if e.Kind != test.kind || !strings.Contains(e.Message, test.want) || e.Operation != OperationTokenProxy {
				t.Errorf("error %v, want %v with %q", err, test.kind, test.want)
			}
			if host := strings.TrimPrefix(p.URL, "https://"); test.kind == Unavailable && !strings.Contains(e.Message, host) {
				t.Errorf("error %v does not say that %s was asked", err, host)
			}
			noCanary(t, err)
		})
	}
}

// TestTokenProxyCertificatesChange: the file is read for each login.
func TestTokenProxyCertificatesChange(t *testing.T) {
	t.Parallel()
	p := startTokenProxy(t)
	_, other := certificateFor(t, proxySNI)
	ca := file(t, other)
	m := bound(TokenProxy{URL: p.URL, SNIName: proxySNI, CAFile: ca})
	if _, err := m.Acquire(t.Context(), of(IdentityBinding, "a")); err == nil {
		t.Fatal("the proxy is trusted")
	}
	if err := os.WriteFile(ca, p.ca, 0o600); err != nil {
		t.Fatal(err)
	}
	acquire(t, m, of(IdentityBinding, "a"))
}

// TestTokenProxyRefuses: it says no as Entra does, and sends nobody elsewhere.
func TestTokenProxyRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		kind   ErrorKind
		code   string
	}{
		"no binding": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(refusal(401, 700213, "No match.").body))
		}, Denied, "AADSTS700213"},
		"the API server": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"kind": "Status", "message": "forbidden"}`, http.StatusForbidden)
		}, Denied, ""},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, Unavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startTokenProxy(t)
			p.answer = test.answer
			_, err := bound(TokenProxy{URL: p.URL, SNIName: proxySNI, CAFile: file(t, p.ca)}).Acquire(t.Context(), of(IdentityBinding, "a"))
			e := failure(t, err)
			if e.Kind != test.kind || e.Code != test.code || len(p.requests) != 2 {
				t.Errorf("error %v of kind %v after %d requests", err, e.Kind, len(p.requests))
			}
			if e.Kind == Denied && !strings.Contains(e.Fix, "identity binding of client "+clientA) {
				t.Errorf("fix %q", e.Fix)
			}
		})
	}
}

func TestTokenProxyValidate(t *testing.T) {
	t.Parallel()
	for proxy, want := range map[TokenProxy]string{
		{SNIName: proxySNI}:                          "",
		{URL: "https://10.0.0.1:8443/path"}:          "",
		{}:                                           "--sni-name",
		{URL: "http://10.0.0.1"}:                     "https://",
		{URL: "https://"}:                            "https://",
		{URL: "https://user:canary@10.0.0.1"}:        "--token-proxy-url",
		{URL: "https://10.0.0.1/?canary"}:            "--token-proxy-url",
		{URL: "https://10.0.0.1/#canary"}:            "--token-proxy-url",
		{URL: "https://canary:x y/"}:                 "is none",
		{URL: "10.0.0.1:8443", SNIName: "a.example"}: "is none",
	} {
		err := proxy.Validate()
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%+v: error %v, want %q", proxy, err, want)
		}
	}
}

// TestTokenProxyDefault: that of the cluster, which is trusted as the API server is.
func TestTokenProxyDefault(t *testing.T) {
	t.Parallel()
	_, err := bound(TokenProxy{SNIName: proxySNI}).Acquire(t.Context(), of(IdentityBinding, "a"))
	if e := failure(t, err); e.Kind != Invalid || !strings.Contains(e.Message, "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt") {
		t.Errorf("error %v", err)
	}
	to, err := TokenProxy{SNIName: proxySNI}.parse()
	if err != nil || to.String() != "https://kubernetes.default.svc.cluster.local" {
		t.Errorf("the proxy is %v, error %v", to, err)
	}
}
