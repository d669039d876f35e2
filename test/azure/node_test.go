package azure_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/postern-dev/postern/test/azure"
	"github.com/postern-dev/postern/test/azure/control"
)

const (
	systemIdentity = "aaaaaaaa-0000-4000-8000-00000000000a"
	userIdentity   = "aaaaaaaa-0000-4000-8000-00000000000b"
	resourceID     = "/subscriptions/s/resourcegroups/r/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u"
)

// node is a double with identities, and a client that reaches IMDS at its address.
func node(t *testing.T) (*double, azcore.ClientOptions) {
	t.Helper()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{
		// azidentity keeps tokens of managed identities for the whole process, but
		// none that ends so soon.
		TokenLifetime: ptr(control.Duration(4 * time.Minute)),
		Identities: []control.Identity{
			{Tenant: tenant, ClientID: userIdentity, ObjectID: "aaaaaaaa-0000-4000-8000-00000000000c", ResourceID: resourceID},
			{Tenant: tenant, ClientID: systemIdentity, System: true},
		},
		PodIdentities: []control.PodIdentity{{Namespace: "shop", Tenant: tenant, ClientID: systemIdentity}, {Namespace: "shop", Pod: "web-1", Tenant: tenant, ClientID: userIdentity}},
		Vaults:        []control.Vault{{Name: "shop", Tenant: tenant, Grants: []control.Grant{{ClientID: userIdentity, Operations: []string{"secrets/get"}}}}},
		Secrets:       []control.Secret{secret("db", "x")},
	})
	local := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "169.254.169.254:80" {
			address = strings.TrimPrefix(d.server.Addresses.IMDS, "http://")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	t.Cleanup(local.CloseIdleConnections)
	return d, azcore.ClientOptions{Transport: &http.Client{Transport: local}, Retry: policy.RetryOptions{MaxRetries: -1}}
}

func TestManagedIdentity(t *testing.T) {
	t.Parallel()
	d, options := node(t)
	for name, test := range map[string]struct {
		id      azidentity.ManagedIDKind
		allowed bool
		fails   string
	}{
		"system":   {nil, false, ""},
		"client":   {azidentity.ClientID(userIdentity), true, ""},
		"object":   {azidentity.ObjectID("aaaaaaaa-0000-4000-8000-00000000000c"), true, ""},
		"resource": {azidentity.ResourceID(resourceID), true, ""},
		"unknown":  {azidentity.ClientID(client), false, "isn't assigned"},
	} {
		t.Run(name, func(t *testing.T) {
			credential, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options, ID: test.id})
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.secretsOf(t, vaultURL, credential).GetSecret(t.Context(), "db", "", nil)
			switch {
			case test.fails != "":
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("%v, want %q", err, test.fails)
				}
			case test.allowed && err != nil:
				t.Error(err)
			case !test.allowed:
				wantError(t, err, http.StatusForbidden, "Forbidden", "appid="+systemIdentity)
			}
		})
	}
	d.fault(t, control.Fault{Service: control.IMDS, Kind: control.Throttle})
	credential, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ask(t, credential)
	wantRefused(t, err, http.StatusTooManyRequests, "too_many_requests")
}

