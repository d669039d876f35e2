package identity

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// request is what a test compares of one that was made.
type request struct {
	What  string // method and URL without a query
	Query url.Values
	Form  url.Values
	Local map[string]string // headers that the node's services want
}

func requestsOf(s *transport) []request {
	var all []request
	for _, one := range s.all() {
		r := request{What: one.method + " " + one.url, Query: one.query, Form: one.form}
		for _, name := range []string{"Metadata", "Podname", "Podns", "Authorization"} {
			if value := one.header.Get(name); value != "" {
				if r.Local == nil {
					r.Local = make(map[string]string)
				}
				r.Local[name] = value
			}
		}
		if len(r.Query) == 0 {
			r.Query = nil
		}
		if r.Form.Get("client_info") != "" {
			r.Form.Del("client_info") // of the SDK's own cache
		}
		if len(r.Form) == 0 {
			r.Form = nil
		}
		all = append(all, r)
	}
	return all
}

const (
	metadataA = "GET https://login.microsoftonline.com/" + tenantA + "/v2.0/.well-known/openid-configuration"
	tokenA    = "POST https://login.microsoftonline.com/" + tenantA + "/oauth2/v2.0/token"
)

// assertion is the form with which a pod's token is exchanged.
func assertion(pod, scope string) url.Values {
	return url.Values{
		"client_id": {clientA}, "grant_type": {"client_credentials"}, "scope": {scope + " openid offline_access profile"},
		"client_assertion":      {podToken(pod).Reveal()},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
}

// TestRequests: all that a login asks, of whom.
func TestRequests(t *testing.T) {
	t.Parallel()
	const vault = "https://vault.azure.net/.default"
	for name, test := range map[string]struct {
		use  Use
		with func(*Use)
		want []request
	}{
		"workload identity": {
			use:  of(WorkloadIdentity, "a"),
			want: []request{{What: metadataA}, {What: tokenA, Form: assertion("a", vault)}},
		},
		"workload identity in another cloud": {
			use: of(WorkloadIdentity, "a"),
			with: func(u *Use) {
				u.Cloud = params.Cloud{
					Name: "AzureUSGovernmentCloud", AuthorityHost: "https://login.microsoftonline.us/",
					VaultScope: "https://vault.usgovcloudapi.net/.default",
				}
			},
			want: []request{
				{What: strings.Replace(metadataA, ".com", ".us", 1)},
				{What: strings.Replace(tokenA, ".com", ".us", 1), Form: assertion("a", "https://vault.usgovcloudapi.net/.default")},
			},
		},
		"workload identity in a cloud of one's own": {
			use: of(WorkloadIdentity, "a"),
			with: func(u *Use) {
				u.Cloud = params.Cloud{Name: "AzureStackCloud", AuthorityHost: "https://login.stack.example/", VaultScope: "https://vault.stack.example/.default"}
			},
			want: []request{
				{What: strings.Replace(metadataA, "microsoftonline.com", "stack.example", 1)},
				{What: strings.Replace(tokenA, "microsoftonline.com", "stack.example", 1), Form: assertion("a", "https://vault.stack.example/.default")},
			},
		},
		"ADFS": {
			use: of(WorkloadIdentity, "a"),
			with: func(u *Use) {
				u.TenantID = "adfs"
				u.Cloud = params.Cloud{Name: "AzureStackCloud", AuthorityHost: "https://adfs.stack.example/", VaultScope: "https://vault.stack.example/.default"}
			},
			want: []request{
				{What: "GET https://adfs.stack.example/adfs/.well-known/openid-configuration"},
				{What: "POST https://adfs.stack.example/adfs/oauth2/v2.0/token", Form: assertion("a", "https://vault.stack.example/.default")},
			},
		},
		"service principal": {
			use: of(ServicePrincipal, "a"),
			want: []request{{What: metadataA}, {What: tokenA, Form: url.Values{
				"client_id": {clientA}, "grant_type": {"client_credentials"}, "scope": {vault + " openid offline_access profile"},
				"client_secret": {canarySecret},
			}}},
		},
		"user-assigned identity": {
			use: of(ManagedIdentity, "a"),
			want: []request{{
				What:  "GET http://169.254.169.254/metadata/identity/oauth2/token",
				Query: url.Values{"api-version": {"2018-02-01"}, "resource": {"https://vault.azure.net"}, "client_id": {clientA}},
				Local: map[string]string{"Metadata": "true"},
			}},
		},
		"system-assigned identity": {
			use:  of(ManagedIdentity, "a"),
			with: func(u *Use) { u.ClientID = "" },
			want: []request{{
				What:  "GET http://169.254.169.254/metadata/identity/oauth2/token",
				Query: url.Values{"api-version": {"2018-02-01"}, "resource": {"https://vault.azure.net"}},
				Local: map[string]string{"Metadata": "true"},
			}},
		},
		"AAD Pod Identity": {
			use: of(PodIdentity, "a"),
			want: []request{{
				What:  "GET http://localhost:2579/host/token/",
				Query: url.Values{"resource": {"https://vault.azure.net"}},
				Local: map[string]string{"Podname": "pod-a", "Podns": "shop"},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := entra()
				if test.with != nil {
					test.with(&test.use)
				}
				m := manager(s, nil)
				got := acquire(t, m, test.use)
				if diff := cmp.Diff(test.want, requestsOf(s)); diff != "" {
					t.Errorf("requests (-want +got):\n%s", diff)
				}
				if text(t, got) != access(1, tenantA) || time.Until(got.Expires()) != time.Hour || got.Cached() {
					t.Errorf("%v, until %v, cached %v: not what was issued", got, got.Expires(), got.Cached())
				}
				if again := acquire(t, m, test.use); !again.Cached() || again.Key() != got.Key() || s.logins() != 1 {
					t.Errorf("cached %v, key %q, %d logins: the token is not kept", again.Cached(), again.Key(), s.logins())
				}
				// The SDK must not know the token any more.
				m.Drop(got)
				if newer := acquire(t, m, test.use); newer.Cached() || newer.Key() == got.Key() || text(t, newer) != access(2, tenantA) {
					t.Errorf("cached %v, key %q: not a new login", newer.Cached(), newer.Key())
				}
				if s.open != 0 {
					t.Errorf("%d answers are left open", s.open)
				}
			})
		})
	}
}

