package gcp_test

import (
	"context"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
)

// The document in the README can be applied as it is.
func TestTheReadmesDocument(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)### The document\n\n(    \{.*?\n    \})\n`).FindSubmatch(readme)
	if found == nil {
		t.Fatal("README.md has no document")
	}
	document, err := control.ReadDocument(found[1])
	if err != nil {
		t.Fatal(err)
	}
	d := startUnchecked(t, gcp.Config{})
	document.Issuers = nil // its keys are left out
	if applied := d.apply(t, document); len(applied.Secrets) != 1 || len(applied.Parameters) != 1 || len(applied.ServiceAccounts[0].Keys) != 1 {
		t.Errorf("%+v", applied)
	}
}

func TestDocumentsThatAreRefused(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{
		Secrets:    []control.Secret{secret(db, "x"), {Name: db, State: control.Destroyed}},
		Parameters: []control.Parameter{parameter(config, "v1", control.YAML, "a: b")},
	})
	large := strings.Repeat("x", 1<<20+1)
	for want, document := range map[string]control.Document{
		"needs a url":                      {Issuers: []control.Issuer{{}}},
		"an id and a number":               {Projects: []control.Project{{ID: "a", Number: "b"}}},
		"is project shop's":                {Projects: []control.Project{{ID: "a", Number: number}}},
		"is not NAME@PROJECT":              {ServiceAccounts: []control.ServiceAccount{{Email: "a@example.com"}}},
		"a pool needs":                     {Pools: []control.Pool{{ID: "x"}}},
		"a provider needs":                 {Pools: []control.Pool{{Project: "shop", ID: "x", Providers: []control.Provider{{ID: "y"}}}}},
		"a resource and a role":            {Bindings: []control.Binding{{Role: accessor}}},
		"say its permissions":              {Bindings: []control.Binding{{Resource: "projects/shop", Role: "roles/owner"}}},
		"not the name of a secret":         {Secrets: []control.Secret{secret(db+"/versions/1", "x")}},
		"more than 65536 bytes":            {Secrets: []control.Secret{secret(db, large)}},
		"no such version":                  {Secrets: []control.Secret{{Name: db, Version: 9}}},
		"unknown state":                    {Secrets: []control.Secret{{Name: db + "2", Value: ptr("x"), State: "OFF"}}},
		"stays so":                         {Secrets: []control.Secret{{Name: db, State: control.Enabled}}},
		"contents of a version cannot":     {Secrets: []control.Secret{{Name: db, Version: 1, Value: ptr("x")}}},
		"not the name of a parameter":      {Parameters: []control.Parameter{{Name: db}}},
		"more than 1048576 bytes":          {Parameters: []control.Parameter{parameter(config, "v2", "", large)}},
		"unknown format":                   {Parameters: []control.Parameter{{Name: config, Format: "XML"}}},
		"format of a parameter cannot":     {Parameters: []control.Parameter{{Name: config, Format: control.JSON}}},
		"say which version":                {Parameters: []control.Parameter{parameter(config, "", "", "x")}},
		"config: there is no such version": {Parameters: []control.Parameter{{Name: config, Version: "v9"}}},
		"config: the contents of":          {Parameters: []control.Parameter{parameter(config, "v1", "", "x")}},
		"unknown kind":                     {Faults: []control.Fault{{Kind: "nonsense"}}},
		"needs a code":                     {Faults: []control.Fault{{Kind: control.ErrorAnswer}}},
		"unknown code":                     {Faults: []control.Fault{{Kind: control.ErrorAnswer, Code: "Forbidden"}}},
		"is for service proxy":             {Faults: []control.Fault{{Kind: control.Unresolved}}},
		"not for service proxy":            {Faults: []control.Fault{{Kind: control.Throttle, Service: control.Proxy}}},
		"is for operation access":          {Faults: []control.Fault{{Kind: control.Corrupt, Service: control.SecretManager}}},
		"want 0 or more":                   {PageSize: ptr(-1)},
	} {
		if _, err := d.Apply(t.Context(), document); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if status, answer := d.post(t, d.server.Addresses.Control+"/apply", map[string]string{"secret": "x"}, nil); status != http.StatusBadRequest || !strings.Contains(answer, "unknown field") {
		t.Errorf("%d %s", status, answer)
	}
	if _, err := d.AccessToken(t.Context(), control.TokenRequest{Principal: "x"}); err == nil {
		t.Error("a token of nobody is given")
	}
	for _, err := range []error{
		d.DeleteSecret(t.Context(), db+"2x"), d.DeleteSecret(t.Context(), "x"), d.DeleteParameter(t.Context(), "x"), d.DeleteParameter(t.Context(), config+"2"),
		d.DeleteServiceAccount(t.Context(), "x"),
	} {
		if err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("%v", err)
		}
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, gcp.Config{})
	d.apply(t, control.Document{
		Secrets: []control.Secret{secret(db, "x")}, Parameters: []control.Parameter{parameter(config, "v1", "", "x")},
		Metadata: &control.Metadata{Project: "shop"}, Faults: []control.Fault{{Kind: control.Unavailable}},
	})
	as := d.given(t, control.TokenRequest{Principal: app})
	if _, err := access(t, d.secretsAt(t, globalHost, as), db+"/versions/1"); err == nil {
		t.Fatal("no fault")
	}
	if err := d.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if calls, err := d.Calls(t.Context()); err != nil || len(calls) != 0 {
		t.Errorf("%v, %+v", err, calls)
	}
	_, err := access(t, d.secretsAt(t, globalHost, as), db+"/versions/1")
	wantStatus(t, err, codes.Unauthenticated, "ACCESS_TOKEN_TYPE_UNSUPPORTED", "")
	_, err = access(t, d.secrets(t), db+"/versions/1")
	wantStatus(t, err, codes.PermissionDenied, "IAM_PERMISSION_DENIED", "")
	d.apply(t, control.Document{Projects: []control.Project{{ID: "shop", Number: number}}})
	d.bind(t, "projects/shop", accessor, "serviceAccount:"+app)
	_, err = access(t, d.secrets(t), db+"/versions/1")
	wantStatus(t, err, codes.NotFound, "", "not found")
	d.bind(t, "projects/shop", "roles/parametermanager.parameterAccessor", "serviceAccount:"+app)
	_, err = render(t, d.parametersAt(t, parameterHost), config+"/versions/v1")
	wantStatus(t, err, codes.NotFound, "", "not found")
	if status, _ := d.send(t, http.MethodGet, "http://"+d.server.Addresses.Metadata+"/computeMetadata/v1/project/project-id", "", http.Header{"Metadata-Flavor": {"Google"}}); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
	if status, answer := d.post(t, stsURL, exchange(gkeAudience, podToken(t, nil)), nil); !strings.Contains(answer, "invalid_target") {
		t.Errorf("%d %s", status, answer)
	}
	d.apply(t, control.Document{Pools: []control.Pool{{Project: "shop", ID: pool, Providers: []control.Provider{{ID: issuer, Issuer: issuer}}}}})
	if status, answer := d.post(t, stsURL, exchange(gkeAudience, podToken(t, nil)), nil); status != http.StatusOK {
		t.Errorf("the issuer is forgotten: %s", answer)
	}
}

