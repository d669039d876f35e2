package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/providertest"
)

// doubleEnv names the test double of Azure, test/cmd/postern-azure. It verifies
// assertions as Entra does, and has its codes and texts.
const doubleEnv = "POSTERN_TEST_AZURE"

const (
	exchangeAudience = "api://AzureADTokenExchange"
	bindingAudience  = "api://AKSIdentityBinding"
)

// double is the double with a tenant and a client.
type double struct {
	Proxy      string `json:"proxy"`
	Control    string `json:"control"`
	IMDS       string `json:"imds"`
	NMI        string `json:"nmi"`
	TokenProxy string `json:"tokenProxy"`
	CAFile     string `json:"caFile"`

	server *providertest.Server
	issuer *providertest.Issuer
	cfg    Config
}

// startDouble runs one for the time of a test.
func startDouble(t *testing.T) *double {
	t.Helper()
	binary := os.Getenv(doubleEnv)
	if binary == "" {
		t.Fatalf("%s is not set: run the tests with make unit/providers/azure, or build it by hand: "+
			"cd test && go build -o /tmp/postern-azure ./cmd/postern-azure", doubleEnv)
	}
	d := &double{}
	var err error
	if d.issuer, err = providertest.NewIssuer("https://oidc.test"); err != nil {
		t.Fatal(err)
	}
	if d.server, err = providertest.StartServer(binary, []string{"--ca-file", filepath.Join(t.TempDir(), "ca.pem")}, d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var found struct{ Violations []any }
		if err := d.server.Call(http.MethodGet, d.Control+"/violations", nil, &found); err != nil || len(found.Violations) > 0 {
			t.Errorf("requests that Azure would not take: %v, error %v", found.Violations, err)
		}
		d.server.Stop()
	})
	d.configure(t)
	d.populate(t)
	return d
}

