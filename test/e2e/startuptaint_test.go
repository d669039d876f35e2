package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/process"
)

// A node takes pods only when the gateway and the providers that they need
// answer, and the driver says so by removing the taint that the node came with:
// if it may, and that taint alone.
func TestStartupTaint(t *testing.T) {
	t.Parallel()
	const name, key = "tainted", "secrets-store.csi.k8s.io/agent-not-ready"
	nodes := servers.API.Client.CoreV1().Nodes()
	taints := []corev1.Taint{
		{Key: "theirs", Effect: corev1.TaintEffectNoExecute},
		{Key: key, Effect: corev1.TaintEffectNoSchedule},
	}
	_, err := nodes.Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Taints: taints},
	}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, nodes.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{})) })
	tainted := func() bool {
		t.Helper()
		node, err := nodes.Get(t.Context(), name, metav1.GetOptions{})
		must(t, err)
		has := func(key string) bool {
			return slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == key })
		}
		if !has("theirs") {
			t.Errorf("taints %v: the other one is gone", node.Spec.Taints)
		}
		return has(key)
	}
	program, err := servers.builder.Server(t.Context(), build.UpstreamProvider())
	must(t, err)
	n := startNode(t, func(c *harness.Config) {
		c.DriverArgs = append(c.DriverArgs, "--node-id", name, "--startup-taint-key", key, "--startup-taint-providers", "vault,upstream")
	})
	n.awaitLog(t, "the startup taint stays for now", "no instance serves of provider upstream")
	late, err := process.Start(process.Config{
		Name: "upstreamprovider", Path: program, Args: []string{n.Path("legacy/upstream.sock")}, LogFile: n.Path("log/upstreamprovider.log"),
	})
	must(t, err)
	t.Cleanup(func() { must(t, late.Stop(10*time.Second)) })

	n.awaitLog(t, "cannot remove the startup taint yet", "check the driver's ClusterRole")
	if !tainted() {
		t.Fatal("the taint is gone although the driver may not patch nodes")
	}
	allowNodePatch(t)
	n.awaitLog(t, "removed the startup taint", key)
	if tainted() {
		t.Error("the driver says that it removed the taint, which is still there")
	}
}

// allowNodePatch gives the driver, until the test ends, the right that it has
// only where a startup taint is configured.
func allowNodePatch(t *testing.T) {
	t.Helper()
	const role, namespace, account = "startup-taint", "kube-system", "secrets-store-csi-driver"
	must(t, servers.API.BindClusterRole(t.Context(), role, namespace, account, []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"patch"}},
	}))
	t.Cleanup(func() {
		bindings := servers.API.Client.RbacV1().ClusterRoleBindings()
		must(t, bindings.Delete(context.WithoutCancel(t.Context()), role+":"+namespace+":"+account, metav1.DeleteOptions{}))
	})
}

// awaitLog waits for a line of the driver's log that has all these texts.
func (n *node) awaitLog(t *testing.T, texts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, n.Driver.WaitFor(ctx, func(context.Context) error {
		for line := range strings.Lines(n.Driver.Log()) {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
				return nil
			}
		}
		return fmt.Errorf("no line has %q", texts)
	}))
}
