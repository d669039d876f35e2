package azure_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/azure"
	"github.com/postern-dev/postern/test/azure/control"
)

const (
	first  = "00000000000000000000000000000001"
	second = "00000000000000000000000000000002"
	third  = "00000000000000000000000000000003"
)

func TestSecretVersions(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	version := func(id, value string, created time.Time) control.Secret {
		s := secret("Db-Password", value)
		s.Version.Version, s.Created = id, created
		return s
	}
	middle := version(second, "two", at.Add(time.Hour))
	middle.ContentType, middle.Tags = ptr("text/plain"), map[string]string{"owner": "shop"}
	middle.NotBefore, middle.Expires = at.AddDate(9, 0, 0), at.AddDate(-9, 0, 0)
	applied := d.apply(t, control.Document{Secrets: []control.Secret{version(third, "three", at.Add(2*time.Hour)), version(first, "one", at), middle}})
	want := control.AppliedObject{Vault: "shop.vault.azure.net", Name: "Db-Password", Version: third, ID: vaultURL + "secrets/Db-Password/" + third}
	if diff := cmp.Diff(want, applied.Secrets[0]); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
	c := d.secrets(t)
	for id, want := range map[string]string{"": "three", first: "one", second: "two", third: "three"} {
		got, err := c.GetSecret(t.Context(), "db-password", id, nil)
		if err != nil {
			t.Fatal(err)
		}
		if *got.Value != want || got.ID.Name() != "Db-Password" || (id != "" && got.ID.Version() != id) {
			t.Errorf("version %q: %s of %s", id, *got.Value, *got.ID)
		}
		if id == second && (*got.ContentType != "text/plain" || *got.Tags["owner"] != "shop" || !got.Attributes.Created.Equal(at.Add(time.Hour)) ||
			!got.Attributes.Expires.Equal(at.AddDate(-9, 0, 0)) || !got.Attributes.NotBefore.Equal(at.AddDate(9, 0, 0))) {
			t.Errorf("version %s: %+v %+v", id, got, got.Attributes)
		}
		if id == first && (got.ContentType != nil || got.Tags != nil || got.Managed != nil || got.KID != nil) {
			t.Errorf("version %s: %+v", id, got)
		}
	}
}

func TestSecretsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	hidden, disabled, partly := secret("deleted", "x"), secret("disabled", "x"), secret("partly", "x")
	hidden.Deleted, disabled.Enabled = ptr(true), ptr(false)
	partly.Version.Version, partly.Created = first, time.Now().Add(-time.Hour)
	newest := secret("partly", "y")
	newest.Enabled = ptr(false)
	d.apply(t, control.Document{Secrets: []control.Secret{hidden, disabled, partly, newest}})
	c := d.secrets(t)
	get := func(name, version string) error {
		_, err := c.GetSecret(t.Context(), name, version, nil)
		return err
	}
	wantError(t, get("absent", ""), http.StatusNotFound, "SecretNotFound", "A secret with (name/id) absent was not found in this key vault")
	wantError(t, get("partly", second), http.StatusNotFound, "SecretNotFound", "partly/"+second)
	wantError(t, get("deleted", ""), http.StatusNotFound, "SecretNotFound", "recover it")
	wantError(t, get("disabled", ""), http.StatusForbidden, "Forbidden", "Operation get is not allowed on a disabled secret.", `"SecretDisabled"`)
	wantError(t, get("partly", ""), http.StatusForbidden, "Forbidden", `"SecretDisabled"`)
	if err := get("partly", first); err != nil {
		t.Errorf("the version before: %v", err)
	}
	// What is recovered or enabled can be read again.
	hidden.Value, disabled.Value = nil, nil
	hidden.Deleted, disabled.Enabled = ptr(false), ptr(true)
	d.apply(t, control.Document{Secrets: []control.Secret{hidden, disabled}})
	for _, name := range []string{"deleted", "disabled"} {
		if err := get(name, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Delete(t.Context(), control.Secrets, "shop", "DISABLED"); err != nil {
		t.Fatal(err)
	}
	wantError(t, get("disabled", ""), http.StatusNotFound, "SecretNotFound")
	if err := d.Delete(t.Context(), control.Secrets, "shop", "disabled"); err == nil {
		t.Error("it could be deleted twice")
	}
}

func TestListSecrets(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	var all []control.Secret
	var want []string
	for i := range 60 {
		s := secret(fmt.Sprintf("Secret-%02d", i), "x")
		s.Tags = map[string]string{"i": fmt.Sprint(i)}
		if i == 7 {
			s.Enabled = ptr(false)
		}
		if i == 8 {
			s.Deleted = ptr(true)
		} else {
			want = append(want, s.Name)
		}
		all = append(all, s)
	}
	d.apply(t, control.Document{Secrets: all})
	for size, pages := range map[int]int{0: 3, 7: 9} {
		d.apply(t, control.Document{PageSize: &size})
		if err := d.ResetCalls(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		pager := d.secrets(t).NewListSecretPropertiesPager(nil)
		for pager.More() {
			page, err := pager.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range page.Value {
				got = append(got, s.ID.Name())
				if s.ID.Version() != "" || *s.Attributes.Enabled != (s.ID.Name() != "Secret-07") || "Secret-"+fmt.Sprintf("%02s", *s.Tags["i"]) != s.ID.Name() {
					t.Errorf("%s: %+v", *s.ID, s.Attributes)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d a page (-want +got):\n%s", size, diff)
		}
		// The first is the challenge.
		if got := len(d.answered(t)); got != pages+1 {
			t.Errorf("%d a page: %d requests, want %d", size, got, pages+1)
		}
	}
}

func TestListVersions(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	var all []control.Secret
	want := map[string]bool{}
	for i := range 30 {
		s := secret("db", "x")
		s.Version.Version = fmt.Sprintf("%032x", i)
		s.Created = time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC)
		s.Enabled = ptr(i != 3)
		all = append(all, s)
		want[s.Version.Version] = *s.Enabled
	}
	d.apply(t, control.Document{Secrets: all})
	got := map[string]bool{}
	var order []string
	for _, s := range listVersions(t, d.secrets(t), "DB") {
		got[s.ID.Version()] = *s.Attributes.Enabled
		order = append(order, s.ID.Version())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	if slices.IsSorted(order) {
		t.Error("they come in the order in which they were made: nobody would notice that a client relies on it")
	}
	if got := listVersions(t, d.secrets(t), "absent"); len(got) != 0 {
		t.Errorf("what is not there has %d versions", len(got))
	}
}

func listVersions(t *testing.T, c *azsecrets.Client, name string) (all []*azsecrets.SecretProperties) {
	t.Helper()
	pager := c.NewListSecretPropertiesVersionsPager(name, nil)
	for pager.More() {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Value...)
	}
	return all
}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	const other = "aaaaaaaa-0000-4000-8000-000000000007"
	d.apply(t, control.Document{Secrets: []control.Secret{secret("db", "x"), secret("api", "y")}})
	d.grants(t, control.Grant{ClientID: client, Operations: []string{"secrets/get"}, Objects: []string{"DB"}}, control.Grant{ClientID: other, Operations: []string{"secrets/list", "keys/get"}})
	c := d.secrets(t)
	if _, err := c.GetSecret(t.Context(), "db", "", nil); err != nil {
		t.Error(err)
	}
	_, err := c.GetSecret(t.Context(), "api", "", nil)
	wantError(t, err, http.StatusForbidden, "Forbidden", "Caller is not authorized to perform action on resource.", `"ForbiddenByRbac"`,
		"Action: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'", "appid="+client, "/vaults/shop/secrets/api'", "Vault: shop;location=westeurope")
	_, err = c.NewListSecretPropertiesPager(nil).NextPage(t.Context())
	wantError(t, err, http.StatusForbidden, "Forbidden", "secrets/readMetadata/action")
	_, err = c.NewListSecretPropertiesVersionsPager("db", nil).NextPage(t.Context())
	wantError(t, err, http.StatusForbidden, "Forbidden", "secrets/readMetadata/action")
	_, err = d.keys(t).GetKey(t.Context(), "db", "", nil)
	wantError(t, err, http.StatusForbidden, "Forbidden", "vaults/keys/read'")
	_, err = d.certificates(t).GetCertificate(t.Context(), "db", "", nil)
	wantError(t, err, http.StatusForbidden, "Forbidden", "vaults/certificates/read'")
	listing := d.secretsOf(t, vaultURL, d.given(t, func(r *control.TokenRequest) { r.ClientID = other }))
	if _, err := listing.NewListSecretPropertiesPager(nil).NextPage(t.Context()); err != nil {
		t.Error(err)
	}
	_, err = listing.GetSecret(t.Context(), "db", "", nil)
	wantError(t, err, http.StatusForbidden, "Forbidden", "ForbiddenByRbac")
	// What is denied may as well not be there.
	_, err = c.GetSecret(t.Context(), "absent", "", nil)
	wantError(t, err, http.StatusForbidden, "Forbidden", "ForbiddenByRbac")
}

func TestAccessPolicyAndNetwork(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	vault := control.Vault{Name: "shop", Tenant: tenant, Authorization: control.Policy, Location: "eastus"}
	d.apply(t, control.Document{Vaults: []control.Vault{vault}, Secrets: []control.Secret{secret("db", "x")}})
	get := func() error {
		_, err := d.secrets(t).GetSecret(t.Context(), "db", "", nil)
		return err
	}
	wantError(t, get(), http.StatusForbidden, "Forbidden", `"ForbiddenByPolicy"`, "does not have secrets get permission on key vault 'shop;location=eastus'", "appid="+client)
	vault.Grants = []control.Grant{{Operations: []string{"secrets/get"}}}
	d.apply(t, control.Document{Vaults: []control.Vault{vault}})
	if err := get(); err != nil {
		t.Errorf("anybody is let: %v", err)
	}
	vault.Network = control.Firewall
	d.apply(t, control.Document{Vaults: []control.Vault{vault}})
	wantError(t, get(), http.StatusForbidden, "Forbidden", `"ForbiddenByFirewall"`, "Client address is not authorized", "127.0.0.1")
	vault.Network = control.Private
	d.apply(t, control.Document{Vaults: []control.Vault{vault}})
	wantError(t, get(), http.StatusForbidden, "Forbidden", `"ForbiddenByConnection"`, "Public network access is disabled")
}

func TestAccessTokens(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret("db", "x")}})
	get := func(credential bearer) error {
		_, err := d.secretsOf(t, vaultURL, credential).GetSecret(t.Context(), "db", "", nil)
		return err
	}
	good := d.given(t, nil)
	if err := get(good); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		token bearer
		want  string
	}{
		"audience": {d.given(t, func(r *control.TokenRequest) { r.Resource = "https://management.azure.com" }), "AKV10022: Invalid audience"},
		"tenant":   {d.given(t, func(r *control.TokenRequest) { r.Tenant = "aaaaaaaa-0000-4000-8000-000000000008" }), "AKV10032: Invalid issuer"},
		"expired":  {d.given(t, func(r *control.TokenRequest) { r.Lifetime = control.Duration(-time.Second) }), "TokenExpired"},
		"forged":   {good[:len(good)-6] + "AAAAAA", "BearerReadAccessTokenFailed"},
		"nonsense": {"nonsense", "BearerReadAccessTokenFailed"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, get(test.token), http.StatusUnauthorized, "Unauthorized", test.want) })
	}
	if err := d.Revoke(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	wantError(t, get(good), http.StatusUnauthorized, "Unauthorized", "TokenRevoked")
	if err := get(d.given(t, nil)); err != nil {
		t.Errorf("a token that was made since: %v", err)
	}
}

