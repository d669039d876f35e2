package azure_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/azure"
	"github.com/postern-dev/postern/test/azure/control"
)

func TestDocumentsThatAreRefused(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	for document, want := range map[string]string{
		`{"secret":[]}`: "unknown field",
		`{"secrets":[{"vault":"shop","name":"a","x":1}]}`:                                 "unknown field",
		`{"secrets":[{"vault":"shop","name":"a"}]}`:                                       "nothing is said to make it of",
		`{"secrets":[{"vault":"other","name":"a","value":"x"}]}`:                          "there is no vault",
		`{"secrets":[{"vault":"shop","name":"a_b","value":"x"}]}`:                         "no name of an object",
		`{"secrets":[{"vault":"shop","name":"a","value":"x","version":"1"}]}`:             "not 32 hex digits",
		`{"keys":[{"vault":"shop","name":"a","kty":"DSA"}]}`:                              "unknown kty",
		`{"keys":[{"vault":"shop","name":"a","kty":"EC","curve":"P-1"}]}`:                 "unknown curve",
		`{"keys":[{"vault":"shop","name":"a","pem":"x"}]}`:                                "no PEM",
		`{"certificates":[{"vault":"shop","name":"a"}]}`:                                  "nothing is said",
		`{"certificates":[{"vault":"shop","name":"a","keyType":"DSA"}]}`:                  "unknown keyType",
		`{"certificates":[{"vault":"shop","name":"a","pem":"x"}]}`:                        "needs a private key and a certificate",
		`{"certificates":[{"vault":"shop","name":"a","pfx":"eA=="}]}`:                     "read the pfx",
		`{"certificates":[{"vault":"shop","name":"a","keyType":"EC","contentType":"x"}]}`: "unknown contentType",
		`{"certificates":[{"vault":"shop","name":"a","keyType":"EC","encryption":"x"}]}`:  "unknown encryption",
		`{"vaults":[{"name":"-","tenant":"t"}]}`:                                          "not a name of a vault",
		`{"vaults":[{"name":"abc"}]}`:                                                     "no tenant",
		`{"vaults":[{"name":"abc","tenant":"t","authorization":"x"}]}`:                    "unknown authorization",
		`{"vaults":[{"name":"abc","tenant":"t","network":"x"}]}`:                          "unknown network",
		`{"vaults":[{"name":"abc","tenant":"t","grants":[{"operations":["read"]}]}]}`:     "unknown operation",
		`{"vaults":[{"name":"abc","tenant":"t","grants":[{}]}]}`:                          "needs operations",
		`{"tenants":[{}]}`:                                   "needs an id",
		`{"tenants":[{"id":"adfs"}]}`:                        "authority of an ADFS",
		`{"applications":[{"tenant":"t"}]}`:                  "needs a tenant and a clientId",
		`{"identities":[{"tenant":"t"}]}`:                    "needs a clientId",
		`{"identities":[{"clientId":"c"}]}`:                  "no tenant",
		`{"podIdentities":[{"namespace":"n","tenant":"t"}]}`: "needs a namespace and a clientId",
		`{"issuers":[{}]}`:                                   "an issuer needs a url",
		`{"faults":[{"kind":"x"}]}`:                          "unknown kind",
		`{"faults":[{"kind":"error"}]}`:                      "needs a code",
		`{"faults":[{"kind":"unresolved"}]}`:                 "for service proxy",
		`{"faults":[{"kind":"throttle","service":"proxy"}]}`: "not for service proxy",
		`{"pageSize":26}`:                                    "between 0 and 25",
		`{"tokenLifetime":"soon"}`:                           "invalid duration",
	} {
		status, answer := d.send(t, http.MethodPost, d.server.Addresses.Control+"/apply", document, nil)
		if status != http.StatusBadRequest || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s\nwant %q", document, status, answer, want)
		}
	}
	for path, body := range map[string]string{"/token": `{"tenant":"t"}`, "/revoke": `{"client":"x"}`} {
		if status, answer := d.send(t, http.MethodPost, d.server.Addresses.Control+path, body, nil); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
}