func TestMalformedRequestsToIMDS(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, azure.Config{})
	metadata := http.Header{"Metadata": {"true"}}
	const path = "/metadata/identity/oauth2/token"
	good := "?api-version=2018-02-01&resource=" + url.QueryEscape("https://vault.azure.net")
	d.apply(t, control.Document{Identities: []control.Identity{{Tenant: tenant, ClientID: systemIdentity, System: true}}})
	for name, test := range map[string]struct {
		method, path    string
		header          http.Header
		status          int
		answer, problem string
	}{
		"good":             {http.MethodGet, path + good, metadata, 200, `"client_id":"` + systemIdentity, ""},
		"other path":       {http.MethodGet, "/metadata/instance", metadata, 404, "not_found", "no such request"},
		"POST":             {http.MethodPost, path + good, metadata, 404, "not_found", "no such request"},
		"no header":        {http.MethodGet, path + good, nil, 400, "Required metadata header", "no header"},
		"proxied":          {http.MethodGet, path + good, http.Header{"Metadata": {"true"}, "X-Forwarded-For": {"x"}}, 400, "X-Forwarded-For", "through a proxy"},
		"no version":       {http.MethodGet, path + "?resource=x", metadata, 400, "api-version", "no api-version"},
		"no resource":      {http.MethodGet, path + "?api-version=2018-02-01", metadata, 400, "'resource'", "no resource"},
		"unknown resource": {http.MethodGet, path + "?api-version=2018-02-01&resource=x", metadata, 400, "AADSTS500011", ""},
		"bearer":           {http.MethodGet, path + good, http.Header{"Metadata": {"true"}, "Authorization": {"Bearer x"}}, 200, "access_token", "an access token was sent"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := d.ResetViolations(t.Context()); err != nil {
				t.Fatal(err)
			}
			status, answer := d.send(t, test.method, d.server.Addresses.IMDS+test.path, "", test.header)
			if status != test.status || !strings.Contains(answer, test.answer) {
				t.Errorf("%d %s\nwant %d with %q", status, answer, test.status, test.answer)
			}
			d.wantViolation(t, test.problem)
		})
	}
}

func TestNMI(t *testing.T) {
	t.Parallel()
	d, _ := node(t)
	pod := func(namespace, name string) http.Header { // as the provider sends them
		return http.Header{"Podns": {namespace}, "Podname": {name}}
	}
	at := d.server.Addresses.NMI + "?resource=" + url.QueryEscape("https://vault.azure.net")
	for name, want := range map[string]string{"web-1": userIdentity, "web-2": systemIdentity} {
		status, body := d.send(t, http.MethodGet, at, "", pod("shop", name))
		var answer struct {
			Token struct {
				AccessToken string `json:"access_token"`
				ExpiresOn   string `json:"expires_on"`
				Resource    string `json:"resource"`
			} `json:"token"`
			ClientID string `json:"clientid"`
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		if answer.ClientID != want || answer.Token.ExpiresOn == "" || answer.Token.Resource != "https://vault.azure.net" {
			t.Errorf("%s gets %s until %q for %s", name, answer.ClientID, answer.Token.ExpiresOn, answer.Token.Resource)
		}
		_, err := d.secretsOf(t, vaultURL, bearer(answer.Token.AccessToken)).GetSecret(t.Context(), "db", "", nil)
		if (err == nil) != (want == userIdentity) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if status, body := d.send(t, http.MethodGet, at, "", pod("bank", "web-1")); status != http.StatusNotFound || !strings.Contains(body, "no azure identity found") {
		t.Errorf("another namespace: %d %s", status, body)
	}
	d.fault(t, control.Fault{Service: control.NMI, Kind: control.Unavailable})
	if status, body := d.send(t, http.MethodGet, at, "", pod("shop", "web-1")); status != http.StatusServiceUnavailable || body != "Service Unavailable\n" {
		t.Errorf("unavailable: %d %s", status, body)
	}
}

func TestMalformedRequestsToNMI(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, azure.Config{})
	d.apply(t, control.Document{PodIdentities: []control.PodIdentity{{Namespace: "shop", Tenant: tenant, ClientID: systemIdentity}}})
	header := http.Header{"Podns": {"shop"}, "Podname": {"web-1"}}
	for name, test := range map[string]struct {
		url     string
		header  http.Header
		status  int
		problem string
	}{
		"other path":  {strings.TrimSuffix(d.server.Addresses.NMI, "host/token/") + "x", header, 404, "no such request"},
		"no pod":      {d.server.Addresses.NMI + "?resource=x", nil, 400, "no headers"},
		"no resource": {d.server.Addresses.NMI, header, 400, "no resource"},
		"unknown":     {d.server.Addresses.NMI + "?resource=x", header, 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := d.ResetViolations(t.Context()); err != nil {
				t.Fatal(err)
			}
			if status, answer := d.send(t, http.MethodGet, test.url, "", test.header); status != test.status {
				t.Errorf("%d %s, want %d", status, answer, test.status)
			}
			d.wantViolation(t, test.problem)
		})
	}
}