func TestChallenges(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	const government = "aaaaaaaa-0000-4000-8000-000000000005"
	d.apply(t, control.Document{
		Tenants: []control.Tenant{{ID: government, Authority: "login.microsoftonline.us"}},
		Vaults: []control.Vault{
			{Name: "gov", Suffix: "vault.usgovcloudapi.net", Tenant: government},
			{Name: "liar", Tenant: tenant, ChallengeTenant: government, ChallengeResource: "https://vault.evil.example"},
		},
	})
	for host, want := range map[string]string{
		"shop.vault.azure.net":        `Bearer authorization="https://login.microsoftonline.com/` + tenant + `", resource="https://vault.azure.net"`,
		"gov.vault.usgovcloudapi.net": `Bearer authorization="https://login.microsoftonline.us/` + government + `", resource="https://vault.usgovcloudapi.net"`,
		"liar.vault.azure.net":        `Bearer authorization="https://login.microsoftonline.us/` + government + `", resource="https://vault.evil.example"`,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/secrets?api-version=7.6", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := d.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("WWW-Authenticate"); got != want || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d %s\nwant %s", host, resp.StatusCode, got, want)
		}
	}
	_, err := d.secretsOf(t, "https://liar.vault.azure.net", d.given(t, nil)).GetSecret(t.Context(), "x", "", nil)
	if err == nil || !strings.Contains(err.Error(), "doesn't match the requested domain") {
		t.Errorf("the client follows a challenge to elsewhere: %v", err)
	}
}

