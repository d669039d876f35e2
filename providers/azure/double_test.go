package azure

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/sdk/providertest"
)

// doubleEnv names the test double of Azure, test/cmd/postern-azure.
const doubleEnv = "POSTERN_TEST_AZURE"

const (
	issuer = "https://oidc.test"
	tenant = "11111111-2222-3333-4444-555555555555"
)

// An application that may do everything, in the process' environment.
const (
	adminClient = "aaaaaaaa-0000-0000-0000-00000000aaaa"
	adminSecret = "canary-admin-client-secret"
)

// testDouble is what all tests of the package share; each works with a namespace,
// an application and a vault of its own. Nil: there is no binary.
var testDouble *double

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	code, err := runWithDouble(m, os.Getenv(doubleEnv))
	if err == nil && code == 0 {
		http.DefaultClient.CloseIdleConnections()
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

func runWithDouble(m *testing.M, binary string) (code int, err error) {
	if binary == "" {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "postern-azure-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if testDouble, err = startDouble(binary, filepath.Join(dir, "ca.pem")); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, testDouble.stop()) }()
	// The provider reaches it as it would a company's proxy. And what a node or a
	// container may find in its environment: somebody who may do everything.
	for name, value := range map[string]string{
		"HTTPS_PROXY": testDouble.Proxy, "SSL_CERT_FILE": testDouble.CAFile,
		"AZURE_CLIENT_ID": adminClient, "AZURE_CLIENT_SECRET": adminSecret, "AZURE_TENANT_ID": tenant,
	} {
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// double is a running test double.
type double struct {
	Proxy      string `json:"proxy"`
	Control    string `json:"control"`
	IMDS       string `json:"imds"`
	NMI        string `json:"nmi"`
	TokenProxy string `json:"tokenProxy"`
	CAFile     string `json:"caFile"`

	server *providertest.Server
	issuer *providertest.Issuer
}

func startDouble(binary, caFile string) (*double, error) {
	tokens, err := providertest.NewIssuer(issuer)
	if err != nil {
		return nil, err
	}
	d := &double{issuer: tokens}
	if d.server, err = providertest.StartServer(binary, []string{"--ca-file", caFile}, d); err != nil {
		return nil, err
	}
	return d, d.apply(map[string]any{
		"issuers": []any{map[string]any{"url": issuer, "jwks": d.issuer.JWKS()}},
		"applications": []any{map[string]any{
			"tenant": tenant, "clientId": adminClient, "secrets": []any{map[string]any{"value": adminSecret}},
		}},
	})
}

// stop ends it. What Microsoft's clients or servers would not take is an error.
func (d *double) stop() error {
	var found struct {
		Violations []any `json:"violations"`
	}
	err := d.control(http.MethodGet, "/violations", nil, &found)
	if err == nil && len(found.Violations) > 0 {
		err = fmt.Errorf("requests or answers that are not as Azure's: %v", found.Violations)
	}
	d.server.Stop()
	return err
}

func (d *double) apply(document map[string]any) error {
	return d.control(http.MethodPost, "/apply", document, nil)
}

func (d *double) control(method, path string, in, out any) error {
	return d.server.Call(method, d.Control+path, in, out)
}

// azureDouble returns the test double.
func azureDouble(t *testing.T) *double {
	t.Helper()
	if testDouble == nil {
		t.Fatalf("%s is not set: `make test` builds the test double and sets it; by hand, run "+
			"`go build -o postern-azure ./cmd/postern-azure` in test and set %s to its path", doubleEnv, doubleEnv)
	}
	return testDouble
}
