package azure_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/test/azure"
	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tenant   = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	client   = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
	issuer   = "https://oidc.example.com/id/1/"
	subject  = "system:serviceaccount:shop:web"
	audience = "api://AzureADTokenExchange"
	vaultURL = "https://shop.vault.azure.net/"
	scope    = "https://vault.azure.net/.default"
)

// signer is the issuer's. All share it: making one takes long.
var signer = sync.OnceValues(func() (*token.Signer, error) { return token.NewSigner("one") })

// double is a running double, and a client of its control API.
type double struct {
	*control.Client

	server *azure.Server
	http   *http.Client
}

// start starts a double with an application that may do everything in the vault
// shop. At the end no request and no answer may have broken Azure's protocols.
func start(t *testing.T, cfg azure.Config) *double {
	t.Helper()
	d := startUnchecked(t, cfg)
	t.Cleanup(func() {
		violations, err := d.Violations(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Error(err)
		}
		for _, v := range violations {
			t.Errorf("violation: %+v", v)
		}
	})
	return d
}

func startUnchecked(t *testing.T, cfg azure.Config) *double {
	t.Helper()
	server, err := azure.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := &double{Client: server.Control(), server: server, http: &http.Client{Transport: through(t, server)}}
	t.Cleanup(func() {
		d.http.CloseIdleConnections()
		d.Close()
		server.Close()
	})
	d.apply(t, control.Document{
		Issuers:      []control.Issuer{{URL: issuer, JWKS: keys(t).JWKS()}},
		Applications: []control.Application{{Tenant: tenant, ClientID: client, FederatedCredentials: []control.FederatedCredential{{Issuer: issuer, Subject: subject}}}},
		Vaults:       []control.Vault{{Name: "shop", Tenant: tenant, Grants: []control.Grant{{ClientID: client, Operations: []string{"*"}}}}},
	})
	return d
}

func keys(t *testing.T) *token.Signer {
	t.Helper()
	s, err := signer()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// through connects by the proxy, as HTTPS_PROXY and SSL_CERT_FILE have a program do.
func through(t *testing.T, server *azure.Server) *http.Transport {
	t.Helper()
	proxy, err := url.Parse(server.Addresses.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(server.CA())) {
		t.Fatal("no certificate of the authority")
	}
	https := func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme == "http" || r.URL.Hostname() == "127.0.0.1" {
			return nil, nil //nolint:nilnil // no proxy, as net/http wants it said
		}
		return proxy, nil
	}
	return &http.Transport{Proxy: https, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
}

func (d *double) apply(t *testing.T, document control.Document) control.Applied {
	t.Helper()
	applied, err := d.Apply(t.Context(), document)
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

// grants gives the vault shop others.
func (d *double) grants(t *testing.T, grants ...control.Grant) {
	t.Helper()
	d.apply(t, control.Document{Vaults: []control.Vault{{Name: "shop", Tenant: tenant, Grants: grants}}})
}

// claims are what a token says; a test changes some.
type claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  []string `json:"aud"`
	Expiry    int64    `json:"exp"`
	NotBefore int64    `json:"nbf"`
}

// assertion is a pod's token, but for what change changes.
func assertion(t *testing.T, change func(*claims)) string {
	t.Helper()
	c := claims{Issuer: issuer, Subject: subject, Audience: []string{audience}, Expiry: time.Now().Add(time.Hour).Unix(), NotBefore: time.Now().Add(-time.Minute).Unix()}
	if change != nil {
		change(&c)
	}
	raw, err := keys(t).Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// options are the SDK's: through the proxy, with one attempt.
func (d *double) options() azcore.ClientOptions {
	return azcore.ClientOptions{Transport: d.http, Retry: policy.RetryOptions{MaxRetries: -1}}
}

// login logs in with an assertion.
func (d *double) login(t *testing.T, raw string) azcore.TokenCredential {
	t.Helper()
	return d.loginAt(t, cloud.AzurePublic, tenant, client, raw)
}

func (d *double) loginAt(t *testing.T, at cloud.Configuration, tenantID, clientID, raw string) azcore.TokenCredential {
	t.Helper()
	options := d.options()
	options.Cloud = at
	credential, err := azidentity.NewClientAssertionCredential(tenantID, clientID,
		func(context.Context) (string, error) { return raw, nil },
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	return credential
}

// bearer is a credential that has a token.
type bearer string

func (b bearer) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(b), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// given is a token of the application without a login.
func (d *double) given(t *testing.T, change func(*control.TokenRequest)) bearer {
	t.Helper()
	request := control.TokenRequest{Tenant: tenant, ClientID: client, Resource: "https://vault.azure.net", Lifetime: control.Duration(time.Hour)}
	if change != nil {
		change(&request)
	}
	answer, err := d.AccessToken(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return bearer(answer.AccessToken)
}

func (d *double) secrets(t *testing.T) *azsecrets.Client {
	t.Helper()
	return d.secretsOf(t, vaultURL, d.given(t, nil))
}

func (d *double) secretsOf(t *testing.T, vault string, credential azcore.TokenCredential) *azsecrets.Client {
	t.Helper()
	c, err := azsecrets.NewClient(vault, credential, &azsecrets.ClientOptions{ClientOptions: d.options()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (d *double) keys(t *testing.T) *azkeys.Client {
	t.Helper()
	c, err := azkeys.NewClient(vaultURL, d.given(t, nil), &azkeys.ClientOptions{ClientOptions: d.options()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (d *double) certificates(t *testing.T) *azcertificates.Client {
	t.Helper()
	c, err := azcertificates.NewClient(vaultURL, d.given(t, nil), &azcertificates.ClientOptions{ClientOptions: d.options()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantError checks an error of Key Vault, and that its text has the parts.
func wantError(t *testing.T, err error, status int, code string, parts ...string) {
	t.Helper()
	var e *azcore.ResponseError
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want %d %s", err, status, code)
	}
	if e.StatusCode != status || e.ErrorCode != code {
		t.Errorf("error %d %s, want %d %s", e.StatusCode, e.ErrorCode, status, code)
	}
	for _, part := range parts {
		if !strings.Contains(e.Error(), part) {
			t.Errorf("error %v\nhas no %q", e, part)
		}
	}
}

// version says which version an entry of a document is for.
func version(name, id string) control.Version {
	return control.Version{Vault: "shop", Name: name, Version: id}
}

func secret(name, value string) control.Secret {
	return control.Secret{Version: version(name, ""), Value: &value}
}

func (d *double) get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	return d.send(t, http.MethodGet, url, "", nil)
}

func (d *double) send(t *testing.T, method, url, body string, header http.Header) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := d.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	contents, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(contents)
}

// wantViolation checks that there is one with a text, or none.
func (d *double) wantViolation(t *testing.T, problem string) {
	t.Helper()
	violations, err := d.Violations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		if problem != "" && strings.Contains(v.Problem, problem) {
			return
		}
	}
	if problem != "" || len(violations) != 0 {
		t.Errorf("violations %+v, want one with %q", violations, problem)
	}
}

// answered are the requests that were answered to a client, as
// "service operation object code".
func (d *double) answered(t *testing.T) []string {
	t.Helper()
	requests, err := d.Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range requests {
		all = append(all, strings.Join(slices.DeleteFunc([]string{r.Service, r.Operation, r.Object, r.Code}, func(s string) bool { return s == "" }), " "))
	}
	return all
}

func ptr[T any](v T) *T { return &v }
