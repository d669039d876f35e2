package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/azure"
	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
)

const (
	azureTenant   = "11111111-2222-3333-4444-555555555555"
	azureAudience = "api://AzureADTokenExchange"
)

// azureCloud is a test double of Azure whose Entra trusts the API server's tokens.
type azureCloud struct {
	*azure.Server

	client *control.Client
	caFile string
}

func startAzure(t *testing.T) *azureCloud {
	t.Helper()
	keys, err := servers.API.Client.Discovery().RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(t.Context())
	must(t, err)
	caFile := filepath.Join(readableDir(t), "ca.pem")
	double, err := azure.Start(t.Context(), azure.Config{
		CAFile: caFile, Issuers: []control.Issuer{{URL: apiserver.Issuer, JWKS: keys}},
	})
	must(t, err)
	t.Cleanup(double.Close)
	c := &azureCloud{Server: double, client: control.NewClient(double.Addresses.Control), caFile: caFile}
	t.Cleanup(func() {
		violations, err := c.client.Violations(context.WithoutCancel(t.Context()))
		if err != nil || len(violations) > 0 {
			t.Errorf("requests or answers are not as Azure's: %v (%v)", violations, err)
		}
		c.client.Close()
	})
	return c
}

// readableDir is a directory in which the provider, which has a user of its own, can
// read.
func readableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern-azure-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // what is left is a certificate
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// azureApp is a namespace whose service account "web" is annotated with an
// application that may read the secrets of a vault.
type azureApp struct {
	namespace, client, vault string
}

