package gcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"

	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
)

// child is a program that reads a secret with Google's client as it comes.
func child(name string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	read := func() (string, error) {
		c, err := secretmanager.NewClient(ctx)
		if err != nil {
			return "", err
		}
		defer func() { _ = c.Close() }()
		got, err := c.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: name})
		return string(got.GetPayload().GetData()), err
	}
	value, err := read()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprint(os.Stdout, value)
	return 0
}

// Google's own client comes through the whole chain with three variables and a file
// of credentials: the token service, a service account, and the secret.
func TestProgramsNeedNoHook(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := start(t, gcp.Config{CAFile: filepath.Join(dir, "ca.pem")})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "hunter2")}})
	d.bind(t, "projects/-/serviceAccounts/"+app, "roles/iam.workloadIdentityUser", onpremUser)
	write := func(name, contents string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	credentials, err := json.Marshal(externalAccount(write("token", podToken(t, func(c *claims) { c.Audience = []string{onprem} }))))
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = []string{
		childVariable + "=" + db + "/versions/latest", "HTTPS_PROXY=" + d.server.Addresses.Proxy, "SSL_CERT_FILE=" + d.server.Addresses.CAFile,
		"NO_PROXY=127.0.0.1,localhost", "GOOGLE_APPLICATION_CREDENTIALS=" + write("credentials.json", string(credentials)), "HOME=" + dir,
	}
	out, err := cmd.Output()
	if err != nil || string(out) != "hunter2" {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("%v: %q, %+v", err, out, exit)
	}
	d.wantRequests(t, "sts token "+onprem, "iamcredentials generate-access-token "+app, "secretmanager access "+db+"/versions/latest")
}

func externalAccount(tokenFile string) map[string]any {
	return map[string]any{
		"type": "external_account", "audience": onprem, "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
		"token_url": "https://sts.googleapis.com/v1/token", "credential_source": map[string]string{"file": tokenFile},
		"service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/" + app + ":generateAccessToken",
		"universe_domain":                   "googleapis.com",
	}
}

func TestHostsThatAreNotThere(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	for _, host := range []string{
		"example.com", "storage.googleapis.com", "secretmanager.nowhere.rep.googleapis.com", "sts.europe-west1.rep.googleapis.com",
		"secretmanager.europe-west1.googleapis.com", "rep.googleapis.com", "secretmanager.googleapis.com.example.com",
	} {
		_, err := connect(t.Context(), strings.TrimPrefix(d.server.Addresses.Proxy, "http://"), host)
		if err == nil || !strings.Contains(err.Error(), "502") {
			t.Errorf("%s: %v", host, err)
		}
	}
	calls, err := d.Calls(t.Context())
	if err != nil || len(calls) != 7 || calls[0].Code != control.NameDoesNotResolve || calls[0].Service != control.Proxy {
		t.Errorf("%v: %+v", err, calls)
	}
}

func TestWhatTheProxyRefuses(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, gcp.Config{})
	if status, _ := d.send(t, http.MethodGet, d.server.Addresses.Proxy+"/", "", nil); status != http.StatusMethodNotAllowed {
		t.Errorf("status %d", status)
	}
	d.wantViolation(t, "not CONNECT to port 443: GET")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://sts.googleapis.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "iamcredentials.googleapis.com"
	resp, err := d.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("status %d", resp.StatusCode)
	}
	d.wantViolation(t, "asked for iamcredentials.googleapis.com")
	if status, _ := d.send(t, http.MethodGet, "https://secretmanager.googleapis.com/v1/"+db+"/versions/1:access", "", nil); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
	d.wantViolation(t, "no such method of secretmanager by gRPC")
}

func TestConnectionsThatEnd(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "x"), secret(westDB, "x")}})
	as := d.given(t, control.TokenRequest{Principal: app})
	c, west := d.secretsAt(t, globalHost, as), d.secretsAt(t, westHost, as)
	read := func() {
		t.Helper()
		if _, err := access(t, west, westDB+"/versions/1"); err != nil {
			t.Error(err)
		}
		// The connection may be gone when the request is sent on it.
		if _, err := access(t, c, db+"/versions/1"); err != nil {
			if _, err := access(t, c, db+"/versions/1"); err != nil {
				t.Error(err)
			}
		}
	}
	read()
	if n, err := d.CloseConnections(t.Context(), globalHost); err != nil || n != 1 {
		t.Errorf("%v, %d connections", err, n)
	}
	read()
	requests, err := d.Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]map[int]bool{globalHost: {}, westHost: {}}
	for _, r := range requests {
		numbers[r.Host][r.Connection] = true
	}
	if len(numbers[globalHost]) != 2 || len(numbers[westHost]) != 1 {
		t.Errorf("connections %v", numbers)
	}
}

// A connection that is frozen stays open, and says nothing: what is asked on it
// ends at its deadline.
func TestConnectionsThatFreeze(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "x")}})
	c := d.secrets(t)
	if _, err := access(t, c, db+"/versions/1"); err != nil {
		t.Fatal(err)
	}
	if n, err := d.FreezeConnections(t.Context(), ""); err != nil || n != 1 {
		t.Errorf("%v, %d connections", err, n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: db + "/versions/1"})
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) || err == nil {
		t.Errorf("%v", err)
	}
	d.wantRequests(t, "secretmanager access "+db+"/versions/1")
	if _, err := access(t, d.secrets(t), db+"/versions/1"); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}
