package keyvault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// doubleEnv names the test double of Azure, test/cmd/postern-azure. It verifies each
// token, and refuses what Microsoft's own fakes do not know.
const doubleEnv = "POSTERN_TEST_AZURE"

const (
	tenant      = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	otherTenant = "00000000-1111-2222-3333-444444444444"
)

// double is the double as a client sees it: a proxy that ends TLS for production's
// own names.
type double struct {
	t       *testing.T
	control *http.Client
	vaults  *http.Client
	Proxy   string `json:"proxy"`
	Control string `json:"control"`
}

// startDouble runs one for the time of a test. At its end there must be nothing that
// broke the API's rules.
func startDouble(t *testing.T) *double {
	t.Helper()
	binary := os.Getenv(doubleEnv)
	if binary == "" {
		t.Fatalf("%s does not name the test double of Azure: run the tests with make unit/providers/azure, or build it: cd test && go build -o /tmp/postern-azure ./cmd/postern-azure", doubleEnv)
	}
	dir := t.TempDir()
	ready, ca := filepath.Join(dir, "ready.json"), filepath.Join(dir, "ca.pem")
	command := exec.Command(binary, "--ready-file", ready, "--ca-file", ca, "--imds", "off", "--nmi", "off", "--token-proxy", "off")
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when a test times out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	d := &double{t: t, control: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(func() {
		d.control.CloseIdleConnections()
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; {
		if data, err := os.ReadFile(ready); err == nil && json.Unmarshal(data, d) == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the test double does not get ready")
		}
		<-time.After(10 * time.Millisecond) // it cannot be waited for otherwise
	}
	d.vaults = d.clientBy(ca)
	t.Cleanup(func() {
		d.vaults.CloseIdleConnections()
		var found struct{ Violations []any }
		if d.call(http.MethodGet, "/violations", nil, &found); len(found.Violations) > 0 {
			t.Errorf("requests or answers that break the rules: %v", found.Violations)
		}
	})
	return d
}

// clientBy reaches vaults through the proxy, and trusts its authority alone.
func (d *double) clientBy(ca string) *http.Client {
	d.t.Helper()
	data, err := os.ReadFile(ca)
	if err != nil {
		d.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if block, _ := pem.Decode(data); block == nil || !roots.AppendCertsFromPEM(data) {
		d.t.Fatal("the double's authority has no certificate")
	}
	proxy, err := url.Parse(d.Proxy)
	if err != nil {
		d.t.Fatal(err)
	}
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

// of is the same double, for a part of the test.
func (d *double) of(t *testing.T) *double {
	t.Helper()
	one := *d
	one.t = t
	return &one
}

type document map[string]any

func (d *double) apply(doc document) {
	d.t.Helper()
	d.call(http.MethodPost, "/apply", doc, nil)
}

func (d *double) call(method, path string, in, out any) {
	d.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		d.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(context.Background(), method, d.Control+path, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := d.control.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		d.t.Fatalf("%s %s: %s: %s (%v)", method, path, resp.Status, data, err)
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			d.t.Fatal(err)
		}
	}
}

// accessToken is one of the double, for the tenant and resource that it was given for.
type accessToken struct{ tenant, text string }

func (a accessToken) GetToken(_ context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if opts.TenantID != a.tenant {
		return azcore.AccessToken{}, &otherTenantError{opts.TenantID}
	}
	return azcore.AccessToken{Token: a.text, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// as is a vault, as a client that it lets do some operations with anything but
// "forbidden".
func (d *double) as(vault, client string, lifetime time.Duration) Vault {
	d.t.Helper()
	var got struct{ AccessToken string }
	d.call(http.MethodPost, "/token", document{
		"tenant": tenant, "clientId": client, "resource": "https://vault.azure.net", "lifetime": lifetime.String(),
	}, &got)
	return Vault{URL: "https://" + vault + ".vault.azure.net/", Identity: got.AccessToken, Credential: accessToken{tenant, got.AccessToken}}
}

// requests counts those of vaults since the last call.
func (d *double) requests() string {
	d.t.Helper()
	var got struct {
		Requests []struct{ Service, Operation, Code string }
	}
	d.call(http.MethodGet, "/requests", nil, &got)
	d.call(http.MethodDelete, "/calls", nil, nil)
	counts := make(map[string]int)
	for _, r := range got.Requests {
		operation := r.Service + "/" + r.Operation
		if r.Code == "Unauthorized" {
			operation = r.Service + "/challenge"
		}
		counts[operation]++
	}
	var all []string
	for _, operation := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprint(operation, "=", counts[operation]))
	}
	return strings.Join(all, " ")
}

func (d *double) store() *Store {
	return New(Config{ClientOptions: azcore.ClientOptions{Transport: d.vaults}})
}