func (c *azureCloud) app(t *testing.T) azureApp {
	t.Helper()
	a := azureApp{
		namespace: "azure-" + strings.ToLower(strings.NewReplacer("_", "-", "/", "-").Replace(t.Name())),
		client:    "00000000-0000-4000-8000-000000000001", vault: "shop",
	}
	must(t, servers.API.EnsureServiceAccount(t.Context(), a.namespace, "web"))
	must(t, servers.API.Apply(t.Context(), fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: %s, annotations: {azure.workload.identity/client-id: %s}}
`, a.namespace, a.client)))
	c.apply(t, control.Document{
		Applications: []control.Application{{
			Tenant: azureTenant, ClientID: a.client,
			FederatedCredentials: []control.FederatedCredential{{
				Issuer: apiserver.Issuer, Subject: "system:serviceaccount:" + a.namespace + ":web",
			}},
		}},
		Vaults: []control.Vault{{
			Name: a.vault, Tenant: azureTenant,
			Grants: []control.Grant{{ClientID: a.client, Operations: []string{"secrets/get"}}},
		}},
	})
	return a
}

func (c *azureCloud) apply(t *testing.T, d control.Document) {
	t.Helper()
	_, err := c.client.Apply(t.Context(), d)
	must(t, err)
}

func (c *azureCloud) secret(t *testing.T, a azureApp, name, value string) {
	t.Helper()
	c.apply(t, control.Document{Secrets: []control.Secret{{Version: control.Version{Vault: a.vault, Name: name}, Value: &value}}})
}

// calls counts the requests by service and operation.
func (c *azureCloud) calls(t *testing.T) map[string]int {
	t.Helper()
	all, err := c.client.Calls(t.Context())
	must(t, err)
	counts := map[string]int{}
	for _, call := range all {
		operation := call.Service + " " + call.Operation
		if call.Code == control.ChallengeNotAnswered {
			operation = "challenge"
		}
		counts[operation] += call.Count
	}
	return counts
}

// node starts a node with the Azure provider, which reaches Azure by a proxy.
func (c *azureCloud) node(t *testing.T) *node {
	t.Helper()
	return startNode(t, func(cfg *harness.Config) {
		cfg.Providers = map[string][]string{"azure": {}}
		cfg.ProviderEnv = []string{"HTTPS_PROXY=" + c.Addresses.Proxy, "SSL_CERT_FILE=" + c.caFile}
	})
}

// azurePod is a pod with the tokens that the Azure provider asks for.
func azurePod(t *testing.T, namespace, name, class string) kubelet.Volume {
	t.Helper()
	created, err := servers.API.CreatePod(t.Context(), apiserver.Pod{
		Namespace: namespace, Name: name, ServiceAccount: "web", Node: "node-1", Volume: "secrets", SecretProviderClass: class,
	})
	must(t, err)
	tokens, err := servers.API.Tokens(t.Context(), created, azureAudience)
	must(t, err)
	return kubelet.Volume{
		Namespace: namespace, Pod: name, UID: string(created.UID), ServiceAccount: "web",
		Name: "secrets", SecretProviderClass: class, Tokens: tokens,
	}
}

// azureClass makes a class of secrets, by name.
func azureClass(t *testing.T, a azureApp, secrets ...string) {
	t.Helper()
	var objects strings.Builder
	objects.WriteString("array:\n")
	for _, name := range secrets {
		fmt.Fprintf(&objects, "- |\n  objectName: %s\n  objectType: secret\n", name)
	}
	class(t, a.namespace, "app", map[string]any{"provider": "azure", "parameters": map[string]any{
		"keyvaultName": a.vault, "tenantID": azureTenant, "objects": objects.String(), "rotationPollInterval": "1s",
	}})
}

// Twenty pods with five secrets, for as many refreshes as an hour of two minutes
// has: the whole node reads each secret once for each refresh, and logs in once. The
// upstream provider makes 5,580 calls.
func TestAzure_Calls(t *testing.T) {
	t.Parallel()
	const replicas, secrets, refreshes = 20, 5, 30
	c := startAzure(t)
	n := c.node(t)
	a := c.app(t)
	var names []string
	want := map[string]string{}
	for i := range secrets {
		name := fmt.Sprintf("s%d", i)
		c.secret(t, a, name, "canary-"+name)
		names, want[name] = append(names, name), "canary-"+name
	}
	azureClass(t, a, names...)
	var volumes []kubelet.Volume
	for i := range replicas {
		v := azurePod(t, a.namespace, fmt.Sprintf("web-%d", i), "app")
		n.publish(t, v)
		volumes = append(volumes, v)
	}
	// What the mounts took, and then what each refresh takes.
	mounts := c.calls(t)
	within(t, 10*time.Minute, "there were as many refreshes as in an hour", func() bool {
		return c.calls(t)["secrets get"]-mounts["secrets get"] >= refreshes*secrets
	})
	calls := c.calls(t)
	t.Logf("calls: %v, of which mounts took %v", calls, mounts)
	if calls["entra token"] < 1 || calls["entra token"] > 2 || calls["challenge"] > 2 {
		t.Errorf("%d logins and %d challenges, want one or two", calls["entra token"], calls["challenge"])
	}
	for _, v := range volumes {
		n.wantFiles(t, v, want)
	}
	c.secret(t, a, "s0", "canary-new")
	eventually(t, "all volumes hold what is new", func() bool {
		for _, v := range volumes {
			if n.read(t, v, "s0") != "canary-new" {
				return false
			}
		}
		return true
	})
}

// Entra judges the API server's tokens: whose they are has to be registered.
func TestAzure_Tokens(t *testing.T) {
	t.Parallel()
	c := startAzure(t)
	a := c.app(t)
	must(t, servers.API.EnsureServiceAccount(t.Context(), a.namespace, "other"))
	for name, tt := range map[string]struct {
		account, audience string
		spoil             func(token string) string
		code              string
	}{
		"the application's":       {account: "web", audience: azureAudience},
		"another service account": {account: "other", audience: azureAudience, code: "AADSTS700213"},
		"another audience":        {account: "web", audience: "vault", code: "AADSTS700212"},
		"another signature": {account: "web", audience: azureAudience, code: "AADSTS", spoil: func(token string) string {
			return token[:strings.LastIndexByte(token, '.')+1] + strings.Repeat("A", 342)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			status, err := servers.API.Client.CoreV1().ServiceAccounts(a.namespace).CreateToken(t.Context(), tt.account,
				&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{tt.audience}}}, metav1.CreateOptions{})
			must(t, err)
			token := status.Status.Token
			if tt.spoil != nil {
				token = tt.spoil(token)
			}
			code, body := c.exchange(t, a, token)
			if (code == http.StatusOK) != (tt.code == "") || tt.code != "" && !strings.Contains(body, tt.code) {
				t.Errorf("HTTP status %d; want %q", code, tt.code)
			}
		})
	}
}

// exchange asks Entra as its clients do, through the proxy.
func (c *azureCloud) exchange(t *testing.T, a azureApp, assertion string) (status int, body string) {
	t.Helper()
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {a.client}, "scope": {"https://vault.azure.net/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"https://login.microsoftonline.com/"+azureTenant+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.behindProxy(t).Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// behindProxy is a client that reaches Azure as the provider does.
func (c *azureCloud) behindProxy(t *testing.T) *http.Client {
	t.Helper()
	proxy, err := url.Parse(c.Addresses.Proxy)
	must(t, err)
	authority, err := os.ReadFile(c.caFile)
	must(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatal("the double's certificate cannot be read")
	}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// A pod whose tokens are another service account's, or that has none, is refused
// before Azure is asked, though there is a token of Entra that would do.
func TestAzure_OthersTokens(t *testing.T) {
	t.Parallel()
	c := startAzure(t)
	n := c.node(t)
	a := c.app(t)
	c.secret(t, a, "a", "canary-a")
	azureClass(t, a, "a")
	mine := azurePod(t, a.namespace, "web", "app")
	n.publish(t, mine)
	n.wantFiles(t, mine, map[string]string{"a": "canary-a"})
	must(t, n.Kubelet.Unpublish(t.Context(), mine))
	calls := c.calls(t)
	stolen := azurePod(t, a.namespace, "thief", "app")
	stolen.Tokens = mine.Tokens
	wantReason(t, n.Kubelet.Publish(t.Context(), stolen), "TOKEN_INVALID")
	none := azurePod(t, a.namespace, "none", "app")
	none.Tokens = "{}"
	wantReason(t, n.Kubelet.Publish(t.Context(), none), "TOKEN_MISSING")
	if now := c.calls(t); !maps.Equal(calls, now) {
		t.Errorf("Azure was asked: %v, then %v", calls, now)
	}
}