func TestOtherCloudsVault(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	const government = "aaaaaaaa-0000-4000-8000-000000000005"
	trusted := []control.FederatedCredential{{Issuer: issuer, Subject: subject}}
	d.apply(t, control.Document{
		Tenants:      []control.Tenant{{ID: government, Authority: "login.microsoftonline.us"}},
		Applications: []control.Application{{Tenant: government, ClientID: client, FederatedCredentials: trusted}},
		Vaults:       []control.Vault{{Name: "Gov", Suffix: "vault.usgovcloudapi.net", Tenant: government, Grants: []control.Grant{{Operations: []string{"*"}}}}},
		Secrets: []control.Secret{
			{Version: control.Version{Vault: "gov.vault.usgovcloudapi.net", Name: "db"}, Value: ptr("x")},
		},
	})
	credential := d.loginAt(t, cloud.AzureGovernment, government, client, assertion(t, nil))
	if _, err := d.secretsOf(t, "https://gov.vault.usgovcloudapi.net", credential).GetSecret(t.Context(), "db", "", nil); err != nil {
		t.Error(err)
	}
	if err := d.DeleteVault(t.Context(), "gov.vault.usgovcloudapi.net"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.secretsOf(t, "https://gov.vault.usgovcloudapi.net", credential).GetSecret(t.Context(), "db", "", nil); err == nil {
		t.Error("a vault that is deleted answers")
	}
	if err := d.DeleteVault(t.Context(), "gov.vault.usgovcloudapi.net"); err == nil {
		t.Error("it could be deleted twice")
	}
}

func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, azure.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret("db", "x")}})
	good := http.Header{"Authorization": {"Bearer " + string(d.given(t, nil))}}
	for name, test := range map[string]struct {
		method, path, body string
		header             http.Header
		status             int
		answer, problem    string
	}{
		"good":                  {http.MethodGet, "secrets/db?api-version=7.4", "", good, 200, `"value":"x"`, ""},
		"good, with a slash":    {http.MethodGet, "secrets/db/?api-version=2026-04-01", "", good, 200, `"value":"x"`, ""},
		"no bearer":             {http.MethodGet, "secrets/db?api-version=7.6", "", nil, 401, "AKV10000", ""},
		"other authorization":   {http.MethodGet, "secrets/db?api-version=7.6", "", http.Header{"Authorization": {"Basic x"}}, 401, "AKV10000", "no bearer"},
		"no api-version":        {http.MethodGet, "secrets/db", "", good, 400, "api-version must be specified", "no api-version"},
		"unknown api-version":   {http.MethodGet, "secrets/db?api-version=1.0", "", good, 400, "is not recognized", "unknown api-version 1.0"},
		"body":                  {http.MethodGet, "secrets/db?api-version=7.6", "x", good, 200, `"value":"x"`, "GET with a body"},
		"parameter":             {http.MethodGet, "secrets/db?api-version=7.6&x=y", "", good, 200, `"value":"x"`, "the query has x"},
		"page too large":        {http.MethodGet, "secrets?api-version=7.6&maxresults=26", "", good, 400, "maxresults", "maxresults=26"},
		"strange token":         {http.MethodGet, "secrets?api-version=7.6&$skiptoken=x", "", good, 400, "skiptoken", "skiptoken"},
		"name":                  {http.MethodGet, "secrets/a_b?api-version=7.6", "", good, 400, "invalid name", "no name of an object"},
		"no name":               {http.MethodGet, "secrets//?api-version=7.6", "", good, 400, "invalid name", "no name of an object"},
		"operation":             {http.MethodPut, "secrets/db?api-version=7.6", "{}", good, 405, "MethodNotAllowed", "does not serve PUT"},
		"other service":         {http.MethodGet, "storage?api-version=7.6", "", good, 405, "MethodNotAllowed", "does not serve GET /storage"},
		"path that is too deep": {http.MethodGet, "secrets/db/a/b?api-version=7.6", "", good, 405, "MethodNotAllowed", "does not serve GET"},
		"what only the fake refuses": {
			http.MethodGet, "certificates?api-version=7.6&includePending=perhaps", "", good, 400, "BadParameter", "Microsoft's fake refuses it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := d.ResetViolations(t.Context()); err != nil {
				t.Fatal(err)
			}
			status, answer := d.send(t, test.method, vaultURL+test.path, test.body, test.header)
			if status != test.status || !strings.Contains(answer, test.answer) {
				t.Errorf("%d %s\nwant %d with %q", status, answer, test.status, test.answer)
			}
			d.wantViolation(t, test.problem)
		})
	}
}
