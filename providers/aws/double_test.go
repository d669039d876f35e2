package aws

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
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

	client  *http.Client
	command *exec.Cmd
	key     *rsa.PrivateKey
}

func startDouble(binary string) (*double, error) {
	dir, err := os.MkdirTemp("", "postern-aws-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is a file of addresses
	ready := filepath.Join(dir, "ready.json")
	command := exec.Command(binary, "--ready-file", ready, "--pod-identity6", loopback6())
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when a test times out
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	d := &double{client: &http.Client{Timeout: time.Minute}, command: command, key: key}
	if err := d.await(ready); err != nil {
		_ = command.Process.Kill()
		_ = command.Wait()
		return nil, err
	}
	return d, d.apply(map[string]any{
		"issuers": []any{map[string]any{
			"url": issuer, "audiences": []string{audienceSTS}, "podIdentity": true, "jwks": d.keys(),
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

// await waits for the addresses.
func (d *double) await(file string) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, d) == nil {
			return nil
		}
		<-time.After(20 * time.Millisecond) // it cannot be waited for otherwise
	}
	return fmt.Errorf("%s does not get ready", d.command.Path)
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
	_ = d.command.Process.Kill()
	_ = d.command.Wait()
	d.client.CloseIdleConnections()
	return err
}

func (d *double) apply(document map[string]any) error {
	return d.control(http.MethodPost, "/apply", document, nil)
}

func (d *double) control(method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if in == nil {
		body = nil
	}
	req, err := http.NewRequestWithContext(context.Background(), method, d.Control+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s (%w)", method, path, resp.Status, data, err)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// keys are the issuer's, as a JSON Web Key Set.
func (d *double) keys() map[string]any {
	return map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig",
		"n": base64URL(d.key.N.Bytes()), "e": base64URL(big.NewInt(int64(d.key.E)).Bytes()),
	}}}
}

// jwt signs claims as Kubernetes does.
func (d *double) jwt(t *testing.T, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed := base64URL([]byte(`{"alg":"RS256","kid":"1"}`)) + "." + base64URL(payload)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, d.key, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64URL(signature)
}

func base64URL(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

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