// The document of README.md is taken as it is, but for its dots.
func TestREADME(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	contents, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, document, _ := strings.Cut(string(contents), "### The document\n\n")
	document, _, _ = strings.Cut(document, "\n\n**issuers**")
	pemKey := d.apply(t, control.Document{Certificates: []control.Certificate{{Version: version("x", ""), KeyType: "EC", ContentType: control.PEM}}}).Certificates[0].SecretValue
	quoted, err := json.Marshal(pemKey)
	if err != nil {
		t.Fatal(err)
	}
	document = strings.NewReplacer(
		`"jwks": {"keys": [...]}`, `"jwks": `+string(keys(t).JWKS()), `"-----BEGIN PRIVATE KEY-----..."`, string(quoted), `"..."`, `"`+tenant+`"`,
	).Replace(document)
	parsed, err := control.ReadDocument([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	applied := d.apply(t, parsed)
	if len(applied.Secrets) != 1 || len(applied.Keys) != 1 || len(applied.Certificates) != 1 {
		t.Errorf("applied %+v", applied)
	}
	for _, name := range []string{"/apply", "/token", "/revoke", "/reset"} {
		if !strings.Contains(string(contents), "`POST "+name+"`") {
			t.Errorf("README.md does not say POST %s", name)
		}
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{
		TokenProxy: &control.TokenProxy{SNIName: "a.ests.aks"}, Secrets: []control.Secret{secret("db", "x")}, PageSize: ptr(1),
		Faults: []control.Fault{{Kind: control.Unavailable}}, Identities: []control.Identity{{Tenant: tenant, ClientID: client, System: true}},
	})
	if _, err := d.secrets(t).GetSecret(t.Context(), "db", "", nil); err == nil {
		t.Fatal("no fault")
	}
	if err := d.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.secrets(t).GetSecret(t.Context(), "db", "", nil); err == nil {
		t.Error("the vault is still there")
	}
	if err := d.ResetCalls(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := ask(t, d.login(t, assertion(t, nil)))
	wantRefused(t, err, http.StatusBadRequest, "AADSTS90002")
	// The token proxy takes any server name again.
	if status, body := d.get(t, d.server.Addresses.TokenProxy+"/x"); status != http.StatusNotFound {
		t.Errorf("the token proxy: %d %s", status, body)
	}
	if err := d.ResetViolations(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The issuers are still known.
	d.apply(t, control.Document{
		Applications: []control.Application{{Tenant: tenant, ClientID: client, FederatedCredentials: []control.FederatedCredential{{Issuer: issuer, Subject: subject}}}},
	})
	if _, err := ask(t, d.login(t, assertion(t, nil))); err != nil {
		t.Error(err)
	}
}

func TestAddressesAndCA(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca.pem")
	d := start(t, azure.Config{CAFile: file, IMDS: azure.Off, NMI: azure.Off, TokenProxy: azure.Off})
	got, err := d.Addresses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d.server.Addresses, got); diff != "" || got.CAFile != file || got.IMDS+got.NMI+got.TokenProxy != "" || got.Proxy == "" {
		t.Errorf("addresses %+v (-want +got):\n%s", got, diff)
	}
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	answered, err := d.CA(t.Context())
	if err != nil || answered != string(written) {
		t.Errorf("%v: GET /ca is another's than the file", err)
	}
	block, _ := pem.Decode(written)
	if ca, err := x509.ParseCertificate(block.Bytes); err != nil || !ca.IsCA {
		t.Errorf("%v: it is no authority", err)
	}
}

func TestAddressesThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, cfg := range []azure.Config{
		{Proxy: "nonsense"},
		{Control: "nonsense"},
		{IMDS: "nonsense"},
		{NMI: "nonsense"},
		{TokenProxy: "nonsense"},
		{CAFile: filepath.Join(t.TempDir(), "absent", "ca.pem")},
		{Issuers: []control.Issuer{{}}},
	} {
		if s, err := azure.Start(t.Context(), cfg); err == nil {
			s.Close()
			t.Errorf("%+v starts", cfg)
		}
	}
}

// syncBuffer may be written to by several.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Neither what is logged nor what is told of requests holds a secret.
func TestNothingIsToldOfSecrets(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	d := start(t, azure.Config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	d.apply(t, control.Document{Secrets: []control.Secret{secret("db", "hunter2")}})
	raw := assertion(t, nil)
	credential := d.login(t, raw)
	if _, err := d.secretsOf(t, vaultURL, credential).GetSecret(t.Context(), "db", "", nil); err != nil {
		t.Fatal(err)
	}
	access, err := ask(t, credential)
	if err != nil {
		t.Fatal(err)
	}
	requests, err := d.Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	told := log.String() + fmt.Sprintf("%+v", requests)
	for _, secret := range []string{"hunter2", raw, access.Token} {
		if strings.Contains(told, secret) {
			t.Errorf("it tells %s", secret)
		}
	}
	if !strings.Contains(log.String(), "service=entra") {
		t.Errorf("it logs nothing of requests: %s", log.String())
	}
}
