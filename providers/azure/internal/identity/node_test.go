package identity

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestNodeRefuses: what the services of the node say, and what is to be done.
func TestNodeRefuses(t *testing.T) {
	t.Parallel()
	system := func(u *Use) { u.ClientID = "" }
	for name, test := range map[string]struct {
		kind     Kind
		change   func(*Use)
		answer   scripted
		want     ErrorKind
		code     string
		says     string
		fix      string
		attempts int
	}{
		"identity is not assigned": {
			kind: ManagedIdentity, answer: scripted{status: 400, body: `{"error": "invalid_request", "error_description": "Identity not found"}`},
			want: Denied, code: "invalid_request", says: "Identity not found", fix: "Assign the identity with client ID " + clientA, attempts: 1,
		},
		"no system-assigned identity": {
			kind: ManagedIdentity, change: system, answer: scripted{status: 400, body: `{"error": "invalid_request", "error_description": "Identity not found"}`},
			want: Denied, code: "invalid_request", says: "Identity not found", fix: "Enable the system-assigned identity", attempts: 1,
		},
		"service is updated": {
			kind: ManagedIdentity, answer: scripted{status: 404, body: `{"error": "not_found"}`}, want: Unavailable, code: "not_found", attempts: retried,
		},
		"service is gone": {
			kind: ManagedIdentity, answer: scripted{status: 410, body: `{}`}, want: Unavailable, attempts: retried,
		},
		"service throttles": {
			kind: ManagedIdentity, answer: scripted{status: 429, body: `{}`, header: []string{"Retry-After", "30"}}, want: Throttled, attempts: 1,
		},
		"service cannot be reached": {
			kind: ManagedIdentity, answer: scripted{err: syscall.EHOSTUNREACH}, want: Unavailable,
			says: "169.254.169.254: no route to host", fix: "Check that network policies", attempts: retried,
		},
		"something else answers": {
			kind: ManagedIdentity, answer: scripted{status: 200, body: "<html>"}, want: Unavailable, says: "169.254.169.254 answers is not", attempts: 1,
		},
		"token without an expiry": {
			kind: ManagedIdentity, answer: scripted{status: 200, body: `{"access_token": "canary"}`}, want: Unavailable, says: "with an expiry", attempts: 1,
		},
		"no binding": {
			kind: PodIdentity, answer: scripted{status: 404, body: "getting assigned identities for pod shop/pod-a in CREATED state failed\n"},
			want: Denied, says: "getting assigned identities for pod shop/pod-a in CREATED state failed", fix: "Check that an AzureIdentityBinding", attempts: 1,
		},
		"NMI forbids": {
			kind: PodIdentity, answer: scripted{status: 403, body: "no azure identity found"}, want: Denied, says: "no azure identity found", attempts: 1,
		},
		"NMI forbids, with a token": {
			kind: PodIdentity, answer: scripted{status: 403, body: `{"token": {"access_token": "canary", "expires_in": 60}}`}, want: Denied, attempts: 1,
		},
		"NMI is broken": {
			kind: PodIdentity, answer: scripted{status: 500, body: "adal: oops"}, want: Unavailable, says: "adal: oops", attempts: retried,
		},
		"NMI throttles": {
			kind: PodIdentity, answer: scripted{status: 429, body: "slow"}, want: Throttled, attempts: retried,
		},
		"NMI passes on an error": {
			kind: PodIdentity, answer: scripted{status: 400, body: `{"error": "invalid_client", "error_description": "AADSTS700016: gone."}`},
			want: Denied, code: "AADSTS700016", says: "gone.", attempts: 1,
		},
		"NMI is not there": {
			kind: PodIdentity, answer: scripted{err: syscall.ECONNREFUSED}, want: Unavailable, says: "localhost:2579: connection refused",
			fix: "The NMI answers on the network of the node only", attempts: retried,
		},
		"NMI gives no token": {
			kind: PodIdentity, answer: scripted{status: 200, body: `{"token": {}}`}, want: Unavailable, says: "with an expiry", attempts: 1,
		},
		"NMI gives no expiry": {
			kind: PodIdentity, answer: scripted{status: 200, body: `{"token": {"access_token": "canary"}}`}, want: Unavailable, says: "with an expiry", attempts: 1,
		},
		"NMI gives a bad expiry": {
			kind: PodIdentity, answer: scripted{status: 200, body: `{"token": {"access_token": "canary", "expires_on": "canary"}}`},
			want: Unavailable, says: "with an expiry", attempts: 1,
		},
		"NMI gives what has expired": {
			kind: PodIdentity, answer: scripted{status: 200, body: `{"token": {"access_token": "canary", "expires_on": "946684799"}}`},
			want: Unavailable, says: "has expired when it arrives, at 1999-12-31T23:59:59Z", attempts: 1,
		},
		"NMI gives another kind of token": {
			kind: PodIdentity, answer: scripted{status: 200, body: `{"token": {"access_token": "canary", "expires_in": 60, "token_type": "pop"}}`},
			want: Unavailable, says: "no bearer token", attempts: 1,
		},
		"something else than the NMI": {
			kind: PodIdentity, answer: scripted{status: 200, body: "<html>"}, want: Unavailable, says: "localhost:2579 answers is not", attempts: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &transport{answer: func(int, asked) scripted { return test.answer }}
				use := of(test.kind, "a")
				if test.change != nil {
					test.change(&use)
				}
				_, err := manager(s, nil).Acquire(t.Context(), use)
				e := failure(t, err)
				if e.Kind != test.want || e.Code != test.code || !strings.Contains(e.Message, test.says) || !strings.HasPrefix(e.Fix, test.fix) {
					t.Errorf("%v, code %q: %v; fix %q", e.Kind, e.Code, err, e.Fix)
				}
				if e.Operation != operationOf(test.kind) || s.logins() != test.attempts {
					t.Errorf("%s, asked %d times, want %d", e.Operation, s.logins(), test.attempts)
				}
				noCanary(t, err)
			})
		})
	}
}

