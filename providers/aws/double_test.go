package aws

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/sdk/providertest"
)

// doubleEnv names the test double of AWS, test/cmd/postern-aws.
const doubleEnv = "POSTERN_TEST_AWS"

const (
	account = "111122223333"
	region  = "eu-west-1"
	issuer  = "https://oidc.test"
)

// testDouble is what all tests of the package share; each works with a namespace,
// a role and names of its own. Nil: there is no binary.
var testDouble *double

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if binary := os.Getenv(doubleEnv); binary != "" {
		d, err := startDouble(binary)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		testDouble = d
		// What a node or a container may find in its environment: somebody who
		// may do everything. Nothing may ever be read as that.
		for name, value := range map[string]string{
			"AWS_ENDPOINT_URL": d.Endpoint, "AWS_EC2_METADATA_DISABLED": "true",
			"AWS_ACCESS_KEY_ID": adminKey, "AWS_SECRET_ACCESS_KEY": adminSecret,
		} {
			if err := os.Setenv(name, value); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
	}
	code := m.Run()
	if testDouble != nil {
		if err := testDouble.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// The keys of a user who may do everything.
const (
	adminKey    = "AKIAADMINADMINADMIN1"
	adminSecret = "canary-admin-secret-access-key"
)

// double is a running test double.
type double struct {
	Endpoint     string `json:"endpoint"`
	Control      string `json:"control"`
	PodIdentity  string `json:"podIdentity"`
	PodIdentity6 string `json:"podIdentity6"`

	server *providertest.Server
	issuer *providertest.Issuer
}

func startDouble(binary string) (*double, error) {
	tokens, err := providertest.NewIssuer(issuer)
	if err != nil {
		return nil, err
	}
	d := &double{issuer: tokens}
	if d.server, err = providertest.StartServer(binary, []string{"--pod-identity6", loopback6()}, d); err != nil {
		return nil, err
	}
	return d, d.apply(map[string]any{
		"issuers": []any{map[string]any{
			"url": issuer, "audiences": []string{audienceSTS}, "podIdentity": true, "jwks": d.issuer.JWKS(),
		}},
		"users": []any{map[string]any{
			"name": "admin", "accessKeyId": adminKey, "secretAccessKey": adminSecret,
			"policy": policy(map[string]any{"Effect": "Allow", "Action": "*", "Resource": "*"}),
		}},
	})
}

// loopback6 is an address of the loopback by IPv6, or by IPv4 where there is none:
// which is asked and when does not depend on that.
func loopback6() string {
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = listener.Close()
	return "[::1]:0"
}

// stop ends it. What broke AWS' service models is an error.
func (d *double) stop() error {
	var found struct {
		Violations []any `json:"violations"`
	}
	err := d.control(http.MethodGet, "/violations", nil, &found)
	if err == nil && len(found.Violations) > 0 {
		err = fmt.Errorf("requests or answers that break AWS' service models: %v", found.Violations)
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

// policy is a policy document.
func policy(statements ...map[string]any) map[string]any {
	return map[string]any{"Version": "2012-10-17", "Statement": statements}
}

// awsDouble returns the test double.
func awsDouble(t *testing.T) *double {
	t.Helper()
	if testDouble == nil {
		t.Fatalf("%s is not set: `make test` builds the test double and sets it; by hand, run "+
			"`go build -o postern-aws ./cmd/postern-aws` in test and set %s to its path", doubleEnv, doubleEnv)
	}
	return testDouble
}