func TestTokenLifetime(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.bind(t, accountResource(app), user, ksa)
	d.apply(t, control.Document{TokenLifetime: ptr(control.Duration(time.Minute))})
	_, answer := d.post(t, stsURL, exchange(gkeAudience, podToken(t, nil)), nil)
	if !strings.Contains(answer, `"expires_in":60`) {
		t.Errorf("%q", answer[:20])
	}
	_, answer = d.generate(t, d.given(t, control.TokenRequest{Principal: ksa}), map[string]any{})
	found := regexp.MustCompile(`"expireTime":"([^"]+)"`).FindStringSubmatch(answer)
	if found == nil {
		t.Fatal("no expireTime")
	}
	if at, err := time.Parse(time.RFC3339, found[1]); err != nil || time.Until(at) > time.Minute {
		t.Errorf("%v: it expires at %v", err, at)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{Metadata: gcp.Off})
	addresses, err := d.Addresses(t.Context())
	if err != nil || addresses != d.server.Addresses || addresses.Metadata != "" || !strings.HasPrefix(addresses.Proxy, "http://127.0.0.1:") {
		t.Errorf("%v, %+v", err, addresses)
	}
	if pem, err := d.CA(t.Context()); err != nil || pem != d.server.CA() {
		t.Errorf("%v: another certificate", err)
	}
	if _, err := gcp.Start(t.Context(), gcp.Config{Control: "nonsense"}); err == nil || !strings.Contains(err.Error(), "listen at nonsense") {
		t.Errorf("%v", err)
	}
	if _, err := gcp.Start(t.Context(), gcp.Config{Issuers: []control.Issuer{{}}}); err == nil {
		t.Error("an issuer without a URL is taken")
	}
}

// Nothing that is recorded has contents or tokens in it.
func TestRecordsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "hunter2")}})
	raw := podToken(t, nil)
	status, answer := d.post(t, stsURL, exchange(gkeAudience, raw), nil)
	as := granted(t, status, answer)
	if _, err := d.secretsAt(t, globalHost, as).GetSecret(t.Context(), &secretmanagerpb.GetSecretRequest{Name: db}); err == nil {
		t.Error("a stranger reads")
	}
	if _, err := access(t, d.secrets(t), db+"/versions/1"); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"/calls", "/requests", "/violations"} {
		_, told := d.send(t, http.MethodGet, d.server.Addresses.Control+path, "", nil)
		for _, hidden := range []string{"hunter2", raw, string(as)} {
			if strings.Contains(told, hidden) {
				t.Errorf("%s tells a secret", path)
			}
		}
	}
	requests, err := d.Requests(context.WithoutCancel(t.Context()))
	if err != nil || len(requests) != 3 || requests[0].Principal != ksa || requests[2].Version != dbName+"/versions/1" || requests[1].Reason != "IAM_PERMISSION_DENIED" {
		t.Errorf("%v, %+v", err, requests)
	}
}
