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
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/providertest"
)

// doubleEnv names the test double of Google Cloud, test/cmd/postern-gcp. It verifies
// tokens as Google does, and has its codes and texts.
const doubleEnv = "POSTERN_TEST_GCP"

// double is the double with a GKE cluster, a pool of one's own and service accounts.
type double struct {
	Proxy    string `json:"proxy"`
	Control  string `json:"control"`
	Metadata string `json:"metadata"`
	CAFile   string `json:"caFile"`

	server *providertest.Server
	issuer *providertest.Issuer
	cfg    Config
	key    sdk.SecretString // of googleSA
}

// startDouble runs one for the time of a test.
func startDouble(t *testing.T) *double {
	t.Helper()
	binary := os.Getenv(doubleEnv)
	if binary == "" {
		t.Fatalf("%s is not set: run the tests with make unit/providers/gcp, or build it by hand: "+
			"cd test && go build -o /tmp/postern-gcp ./cmd/postern-gcp", doubleEnv)
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
			t.Errorf("requests that Google would not take: %v, error %v", found.Violations, err)
		}
		d.server.Stop()
	})
	d.configure(t)
	d.populate(t)
	return d
}

// configure makes Google's names lead to the double.
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
	d.cfg = Config{Logger: slog.New(slog.DiscardHandler), HTTPClient: &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyURL(proxy), DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}}
}

const (
	firstSA  = "first@shop-1.iam.gserviceaccount.com"
	closedSA = "closed@shop-1.iam.gserviceaccount.com"
	goneSA   = "gone@shop-1.iam.gserviceaccount.com"
	unkeyed  = "unkeyed@shop-1.iam.gserviceaccount.com"
)

// populate puts in what the tests log in to.
func (d *double) populate(t *testing.T) {
	t.Helper()
	principal := "principal:" + wifPool + "/subject/system:serviceaccount:shop:cart"
	provider := func(id string, more map[string]any) map[string]any {
		one := map[string]any{"id": id, "issuer": d.issuer.URL}
		for name, value := range more {
			one[name] = value
		}
		return one
	}
	binding := func(email, role, member string) map[string]any {
		return map[string]any{"resource": "projects/-/serviceAccounts/" + email, "role": role, "members": []string{member}}
	}
	answer := d.apply(t, map[string]any{
		"issuers":  []any{map[string]any{"url": d.issuer.URL, "jwks": d.issuer.JWKS()}},
		"projects": []any{map[string]any{"id": "shop-1", "number": "123"}},
		"serviceAccounts": []any{
			map[string]any{"email": googleSA, "keys": []string{"one"}},
			map[string]any{"email": firstSA},
			map[string]any{"email": closedSA},
			map[string]any{"email": unkeyed, "keys": []string{"one"}},
		},
		"pools": []any{
			map[string]any{"project": "shop-1", "id": gkePool, "providers": []any{provider(cluster, nil)}},
			map[string]any{"project": "shop-1", "id": "corp", "providers": []any{
				provider("k8s", nil), provider("off", map[string]any{"disabled": true}),
				provider("vault", map[string]any{"audiences": []string{"vault"}}),
				provider("picky", map[string]any{"subjects": []string{"system:serviceaccount:bank:teller"}}),
				map[string]any{"id": "stranger", "issuer": "https://other.test"},
			}},
		},
		"metadata": map[string]any{"project": "shop-1", "clusterName": "prod", "clusterLocation": "europe-west1", "serviceAccount": firstSA},
		"bindings": []any{
			map[string]any{
				"resource": "projects/-/serviceAccounts/" + googleSA, "role": roleWorkloadIdentity,
				"members": []string{principal, "serviceAccount:" + gkePool + "[shop/cart]"},
			},
			binding(firstSA, roleTokenCreator, principal),
			binding(closedSA, roleTokenCreator, "serviceAccount:"+firstSA),
		},
	})
	d.key = sdk.NewSecretString(marshalled(answer.ServiceAccounts[0].Keys[0]))
}

type applied struct {
	ServiceAccounts []struct{ Keys []map[string]any }
}

