package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/openbao"
	"github.com/postern-dev/postern/test/otlp"
)

// node is a node under test, with where its traces arrive.
type node struct {
	*harness.Node

	traces *otlp.Receiver
	// store is the directory that its file provider serves.
	store string
}

// startNode starts a node with the Vault and the file provider. Its logs are
// shown if the test fails; that nothing remains of it is checked at the end.
func startNode(t testing.TB, configure ...func(*harness.Config)) *node {
	t.Helper()
	traces, err := otlp.Listen(t.Context())
	must(t, err)
	t.Cleanup(traces.Close)
	kubeconfig, err := servers.API.DriverKubeconfig(t.Context())
	must(t, err)
	store, err := os.MkdirTemp("", "postern-store-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(store)) })
	must(t, os.Chmod(store, 0o755))
	cfg := harness.Config{
		Binaries: servers.binaries,
		Providers: map[string][]string{
			"vault": {"--vault-addr", servers.Bao.Address},
			"file":  {"--root", store, "--max-file-bytes", "33554432"},
		},
		Kubeconfig: kubeconfig,
		Telemetry:  traces.Environment(),
		LogLevel:   "debug",
	}
	for _, change := range configure {
		change(&cfg)
	}
	started, err := harness.Start(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(started.Logs())
		}
		if err := started.Close(); err != nil {
			t.Error(err)
		}
	})
	return &node{Node: started, traces: traces, store: store}
}

// class writes a SecretProviderClass into a namespace.
func class(t testing.TB, namespace, name string, spec map[string]any) {
	t.Helper()
	manifest, err := yaml.Marshal(map[string]any{
		"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
		"metadata": map[string]any{"name": name, "namespace": namespace}, "spec": spec,
	})
	must(t, err)
	must(t, servers.API.Apply(t.Context(), string(manifest)))
}

// vaultSpec is a SecretProviderClass's spec for the Vault provider; role and
// objects of the namespace's tenant, unless parameters say otherwise.
func vaultSpec(namespace string, parameters map[string]any) map[string]any {
	merged := map[string]any{
		"roleName":     namespace,
		"vaultAddress": servers.Bao.Address,
		"objects": fmt.Sprintf(`
- objectName: username
  secretPath: secret/data/%[1]s/app
  secretKey: username
- objectName: password
  secretPath: secret/data/%[1]s/app
  secretKey: password
  filePermission: 0400
`, namespace),
	}
	maps.Copy(merged, parameters)
	return map[string]any{"provider": "vault", "parameters": merged}
}

// tenant makes a namespace whose service account "web" may read the secret
// secret/<namespace>/app in Vault.
func tenant(t testing.TB, data map[string]any) (namespace string) {
	t.Helper()
	ctx := t.Context()
	namespace = "t-" + strings.ToLower(strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name())), "-"))
	if len(namespace) > 50 {
		namespace = strings.Trim(namespace[:50], "-")
	}
	must(t, servers.API.EnsureServiceAccount(ctx, namespace, "web"))
	must(t, servers.Bao.PutSecret(ctx, namespace+"/app", data))
	must(t, servers.Bao.PutPolicy(ctx, namespace, fmt.Sprintf(`path "secret/data/%s/*" { capabilities = ["read"] }`, namespace)))
	must(t, servers.Bao.PutRole(ctx, openbao.Role{
		Name: namespace, Namespace: namespace, ServiceAccount: "web", Audience: "vault", Policies: []string{namespace},
	}))
	return namespace
}

// pod creates a pod of the service account "web" in the namespace that mounts
// the class, with its tokens, until the test ends.
func pod(t testing.TB, namespace, name, class string) kubelet.Volume {
	t.Helper()
	v := podOf(t, namespace, "web", name, class)
	t.Cleanup(func() { must(t, servers.API.DeletePod(context.WithoutCancel(t.Context()), namespace, name)) })
	return v
}

