package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
)

const (
	gcpProject = "shop-prod"
	gcpPool    = gcpProject + ".svc.id.goog"
	gcpCluster = "https://container.googleapis.com/v1/projects/" + gcpProject + "/locations/europe-west1/clusters/one"
)

// googleCloud is a test double of Google Cloud in which the API server is the issuer of
// a GKE cluster.
type googleCloud struct {
	*gcp.Server

	client *control.Client
	caFile string
}

func startGoogle(t *testing.T) *googleCloud {
	t.Helper()
	keys, err := servers.API.Client.Discovery().RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(t.Context())
	must(t, err)
	caFile := filepath.Join(readableDir(t), "ca.pem")
	double, err := gcp.Start(t.Context(), gcp.Config{
		CAFile: caFile, Issuers: []control.Issuer{{URL: apiserver.Issuer, JWKS: keys}},
	})
	must(t, err)
	t.Cleanup(double.Close)
	c := &googleCloud{Server: double, client: control.NewClient(double.Addresses.Control), caFile: caFile}
	t.Cleanup(func() {
		violations, err := c.client.Violations(context.WithoutCancel(t.Context()))
		if err != nil || len(violations) > 0 {
			t.Errorf("requests that Google would not take: %v (%v)", violations, err)
		}
		c.client.Close()
	})
	c.apply(t, control.Document{Pools: []control.Pool{{
		Project: gcpProject, ID: gcpPool, Providers: []control.Provider{{ID: gcpCluster, Issuer: apiserver.Issuer}},
	}}})
	return c
}

func (c *googleCloud) apply(t *testing.T, d control.Document) {
	t.Helper()
	_, err := c.client.Apply(t.Context(), d)
	must(t, err)
}

