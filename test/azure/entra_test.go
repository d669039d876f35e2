package azure_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/azure"
	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/token"
)

// ask asks a credential for a token for vaults.
func ask(t *testing.T, credential azcore.TokenCredential) (azcore.AccessToken, error) {
	t.Helper()
	return credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{scope}})
}

// wantRefused checks an error of a login.
func wantRefused(t *testing.T, err error, status int, parts ...string) {
	t.Helper()
	var failed *azidentity.AuthenticationFailedError
	if !errors.As(err, &failed) || failed.RawResponse == nil {
		t.Fatalf("error %v, want a refusal", err)
	}
	if failed.RawResponse.StatusCode != status {
		t.Errorf("status %d, want %d", failed.RawResponse.StatusCode, status)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %v\nhas no %q", err, part)
		}
	}
}

func TestLoginReadsASecret(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret("db", "hunter2")}})
	got, err := d.secretsOf(t, vaultURL, d.login(t, assertion(t, nil))).GetSecret(t.Context(), "db", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if *got.Value != "hunter2" {
		t.Errorf("value %q", *got.Value)
	}
	want := []string{"secrets get db Unauthorized", "entra openid-configuration", "entra token", "secrets get db"}
	if diff := cmp.Diff(want, d.answered(t)); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestTokenLifetime(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{TokenLifetime: ptr(control.Duration(10 * time.Minute))})
	got, err := ask(t, d.login(t, assertion(t, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(got.ExpiresOn); left > 10*time.Minute || left < 5*time.Minute {
		t.Errorf("it lasts %s", left)
	}
}

func TestAssertions(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	other, err := token.NewSigner("one")
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := token.NewSigner("two")
	if err != nil {
		t.Fatal(err)
	}
	body := claims{Issuer: issuer, Subject: subject, Audience: []string{audience}, Expiry: time.Now().Add(time.Hour).Unix()}
	forged, _ := other.Sign(body)
	strange, _ := unknown.Sign(body)
	for name, test := range map[string]struct {
		token  string
		status int
		want   []string
	}{
		"issuer": {
			assertion(t, func(c *claims) { c.Issuer = "https://oidc.example.com/id/1" }), 401,
			[]string{"AADSTS700211", "presented assertion issuer 'https://oidc.example.com/id/1'", `"error": "invalid_client"`, "700211", "Trace ID: "},
		},
		"subject":         {assertion(t, func(c *claims) { c.Subject = "system:serviceaccount:shop:api" }), 401, []string{"AADSTS700213", "assertion subject 'system:serviceaccount:shop:api'"}},
		"subject's case":  {assertion(t, func(c *claims) { c.Subject = "system:serviceaccount:Shop:web" }), 401, []string{"AADSTS7002138"}},
		"audience":        {assertion(t, func(c *claims) { c.Audience = []string{"sts.amazonaws.com"} }), 401, []string{"AADSTS700212", "audience 'sts.amazonaws.com'"}},
		"expired":         {assertion(t, func(c *claims) { c.Expiry = time.Now().Add(-time.Second).Unix() }), 401, []string{"AADSTS700024", "not within its valid time range"}},
		"before its time": {assertion(t, func(c *claims) { c.NotBefore = time.Now().Add(time.Hour).Unix() }), 401, []string{"AADSTS700024"}},
		"forged":          {forged, 401, []string{"AADSTS700027", "invalid signature"}},
		"unknown key":     {strange, 401, []string{"AADSTS700027", "key was not found"}},
		"no token":        {"nonsense", 400, []string{"AADSTS50027"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ask(t, d.login(t, test.token))
			wantRefused(t, err, test.status, test.want...)
		})
	}
}

func TestIssuerThatCannotBeRead(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	const absent = "http://127.0.0.1:1/"
	d.apply(t, control.Document{
		Issuers: []control.Issuer{{URL: absent}},
		Applications: []control.Application{{Tenant: tenant, ClientID: client, FederatedCredentials: []control.FederatedCredential{
			{Issuer: absent, Subject: subject}, {Issuer: "https://nobody", Subject: subject},
		}}},
	})
	for _, url := range []string{absent, "https://nobody"} {
		_, err := ask(t, d.login(t, assertion(t, func(c *claims) { c.Issuer = url })))
		wantRefused(t, err, http.StatusBadRequest, "AADSTS50166")
	}
}

func TestApplications(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	const bare, absent = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"
	d.apply(t, control.Document{Applications: []control.Application{
		{Tenant: tenant, ClientID: bare},
		{Tenant: tenant, ClientID: absent, NoServicePrincipal: true, FederatedCredentials: []control.FederatedCredential{{Issuer: issuer, Subject: subject, Audience: "x"}}},
	}})
	for name, test := range map[string]struct {
		tenant, client string
		audience       string
		status         int
		want           []string
	}{
		"unknown":                   {tenant, "aaaaaaaa-0000-4000-8000-000000000003", audience, 400, []string{"AADSTS700016", "was not found in the directory", `"unauthorized_client"`}},
		"no credential":             {tenant, bare, audience, 401, []string{"AADSTS70025"}},
		"own audience":              {tenant, absent, "x", 401, []string{"AADSTS7000229", "missing service principal"}},
		"own audience, not default": {tenant, absent, audience, 401, []string{"AADSTS700212"}},
		"unknown tenant":            {"aaaaaaaa-0000-4000-8000-000000000004", client, audience, 400, []string{"AADSTS90002", "not found"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := assertion(t, func(c *claims) { c.Audience = []string{test.audience} })
			_, err := ask(t, d.loginAt(t, cloud.AzurePublic, test.tenant, test.client, raw))
			wantRefused(t, err, test.status, test.want...)
		})
	}
	if err := d.DeleteApplication(t.Context(), tenant, client); err != nil {
		t.Fatal(err)
	}
	_, err := ask(t, d.login(t, assertion(t, nil)))
	wantRefused(t, err, http.StatusBadRequest, "AADSTS700016")
	if err := d.DeleteApplication(t.Context(), tenant, client); err == nil {
		t.Error("it could be deleted twice")
	}
}

func TestClientSecrets(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{Applications: []control.Application{{Tenant: tenant, ClientID: client, Secrets: []control.ClientSecret{
		{Value: "s3cret"}, {Value: "old", Expires: time.Now().Add(-time.Hour)}, {Value: "young", Expires: time.Now().Add(time.Hour)},
	}}}})
	login := func(secret string) error {
		credential, err := azidentity.NewClientSecretCredential(tenant, client, secret,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: d.options(), DisableInstanceDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = ask(t, credential)
		return err
	}
	for _, good := range []string{"s3cret", "young"} {
		if err := login(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	wantRefused(t, login("wrong"), http.StatusUnauthorized, "AADSTS7000215", "Invalid client secret provided")
	wantRefused(t, login("old"), http.StatusUnauthorized, "AADSTS7000222", "are expired")
}

func TestScopes(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{Vaults: []control.Vault{{Name: "own", Suffix: "vault.local.azurestack.external", Tenant: tenant}}})
	for scope, want := range map[string]string{
		"https://vault.azure.net/.default":                 "",
		"https://vault.usgovcloudapi.net/.default":         "",
		"https://vault.local.azurestack.external/.default": "",
		"https://management.azure.com/.default":            "AADSTS500011",
		"https://vault.azure.net/user_impersonation":       "AADSTS1002012",
		"https://vault.azure.net/.default x/.default":      "AADSTS70011",
	} {
		t.Run(scope, func(t *testing.T) {
			t.Parallel()
			_, err := d.login(t, assertion(t, nil)).GetToken(t.Context(), policy.TokenRequestOptions{Scopes: strings.Fields(scope)})
			if want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantRefused(t, err, http.StatusBadRequest, want)
		})
	}
}

func TestClouds(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, azure.Config{})
	const government, stack = "aaaaaaaa-0000-4000-8000-000000000005", "aaaaaaaa-0000-4000-8000-000000000006"
	trusted := []control.FederatedCredential{{Issuer: issuer, Subject: subject}}
	d.apply(t, control.Document{
		Tenants: []control.Tenant{
			{ID: government, Authority: "login.microsoftonline.us", Domains: []string{"agency.onmicrosoft.us"}},
			{ID: stack, Authority: "login.stack.example"},
			{ID: "adfs", Authority: "adfs.stack.example"},
		},
		Applications: []control.Application{
			{Tenant: government, ClientID: client, FederatedCredentials: trusted},
			{Tenant: stack, ClientID: client, FederatedCredentials: trusted},
			{Tenant: "adfs", ClientID: client, FederatedCredentials: trusted},
		},
	})
	own := func(host string) cloud.Configuration {
		return cloud.Configuration{ActiveDirectoryAuthorityHost: "https://" + host + "/"}
	}
	for name, test := range map[string]struct {
		cloud  cloud.Configuration
		tenant string
	}{
		"government": {cloud.AzureGovernment, government},
		"domain":     {cloud.AzureGovernment, "agency.onmicrosoft.us"},
		"stack":      {own("login.stack.example"), stack},
		"ADFS":       {own("adfs.stack.example"), "adfs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := ask(t, d.loginAt(t, test.cloud, test.tenant, client, assertion(t, nil))); err != nil {
				t.Error(err)
			}
		})
	}
	_, err := ask(t, d.loginAt(t, cloud.AzurePublic, government, client, assertion(t, nil)))
	wantRefused(t, err, http.StatusBadRequest, "AADSTS90002")
}

// A client that knows no metadata asks for it.
func TestInstanceDiscovery(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	get := func(endpoint string) (int, string) {
		return d.get(t, "https://login.microsoftonline.com/common/discovery/instance?api-version=1.1&authorization_endpoint="+url.QueryEscape(endpoint))
	}
	if status, body := get("https://login.microsoftonline.us/" + tenant + "/oauth2/v2.0/authorize"); status != http.StatusOK ||
		!strings.Contains(body, "https://login.microsoftonline.us/"+tenant+"/v2.0/.well-known/openid-configuration") || !strings.Contains(body, "login.usgovcloudapi.net") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := get("https://login.evil.example/x/oauth2/v2.0/authorize"); status != http.StatusBadRequest || !strings.Contains(body, "AADSTS50049") {
		t.Errorf("%d %s", status, body)
	}
}

// Access tokens can be verified with the keys that Entra publishes.
func TestPublishedKeys(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	_, keySet := d.get(t, "https://login.microsoftonline.com/"+tenant+"/discovery/v2.0/keys")
	v := token.NewVerifier(time.Now)
	t.Cleanup(v.Close)
	if err := v.Put(token.Issuer{URL: "https://sts.windows.net/" + tenant + "/", JWKS: []byte(keySet)}); err != nil {
		t.Fatal(err)
	}
	got, err := ask(t, d.login(t, assertion(t, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), got.Token, []string{"https://vault.azure.net"}); err != nil {
		t.Error(err)
	}
}

func TestMalformedLogins(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, azure.Config{})
	const at = "https://login.microsoftonline.com/" + tenant + "/oauth2/v2.0/token"
	form := func(change func(url.Values)) string {
		f := url.Values{
			"grant_type": {"client_credentials"}, "client_id": {client}, "scope": {scope},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion(t, nil)},
		}
		change(f)
		return f.Encode()
	}
	typed := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	for name, test := range map[string]struct {
		method, url, body string
		header            http.Header
		status            int
		answer, problem   string
	}{
		"no form":         {http.MethodPost, at, "{}", http.Header{"Content-Type": {"application/json"}}, 400, "AADSTS900144", "the body is no form"},
		"no client":       {http.MethodPost, at, form(func(f url.Values) { f.Del("client_id") }), typed, 400, "'client_id'", "the form has no client_id"},
		"no scope":        {http.MethodPost, at, form(func(f url.Values) { f.Del("scope") }), typed, 400, "'scope'", "the form has no scope"},
		"two clients":     {http.MethodPost, at, form(func(f url.Values) { f.Add("client_id", "x") }), typed, 200, "access_token", "client_id more than once"},
		"two credentials": {http.MethodPost, at, form(func(f url.Values) { f.Set("client_secret", "x") }), typed, 200, "access_token", "two credentials"},
		"no credential":   {http.MethodPost, at, form(func(f url.Values) { f.Del("client_assertion") }), typed, 401, "AADSTS7000218", ""},
		"other grant":     {http.MethodPost, at, form(func(f url.Values) { f.Set("grant_type", "password") }), typed, 400, "AADSTS70003", ""},
		"assertion type":  {http.MethodPost, at, form(func(f url.Values) { f.Del("client_assertion_type") }), typed, 400, "client_assertion_type", ""},
		"query":           {http.MethodPost, at + "?a=b", form(func(url.Values) {}), typed, 200, "access_token", "with a query"},
		"bearer": {
			http.MethodPost, at, form(func(url.Values) {}),
			http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Authorization": {"Bearer x"}},
			200, "access_token", "an access token was sent to Entra",
		},
		"GET":         {http.MethodGet, at, "", nil, 404, "", "no such request: GET"},
		"other path":  {http.MethodGet, "https://login.microsoftonline.com/x", "", nil, 404, "", "no such request: GET /x"},
		"other ADFS":  {http.MethodGet, "https://login.microsoftonline.com/adfs/x", "", nil, 404, "", "no such request: GET /adfs/x"},
		"discovery":   {http.MethodGet, "https://login.microsoftonline.com/common/discovery/instance", "", nil, 400, "AADSTS900144", "instance discovery needs"},
		"other cloud": {http.MethodPost, strings.Replace(at, ".com", ".us", 1), form(func(url.Values) {}), typed, 400, "AADSTS90002", "were sent to login.microsoftonline.us"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := d.ResetViolations(t.Context()); err != nil {
				t.Fatal(err)
			}
			status, answer := d.send(t, test.method, test.url, test.body, test.header)
			if status != test.status || !strings.Contains(answer, test.answer) {
				t.Errorf("%d %s\nwant %d with %q", status, answer, test.status, test.answer)
			}
			d.wantViolation(t, test.problem)
		})
	}
}