// podOf is pod, of another service account and without an end.
func podOf(t testing.TB, namespace, account, name, class string) kubelet.Volume {
	t.Helper()
	created, err := servers.API.CreatePod(t.Context(), apiserver.Pod{
		Namespace: namespace, Name: name, ServiceAccount: account, Node: "node-1", Volume: "secrets", SecretProviderClass: class,
	})
	must(t, err)
	tokens, err := servers.API.Tokens(t.Context(), created, "vault", "elsewhere")
	must(t, err)
	return kubelet.Volume{
		Namespace: namespace, Pod: name, UID: string(created.UID), ServiceAccount: account,
		Name: "secrets", SecretProviderClass: class, Tokens: tokens,
	}
}

// publish publishes and, at the test's end, unpublishes the volume.
func (n *node) publish(t *testing.T, v kubelet.Volume) {
	t.Helper()
	must(t, n.Kubelet.Publish(t.Context(), v))
	t.Cleanup(func() { n.unpublish(t, v) })
}

// unpublish takes the volume away and checks that nothing is left of it.
func (n *node) unpublish(t *testing.T, v kubelet.Volume) {
	t.Helper()
	if err := n.Kubelet.Unpublish(context.WithoutCancel(t.Context()), v); err != nil {
		t.Errorf("unpublish: %v", err)
	}
	n.wantNoMount(t, v)
	if _, err := os.Stat(n.Path("kubelet/pods", v.UID)); !os.IsNotExist(err) {
		t.Errorf("the pod's directory is still there (%v)", err)
	}
}

func (n *node) wantNoMount(t *testing.T, v kubelet.Volume) {
	t.Helper()
	mounts, err := kubelet.Mounts(n.Kubelet.Target(v))
	must(t, err)
	if len(mounts) != 0 {
		t.Errorf("mounted: %v, want nothing", mounts)
	}
}

// wantFiles checks the contents of a published volume.
func (n *node) wantFiles(t *testing.T, v kubelet.Volume, want map[string]string) {
	t.Helper()
	files, err := n.Kubelet.Files(v)
	must(t, err)
	got := map[string]string{}
	for name, file := range files {
		got[name] = file.Contents
	}
	if !maps.Equal(got, want) {
		t.Errorf("files %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

// storeFile writes a file that the node's file provider serves to a namespace.
func (n *node) storeFile(t *testing.T, namespace, name, contents string) {
	t.Helper()
	path := filepath.Join(n.store, namespace, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(contents), 0o644))
}

// trace waits for a complete trace that has spans of all these processes and
// is of the volume.
func (n *node) trace(t *testing.T, v kubelet.Volume, services ...string) otlp.Trace {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	trace, err := n.traces.Wait(ctx, func(trace otlp.Trace) bool {
		mine := slices.ContainsFunc(trace.Spans, func(s otlp.Span) bool { return s.Attributes["k8s.pod.uid"] == v.UID })
		for _, service := range services {
			if !slices.ContainsFunc(trace.Spans, func(s otlp.Span) bool { return s.Service == service }) {
				return false
			}
		}
		return mine
	})
	must(t, err)
	return trace
}

// podStatuses is the resource of SecretProviderClassPodStatuses.
func podStatuses() schema.GroupVersionResource {
	return schema.GroupVersionResource{
		Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasspodstatuses",
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openForSecrets lets the driver write Secrets in a namespace, as the chart
// does for those in its values.
func openForSecrets(t *testing.T, namespace string) {
	t.Helper()
	for _, manifest := range []string{`
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: secrets, namespace: %[1]s}
rules:
- {apiGroups: [""], resources: [secrets], verbs: [get, list, create, patch, delete]}
`, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: secrets, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: secrets}
subjects:
- {kind: ServiceAccount, namespace: kube-system, name: secrets-store-csi-driver}
`} {
		must(t, servers.API.Apply(t.Context(), fmt.Sprintf(manifest, namespace)))
	}
}
