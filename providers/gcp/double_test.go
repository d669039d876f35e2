package gcp

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

// doubleEnv names the test double of Google Cloud, test/cmd/postern-gcp.
const doubleEnv = "POSTERN_TEST_GCP"

const (
	issuer  = "https://oidc.test"
	project = "shop-prod"
	pool    = project + ".svc.id.goog"
	cluster = "https://container.googleapis.com/v1/projects/" + project + "/locations/europe-west1/clusters/one"
	// slowCluster is another, for what goes wrong with logins.
	slowCluster = "https://container.googleapis.com/v1/projects/" + project + "/locations/europe-west1/clusters/slow"
	// ownPool is one that is not GKE's.
	ownPool = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/clusters/providers/other"
	// adminAccount may do everything, and is the provider's own identity.
	adminAccount = "admin@" + project + ".iam.gserviceaccount.com"
)

// testDouble is what all tests of the package share; each works with a namespace
// and secrets of its own. Nil: there is no binary.
var testDouble *double

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	code, err := runWithDouble(m, os.Getenv(doubleEnv))
	if err == nil && code == 0 {
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
	dir, err := os.MkdirTemp("", "postern-gcp-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if testDouble, err = startDouble(binary, filepath.Join(dir, "ca.pem")); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, testDouble.stop()) }()
	for name, value := range map[string]string{
		"HTTPS_PROXY": testDouble.Proxy, "SSL_CERT_FILE": testDouble.CAFile, "GCE_METADATA_HOST": testDouble.Metadata,
	} {
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// double is a running test double.
type double struct {
	Proxy    string `json:"proxy"`
	Control  string `json:"control"`
	Metadata string `json:"metadata"`
	CAFile   string `json:"caFile"`

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
		"issuers":         []any{map[string]any{"url": issuer, "jwks": d.issuer.JWKS()}},
		"projects":        []any{map[string]any{"id": project, "number": "123456789012"}},
		"serviceAccounts": []any{map[string]any{"email": adminAccount}},
		"metadata": map[string]any{
			"project": project, "clusterName": "one", "clusterLocation": "europe-west1", "serviceAccount": adminAccount,
		},
		"pools": []any{
			map[string]any{"project": project, "id": pool, "providers": []any{
				map[string]any{"id": cluster, "issuer": issuer}, map[string]any{"id": slowCluster, "issuer": issuer},
			}},
			map[string]any{"project": project, "id": "clusters", "providers": []any{map[string]any{"id": "other", "issuer": issuer}}},
		},
		"bindings": []any{map[string]any{
			"resource": "projects/" + project, "role": "roles/secretmanager.admin", "members": []string{"serviceAccount:" + adminAccount},
		}},
	})
}

// stop ends it. What Google would not take is an error.
func (d *double) stop() error {
	var found struct {
		Violations []any `json:"violations"`
	}
	err := d.control(http.MethodGet, "/violations", nil, &found)
	if err == nil && len(found.Violations) > 0 {
		err = fmt.Errorf("requests that Google would not take: %v", found.Violations)
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

// googleDouble returns the test double.
func googleDouble(t *testing.T) *double {
	t.Helper()
	if testDouble == nil {
		t.Fatalf("%s is not set: `make test` builds the test double and sets it; by hand, run "+
			"`go build -o postern-gcp ./cmd/postern-gcp` in test and set %s to its path", doubleEnv, doubleEnv)
	}
	return testDouble
}