// TestManagedIdentityOfTwoManagers: the SDK has a cache for the process.
func TestManagedIdentityOfTwoManagers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 2 {
			s := entra()
			acquire(t, manager(s, nil), of(ManagedIdentity, "a"))
			if s.logins() != 1 {
				t.Errorf("%d requests, want 1", s.logins())
			}
		}
	})
}

// TestEnvironment: nothing of what the process may be allowed is used for a pod,
// nor is a pod's token sent where a variable says.
func TestEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"AZURE_CLIENT_ID": "other", "AZURE_CLIENT_SECRET": "canary-other", "AZURE_TENANT_ID": tenantB,
		"AZURE_FEDERATED_TOKEN_FILE": "/nonexistent", "AZURE_AUTHORITY_HOST": "https://other.example/",
		"AZURE_KUBERNETES_TOKEN_PROXY": "https://other.example/", "AZURE_ADDITIONALLY_ALLOWED_TENANTS": "*",
		"IDENTITY_ENDPOINT": "http://other.example/", "IDENTITY_HEADER": "other", "MSI_ENDPOINT": "http://other.example/",
	} {
		t.Setenv(name, value)
	}
	s := entra()
	acquire(t, manager(s, nil), of(WorkloadIdentity, "a"))
	want := []request{{What: metadataA}, {What: tokenA, Form: assertion("a", "https://vault.azure.net/.default")}}
	if diff := cmp.Diff(want, requestsOf(s)); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	s = entra()
	if acquire(t, manager(s, nil), of(ServicePrincipal, "a")); requestsOf(s)[1].Form.Get("client_secret") != canarySecret {
		t.Errorf("requests %v", requestsOf(s))
	}
}

// TestWithoutRedirects: what a login is made with stays where it was sent.
func TestWithoutRedirects(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{WorkloadIdentity, ServicePrincipal, ManagedIdentity, PodIdentity} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &transport{answer: always(http.StatusTemporaryRedirect, "", "Location", "https://other.example/")}
				_, err := manager(s, nil).Acquire(t.Context(), of(kind, "a"))
				if e := failure(t, err); e.Kind != Unavailable || e.Status != http.StatusTemporaryRedirect {
					t.Errorf("error %v", err)
				}
				for _, one := range s.all() {
					if strings.Contains(one.url, "other.example") {
						t.Errorf("asked %s", one.url)
					}
				}
			})
		})
	}
}

// TestPlaintext: a tenant's metadata cannot make an assertion go without TLS.
func TestPlaintext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := entra()
		s.metadata = func(one asked) scripted {
			body := strings.ReplaceAll(metadataOf(one.url), `"token_endpoint": "https`, `"token_endpoint": "http`)
			return scripted{status: http.StatusOK, body: body}
		}
		began := time.Now()
		_, err := manager(s, nil).Acquire(t.Context(), of(WorkloadIdentity, "a"))
		if e := failure(t, err); e.Kind != Unavailable || !strings.Contains(e.Message, "no TLS") || time.Since(began) != 0 {
			t.Errorf("error %v after %v", err, time.Since(began))
		}
		if s.logins() != 0 || len(s.all()) != 1 {
			t.Errorf("requests %v", requestsOf(s))
		}
	})
}

// TestLocalClient: the node is asked by its own client, and Entra by the other.
func TestLocalClient(t *testing.T) {
	t.Parallel()
	for kind, ofNode := range map[Kind]bool{
		WorkloadIdentity: false, ServicePrincipal: false, ManagedIdentity: true, PodIdentity: true,
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, node := entra(), entra()
				acquire(t, manager(s, func(c *Config) { c.LocalHTTPClient = &http.Client{Transport: node} }), of(kind, "a"))
				if (node.logins() == 1) != ofNode || (s.logins() == 1) == ofNode {
					t.Errorf("the node was asked %d times, Entra %d", node.logins(), s.logins())
				}
			})
		})
	}
}

// TestIMDSEndpoint: a simulator stands in for the address that is the same everywhere.
func TestIMDSEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := entra()
		acquire(t, manager(s, func(c *Config) { c.IMDSEndpoint = "http://127.0.0.1:7777" }), of(ManagedIdentity, "a"))
		if got := requestsOf(s)[0].What; got != "GET http://127.0.0.1:7777/metadata/identity/oauth2/token" {
			t.Errorf("asked %s", got)
		}
	})
}