// googleTenant is a namespace whose service account "web" impersonates a service
// account of Google's, which may read the project's secrets.
func (c *googleCloud) tenant(t *testing.T) (namespace string) {
	t.Helper()
	namespace = "gcp-" + strings.ToLower(strings.NewReplacer("_", "-", "/", "-").Replace(t.Name()))
	email := "app@" + gcpProject + ".iam.gserviceaccount.com"
	must(t, servers.API.EnsureServiceAccount(t.Context(), namespace, "web"))
	must(t, servers.API.Apply(t.Context(), fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: %s, annotations: {iam.gke.io/gcp-service-account: %s}}
`, namespace, email)))
	c.apply(t, control.Document{
		ServiceAccounts: []control.ServiceAccount{{Email: email}},
		Bindings: []control.Binding{
			{
				Resource: "projects/-/serviceAccounts/" + email, Role: "roles/iam.workloadIdentityUser",
				Members: []string{"serviceAccount:" + gcpPool + "[" + namespace + "/web]"},
			},
			{Resource: "projects/" + gcpProject, Role: "roles/secretmanager.secretAccessor", Members: []string{"serviceAccount:" + email}},
			{Resource: "projects/" + gcpProject, Role: "roles/secretmanager.viewer", Members: []string{"serviceAccount:" + email}},
		},
	})
	return namespace
}

func (c *googleCloud) secret(t *testing.T, name, value string) {
	t.Helper()
	c.apply(t, control.Document{Secrets: []control.Secret{{Name: "projects/" + gcpProject + "/secrets/" + name, Value: &value}}})
}

// calls counts the requests by service and operation.
func (c *googleCloud) calls(t *testing.T) map[string]int {
	t.Helper()
	all, err := c.client.Calls(t.Context())
	must(t, err)
	counts := map[string]int{}
	for _, call := range all {
		counts[call.Service+" "+call.Operation] += call.Count
	}
	return counts
}

// node starts a node with the Google Cloud provider, which reaches it by a proxy.
func (c *googleCloud) node(t *testing.T) *node {
	t.Helper()
	return startNode(t, func(cfg *harness.Config) {
		cfg.Providers = map[string][]string{"gcp": {"--project=" + gcpProject, "--cluster-name=one", "--cluster-location=europe-west1"}}
		cfg.ProviderEnv = []string{"HTTPS_PROXY=" + c.Addresses.Proxy, "SSL_CERT_FILE=" + c.caFile}
	})
}

// googlePod is a pod with the tokens that the Google Cloud provider asks for.
func googlePod(t *testing.T, namespace, name string) kubelet.Volume {
	t.Helper()
	created, err := servers.API.CreatePod(t.Context(), apiserver.Pod{
		Namespace: namespace, Name: name, ServiceAccount: "web", Node: "node-1", Volume: "secrets", SecretProviderClass: "app",
	})
	must(t, err)
	tokens, err := servers.API.Tokens(t.Context(), created, gcpPool)
	must(t, err)
	return kubelet.Volume{
		Namespace: namespace, Pod: name, UID: string(created.UID), ServiceAccount: "web",
		Name: "secrets", SecretProviderClass: "app", Tokens: tokens,
	}
}

// googleClass makes a class of secrets, by name.
func googleClass(t *testing.T, namespace string, secrets ...string) {
	t.Helper()
	var objects strings.Builder
	for _, name := range secrets {
		fmt.Fprintf(&objects, "- resourceName: projects/%s/secrets/%s/versions/latest\n  path: %s\n", gcpProject, name, name)
	}
	class(t, namespace, "app", map[string]any{"provider": "gcp", "parameters": map[string]any{
		"secrets": objects.String(), "rotationPollInterval": "1s",
	}})
}

// Twenty pods with five secrets, for as many refreshes as an hour of two minutes
// has: the whole node logs in once, reads each secret twice and asks for its
// version. The upstream provider makes 4,340 calls.
func TestGCP_Calls(t *testing.T) {
	t.Parallel()
	const replicas, secrets, refreshes = 20, 5, 30
	c := startGoogle(t)
	n := c.node(t)
	namespace := c.tenant(t)
	var names []string
	want := map[string]string{}
	for i := range secrets {
		name := fmt.Sprintf("s%d", i)
		c.secret(t, name, "canary-"+name)
		names, want[name] = append(names, name), "canary-"+name
	}
	googleClass(t, namespace, names...)
	var volumes []kubelet.Volume
	for i := range replicas {
		v := googlePod(t, namespace, fmt.Sprintf("web-%d", i))
		n.publish(t, v)
		volumes = append(volumes, v)
	}
	mounts := c.calls(t)
	within(t, 10*time.Minute, "there were as many refreshes as in an hour", func() bool {
		return c.calls(t)["secretmanager get-version"] >= refreshes*secrets
	})
	calls := c.calls(t)
	t.Logf("calls: %v, of which mounts took %v", calls, mounts)
	for operation, most := range map[string]int{"securetoken token": 2, "iamcredentials generate-access-token": 2} {
		if calls[operation] < 1 || calls[operation] > most {
			t.Errorf("%s: %d times, want at most %d", operation, calls[operation], most)
		}
	}
	if refreshed := calls["secretmanager access"] - mounts["secretmanager access"]; refreshed > 2*secrets {
		t.Errorf("refreshes have read %d times what has not changed, want each secret once", refreshed)
	}
	for _, v := range volumes {
		n.wantFiles(t, v, want)
	}
	c.secret(t, "s0", "canary-new")
	eventually(t, "all volumes hold what is new", func() bool {
		for _, v := range volumes {
			if n.read(t, v, "s0") != "canary-new" {
				return false
			}
		}
		return true
	})
}

// A pod whose tokens are another service account's, or that has none, is refused
// before Google is asked, though there is a token that would do.
func TestGCP_OthersTokens(t *testing.T) {
	t.Parallel()
	c := startGoogle(t)
	n := c.node(t)
	namespace := c.tenant(t)
	c.secret(t, "a", "canary-a")
	googleClass(t, namespace, "a")
	mine := googlePod(t, namespace, "web")
	n.publish(t, mine)
	n.wantFiles(t, mine, map[string]string{"a": "canary-a"})
	must(t, n.Kubelet.Unpublish(t.Context(), mine))
	calls := c.calls(t)
	stolen := googlePod(t, namespace, "thief")
	stolen.Tokens = mine.Tokens
	wantReason(t, n.Kubelet.Publish(t.Context(), stolen), "TOKEN_INVALID")
	none := googlePod(t, namespace, "none")
	none.Tokens = "{}"
	wantReason(t, n.Kubelet.Publish(t.Context(), none), "TOKEN_MISSING")
	if now := c.calls(t); !maps.Equal(calls, now) {
		t.Errorf("Google was asked: %v, then %v", calls, now)
	}
}