// TestNMIForms: the forms in which a token comes.
func TestNMIForms(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"token": {"access_token": %q, "expires_on": "946688400", "resource": "https://vault.azure.net", "token_type": "Bearer"}, "clientid": "x"}`,
		`{"token": {"access_token": %q, "expires_on": 946688400, "expires_in": "", "refresh_token": ""}}`,
		`{"token": {"access_token": %q, "expires_in": "3600", "expires_on": null}}`,
		`{"access_token": %q, "expires_in": 3600}`,
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &transport{answer: always(200, fmt.Sprintf(body, access(1, tenantA)))}
				got := acquire(t, manager(s, nil), of(PodIdentity, "a"))
				if text(t, got) != access(1, tenantA) || time.Until(got.Expires()) != time.Hour {
					t.Errorf("%v until %v", got, got.Expires())
				}
			})
		})
	}
}

// TestEndpoints: where the node is asked is the operator's to say.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind   Kind
		change func(*Config)
		want   string // in the error, or else the URL asked
	}{
		"NMI elsewhere":   {PodIdentity, func(c *Config) { c.NMIEndpoint = "http://10.0.0.1:2579/host/token/?x=y" }, "http://10.0.0.1:2579/host/token/"},
		"NMI that is no":  {PodIdentity, func(c *Config) { c.NMIEndpoint = "http://a b/" }, "endpoint of the NMI"},
		"IMDS that is no": {ManagedIdentity, func(c *Config) { c.IMDSEndpoint = "http://a b/" }, "endpoint of the instance metadata service"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := entra()
				_, err := manager(s, test.change).Acquire(t.Context(), of(test.kind, "a"))
				if err != nil {
					if e := failure(t, err); e.Kind != Invalid || !strings.Contains(e.Message, test.want) {
						t.Errorf("error %v, want Invalid with %q", err, test.want)
					}
					return
				}
				if got := s.all()[0]; got.url != test.want || got.query.Get("x") != "y" || got.query.Get("resource") == "" {
					t.Errorf("asked %+v", got)
				}
			})
		})
	}
}

// TestLocalWithoutProxy: without clients of the caller's, Entra is asked through
// the proxy of the environment, and the node never is.
func TestLocalWithoutProxy(t *testing.T) {
	t.Parallel()
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.IsAbs() || r.Header.Get("Podname") != "pod-a" {
			http.Error(w, "not for the NMI", http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprintf(w, `{"token": {"access_token": "canary", "expires_in": 60}}`)
	}))
	t.Cleanup(node.Close)
	m := New(Config{NMIEndpoint: node.URL + "/host/token/"})
	acquire(t, m, of(PodIdentity, "a"))
	transport, ok := m.cfg.LocalHTTPClient.Transport.(*http.Transport)
	if !ok || transport.Proxy != nil {
		t.Error("the node would be asked through a proxy")
	}
	if m.cfg.ClientOptions.Transport == nil || New(Config{}).cfg.NMIEndpoint != "http://localhost:2579/host/token/" {
		t.Error("there are no defaults")
	}
}