// configure makes Entra's names lead to the double.
func (d *double) configure(t *testing.T) {
	t.Helper()
	ca, err := os.ReadFile(d.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("the double has no certificate")
	}
	proxy, err := url.Parse(d.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		Proxy: http.ProxyURL(proxy), DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
	d.cfg = Config{
		ClientOptions: azcore.ClientOptions{Transport: &http.Client{Transport: transport}},
		IMDSEndpoint:  d.IMDS, NMIEndpoint: d.NMI, Logger: slog.New(slog.DiscardHandler),
		TokenProxy: TokenProxy{URL: d.TokenProxy, SNIName: proxySNI, CAFile: d.CAFile},
	}
}

// populate puts in what the tests log in to.
func (d *double) populate(t *testing.T) {
	t.Helper()
	expired := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	federated := func(changed map[string]any) []any {
		one := map[string]any{"issuer": d.issuer.URL, "subject": "system:serviceaccount:shop:cart"}
		for name, value := range changed {
			one[name] = value
		}
		return []any{one}
	}
	d.apply(t, map[string]any{
		"issuers": []any{map[string]any{"url": d.issuer.URL, "jwks": d.issuer.JWKS()}},
		"applications": []any{
			map[string]any{
				"tenant": tenantA, "clientId": clientA, "federatedCredentials": federated(nil),
				"secrets":  []any{map[string]any{"value": canarySecret}, map[string]any{"value": "canary-old", "expires": expired}},
				"bindings": []any{"system:serviceaccount:shop:cart"},
			},
			map[string]any{
				"tenant": tenantA, "clientId": "bbbbbbbb-0000-0000-0000-000000000000",
				"federatedCredentials": federated(map[string]any{"issuer": "https://other.test"}),
			},
			map[string]any{
				"tenant": tenantA, "clientId": "cccccccc-0000-0000-0000-000000000000",
				"federatedCredentials": federated(map[string]any{"audience": "api://other"}),
			},
		},
		"identities":    []any{map[string]any{"tenant": tenantA, "clientId": clientA}, map[string]any{"tenant": tenantA, "clientId": tenantB, "system": true}},
		"podIdentities": []any{map[string]any{"namespace": "shop", "pod": "pod-a", "tenant": tenantA, "clientId": clientA}},
		"tokenProxy":    map[string]any{"sniName": proxySNI},
	})
}

func (d *double) apply(t *testing.T, document map[string]any) {
	t.Helper()
	if err := d.server.Call(http.MethodPost, d.Control+"/apply", document, nil); err != nil {
		t.Fatal(err)
	}
}

// requests are what a double got since the last time: service/operation and status.
func (d *double) requests(t *testing.T) []string {
	t.Helper()
	var got struct {
		Requests []struct {
			Service, Operation, ClientID string
			Status                       int
		}
	}
	if err := d.server.Call(http.MethodGet, d.Control+"/requests", nil, &got); err != nil {
		t.Fatal(err)
	}
	if err := d.server.Call(http.MethodDelete, d.Control+"/calls", nil, nil); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, one := range got.Requests {
		all = append(all, fmt.Sprintf("%s/%s %d", one.Service, one.Operation, one.Status))
	}
	return all
}

// use is a wish with a token that the issuer has signed.
func (d *double) use(kind Kind, changed map[string]any) Use {
	u := of(kind, "a")
	pod := sdk.Pod{Name: "pod-a", Namespace: "shop", UID: "uid-1"}
	pod.ServiceAccount.Name = "cart"
	switch kind {
	case WorkloadIdentity:
		u.Token = d.issuer.Token(pod, exchangeAudience, changed).Token
	case IdentityBinding:
		u.Token = d.issuer.Token(pod, bindingAudience, changed).Token
	case ServicePrincipal, ManagedIdentity, PodIdentity:
	}
	return u
}

// TestDouble: each kind of identity against a double that checks what it gets, and
// the requests that a login takes.
func TestDouble(t *testing.T) {
	t.Parallel()
	d := startDouble(t)
	m := New(d.cfg)
	two := []string{"entra/openid-configuration 200", "entra/token 200"}
	for _, test := range []struct {
		kind Kind
		want []string
	}{
		{WorkloadIdentity, two},
		{ServicePrincipal, two},
		{ManagedIdentity, []string{"imds/token 200"}},
		{PodIdentity, []string{"nmi/token 200"}},
		{IdentityBinding, []string{"tokenproxy/openid-configuration 200", "tokenproxy/token 200"}},
	} {
		got := acquire(t, m, d.use(test.kind, nil))
		claims := claimsOf(got.grant.access)
		if claims.Tenant != tenantA || !slices.Contains(claims.Audience, "https://vault.azure.net") || got.Cached() ||
			time.Until(got.Expires()) < 30*time.Minute {
			t.Errorf("%s: a token with %+v until %v", test.kind, claims, got.Expires())
		}
		if again := acquire(t, m, d.use(test.kind, nil)); !again.Cached() || again.Key() != got.Key() {
			t.Errorf("%s: the token is not kept", test.kind)
		}
		if diff := cmp.Diff(test.want, d.requests(t)); diff != "" {
			t.Errorf("%s: requests (-want +got):\n%s", test.kind, diff)
		}
		noCanary(t, got)
	}
}

// TestDoubleRefuses: what is wrong is told apart.
func TestDoubleRefuses(t *testing.T) {
	t.Parallel()
	d := startDouble(t)
	other, err := providertest.NewIssuer(d.issuer.URL)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		use     Use
		change  func(*Use)
		want    ErrorKind
		code    string
		fixSays string
	}{
		"subject": {
			use: d.use(WorkloadIdentity, map[string]any{"sub": "system:serviceaccount:shop:other"}), want: Denied, code: "AADSTS700213",
			fixSays: "issuer https://oidc.test, subject system:serviceaccount:shop:cart, audience api://AzureADTokenExchange",
		},
		"issuer that is not registered": {
			use: d.use(WorkloadIdentity, nil), change: func(u *Use) { u.ClientID = "bbbbbbbb-0000-0000-0000-000000000000" },
			want: Denied, code: "AADSTS700211", fixSays: "issuer https://oidc.test",
		},
		"audience that is not registered": {
			use: d.use(WorkloadIdentity, nil), change: func(u *Use) { u.ClientID = "cccccccc-0000-0000-0000-000000000000" },
			want: Denied, code: "AADSTS700212", fixSays: "audience api://AzureADTokenExchange",
		},
		"audience": {
			use: d.use(WorkloadIdentity, map[string]any{"aud": []string{"vault"}}), want: Denied, code: "AADSTS700212", fixSays: "audience vault",
		},
		"signature": {
			use: d.use(WorkloadIdentity, nil), change: func(u *Use) {
				pod := sdk.Pod{Name: "pod-a", Namespace: "shop"}
				pod.ServiceAccount.Name = "cart"
				u.Token = other.Token(pod, exchangeAudience, nil).Token
			},
			want: Denied, fixSays: "the keys with which the cluster signs",
		},
		"tenant": {
			use: d.use(WorkloadIdentity, nil), change: func(u *Use) { u.TenantID = tenantB }, want: Denied, code: "AADSTS90002", fixSays: tenantB,
		},
		"client": {
			use: d.use(WorkloadIdentity, nil), change: func(u *Use) { u.ClientID = tenantB }, want: Denied, code: "AADSTS700016", fixSays: tenantB,
		},
		"expired": {
			use:  d.use(WorkloadIdentity, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
			want: TokenExpired, code: "AADSTS700024", fixSays: "kubelet",
		},
		"secret": {
			use: d.use(ServicePrincipal, nil), change: func(u *Use) { u.Secret = sdk.NewSecretString("canary-wrong") },
			want: Denied, code: "AADSTS7000215", fixSays: "nodePublishSecretRef",
		},
		"secret that has expired": {
			use: d.use(ServicePrincipal, nil), change: func(u *Use) { u.Secret = sdk.NewSecretString("canary-old") },
			want: Denied, code: "AADSTS7000222", fixSays: "new client secret",
		},
		"client with a secret": {
			use: d.use(ServicePrincipal, nil), change: func(u *Use) { u.ClientID = tenantB }, want: Denied, code: "AADSTS700016", fixSays: tenantB,
		},
		"identity of the node": {
			use: d.use(ManagedIdentity, nil), change: func(u *Use) { u.ClientID = "eeeeeeee-0000-0000-0000-000000000000" },
			want: Denied, code: "invalid_request", fixSays: "Assign the identity",
		},
		"pod": {
			use: d.use(PodIdentity, nil), change: func(u *Use) { u.PodName = "pod-b" }, want: Denied, fixSays: "AzureIdentityBinding",
		},
		"binding": {
			use: d.use(IdentityBinding, map[string]any{"sub": "system:serviceaccount:shop:other"}), want: Denied,
			fixSays: "lets service account shop/cart use it",
		},
		"token that the proxy does not take": {
			use: d.use(IdentityBinding, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}), want: Denied,
			fixSays: "identity binding of client " + clientA,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.change != nil {
				test.change(&test.use)
			}
			_, err := New(d.cfg).Acquire(t.Context(), test.use)
			e := failure(t, err)
			t.Logf("%v. %s", e, e.Fix)
			if e.Kind != test.want || test.code != "" && e.Code != test.code || !strings.Contains(e.Fix, test.fixSays) {
				t.Errorf("%v, code %s: %v; fix %q", e.Kind, e.Code, err, e.Fix)
			}
			if strings.HasPrefix(e.Code, "AADSTS") && (!strings.Contains(e.Message, "Trace ID: ") || !strings.Contains(e.Message, "Correlation ID: ")) {
				t.Errorf("error %v does not say by which IDs it is found", err)
			}
			noCanary(t, err)
		})
	}
}

// TestDoubleThrottles: what passes is waited for, what does not is passed on.
func TestDoubleThrottles(t *testing.T) {
	t.Parallel()
	d := startDouble(t)
	d.apply(t, map[string]any{"faults": []any{
		map[string]any{"service": "entra", "operation": "token", "kind": "throttle", "retryAfter": 1, "count": 1},
		map[string]any{"service": "entra", "operation": "token", "kind": "throttle", "retryAfter": 60, "count": 1, "after": 1},
	}})
	m := New(d.cfg)
	acquire(t, m, d.use(WorkloadIdentity, nil))
	use := d.use(ServicePrincipal, nil)
	_, err := m.Acquire(t.Context(), use)
	if e := failure(t, err); e.Kind != Throttled || e.RetryAfter != time.Minute {
		t.Errorf("error %v, again after %v", err, e.RetryAfter)
	}
	acquire(t, m, use)
}