func (d *double) apply(t *testing.T, document map[string]any) (answer applied) {
	t.Helper()
	if err := d.server.Call(http.MethodPost, d.Control+"/apply", document, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// requests are what a double got since the last time.
func (d *double) requests(t *testing.T) []string {
	t.Helper()
	var got struct {
		Requests []struct{ Service, Operation, Code string }
	}
	if err := d.server.Call(http.MethodGet, d.Control+"/requests", nil, &got); err != nil {
		t.Fatal(err)
	}
	if err := d.server.Call(http.MethodDelete, d.Control+"/calls", nil, nil); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, one := range got.Requests {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s/%s %s", one.Service, one.Operation, one.Code)))
	}
	return all
}

// token is one that the issuer has signed.
func (d *double) token(audience string, changed map[string]any) sdk.SecretString {
	pod := sdk.Pod{Name: "pod-a", Namespace: "shop", UID: "uid-1"}
	pod.ServiceAccount.Name = "cart"
	return d.issuer.Token(pod, audience, changed).Token
}

// use is a pod of a cluster of one's own, in a provider of the pool; with "", of GKE.
func (d *double) use(provider string, changed map[string]any) Use {
	u := of(WorkloadIdentity, "a")
	if provider == "" {
		u.Token = d.token(gkePool, changed)
		return u
	}
	audience := wifPool + "/providers/" + provider
	u.Federation = Federation{Audience: audience, TokenAudiences: []string{audience}, TokenURL: STSTokenURL}
	u.Token = d.token(audience, changed)
	return u
}

func as(u Use, account string, delegates ...string) Use {
	u.ServiceAccount, u.Delegates = account, delegates
	return u
}

// TestDouble: each kind of identity against a double that checks what it gets, and
// the requests that a login takes.
func TestDouble(t *testing.T) {
	t.Parallel()
	d := startDouble(t)
	m := New(d.cfg)
	withKey := of(ServiceAccountKey, "a")
	withKey.Key = d.key
	inHTTPS := d.use("k8s", nil)
	inHTTPS.Token, inHTTPS.Subject.ServiceAccount = d.token("https:"+wif().Audience, nil), "in-https"
	custom := d.use("vault", nil)
	custom.Token = d.token("vault", nil)
	const gkeToken, stsToken, generated = "securetoken/token", "sts/token", "iamcredentials/generate-access-token"
	for name, test := range map[string]struct {
		use  Use
		want []string
	}{
		"GKE":                                {d.use("", nil), []string{gkeToken}},
		"GKE, with a service account":        {as(d.use("", nil), googleSA), []string{gkeToken, generated}},
		"federation":                         {d.use("k8s", nil), []string{stsToken}},
		"federation, with https":             {inHTTPS, []string{stsToken}},
		"federation, own audience":           {custom, []string{stsToken}},
		"federation, with a service account": {as(d.use("k8s", nil), googleSA), []string{stsToken, generated}},
		"delegates":                          {as(d.use("k8s", nil), closedSA, firstSA), []string{stsToken, generated}},
		"key":                                {withKey, []string{"oauth2/token"}},
	} {
		d.requests(t)
		got := acquire(t, m, test.use)
		if got.Cached() || time.Until(got.Expires()) < 30*time.Minute {
			t.Errorf("%s: cached %v, until %v", name, got.Cached(), got.Expires())
		}
		if again := acquire(t, m, test.use); !again.Cached() || again.Key() != got.Key() {
			t.Errorf("%s: the token is not kept", name)
		}
		if diff := cmp.Diff(test.want, d.requests(t)); diff != "" {
			t.Errorf("%s: requests (-want +got):\n%s", name, diff)
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
	forged := d.use("k8s", nil)
	pod := sdk.Pod{Name: "pod-a", Namespace: "shop"}
	pod.ServiceAccount.Name = "cart"
	forged.Token = other.Token(pod, wif().Audience, nil).Token
	noPool := d.use("k8s", nil)
	noPool.Federation.Audience = strings.Replace(noPool.Federation.Audience, "/corp/", "/none/", 1)
	otherCluster := d.use("", nil)
	otherCluster.Federation.Audience += "-2"
	otherPool := d.use("", nil)
	otherPool.Federation.Audience = "identitynamespace:other.svc.id.goog:" + cluster
	wrongKey := of(ServiceAccountKey, "a")
	wrongKey.Key = keyJSON(nil)
	noAccount := of(ServiceAccountKey, "a")
	noAccount.Key = keyJSON(map[string]any{"client_email": goneSA})
	past := map[string]any{"iat": time.Now().Add(-2 * time.Hour).Unix(), "nbf": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(-time.Hour).Unix()}
	for name, test := range map[string]struct {
		use  Use
		want ErrorKind
		code string
		fix  string
	}{
		"audience":         {d.use("k8s", map[string]any{"aud": []string{"vault"}}), Denied, "invalid_grant", "issuer https://oidc.test, subject system:serviceaccount:shop:cart, audience vault"},
		"audience of GKE":  {d.use("", map[string]any{"aud": []string{"vault"}}), Denied, "invalid_grant", "audience vault"},
		"other audience":   {d.use("vault", nil), Denied, "invalid_grant", "audience " + wifPool + "/providers/vault"},
		"issuer":           {d.use("stranger", nil), Denied, "invalid_grant", "issuer https://oidc.test"},
		"issuer's claim":   {d.use("k8s", map[string]any{"iss": "https://evil.test"}), Denied, "invalid_grant", "issuer https://evil.test"},
		"signature":        {forged, Denied, "invalid_grant", "signed with the keys"},
		"expired":          {d.use("k8s", past), TokenExpired, "invalid_grant", "kubelet"},
		"expired in GKE":   {d.use("", past), TokenExpired, "invalid_grant", "kubelet"},
		"condition":        {d.use("picky", nil), Denied, "unauthorized_client", "attribute condition"},
		"disabled":         {d.use("off", nil), Denied, "invalid_target", "are not disabled"},
		"provider":         {d.use("none", nil), Denied, "invalid_target", "/providers/none"},
		"pool":             {noPool, Denied, "invalid_target", "workloadIdentityPools/none"},
		"cluster of GKE":   {otherCluster, Denied, "invalid_target", cluster + "-2 is its project, location and name"},
		"pool of GKE":      {otherPool, Denied, "invalid_target", "with pool other.svc.id.goog"},
		"no role":          {as(d.use("k8s", nil), closedSA), Denied, "PERMISSION_DENIED", "grant principal:" + wifPool + "/subject/system:serviceaccount:shop:cart the role roles/iam.workloadIdentityUser"},
		"no role in GKE":   {as(d.use("", nil), closedSA), Denied, "PERMISSION_DENIED", "grant serviceAccount:" + gkePool + "[shop/cart] the role roles/iam.workloadIdentityUser"},
		"no role on a way": {as(d.use("", nil), closedSA, firstSA), Denied, "PERMISSION_DENIED", "roles/iam.serviceAccountTokenCreator to each: serviceAccount:" + gkePool + "[shop/cart] on " + firstSA},
		"no such account":  {as(d.use("k8s", nil), goneSA), Denied, "", goneSA},
		"another's key":    {wrongKey, Denied, "invalid_grant", "make a new one"},
		"key of nobody":    {noAccount, Denied, "invalid_grant", "does not exist any more"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(d.cfg).Acquire(t.Context(), test.use)
			e := failure(t, err)
			t.Logf("%v. %s", e, e.Fix)
			if e.Kind != test.want || test.code != "" && e.Code != test.code || !strings.Contains(e.Fix, test.fix) {
				t.Errorf("%v, code %s: %v; fix %q", e.Kind, e.Code, err, e.Fix)
			}
			noCanary(t, err)
		})
	}
}

// TestDoubleThrottles: what passes is waited for, what does not is passed on.
func TestDoubleThrottles(t *testing.T) {
	t.Parallel()
	d := startDouble(t)
	throttle := func(service string, seconds, after int) map[string]any {
		return map[string]any{"service": service, "kind": "throttle", "retryAfter": seconds, "count": 1, "after": after}
	}
	d.apply(t, map[string]any{"faults": []any{throttle("sts", 1, 0), throttle("iamcredentials", 60, 0)}})
	m := New(d.cfg)
	use := as(d.use("k8s", nil), googleSA)
	_, err := m.Acquire(t.Context(), use)
	if e := failure(t, err); e.Kind != Throttled || e.RetryAfter != time.Minute || e.Operation != OperationGenerateAccessToken {
		t.Errorf("error %v, again after %v", err, e.RetryAfter)
	}
	acquire(t, m, use)
}

// TestDoubleOfNode: a cluster is found by the metadata server, and the provider's
// own identity is had there.
func TestDoubleOfNode(t *testing.T) {
	d := startDouble(t)
	f, err := FindFederation(t.Context(), FederationConfig{MetadataHost: d.Metadata})
	if diff := cmp.Diff(gke(), f); diff != "" || err != nil {
		t.Errorf("error %v, federation (-want +got):\n%s", err, diff)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GCE_METADATA_HOST", d.Metadata)
	got := acquire(t, New(d.cfg), of(Provider, "a"))
	if got.Cached() || time.Until(got.Expires()) < 30*time.Minute {
		t.Errorf("cached %v, until %v", got.Cached(), got.Expires())
	}
}
