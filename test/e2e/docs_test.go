package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/docs"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
)

// What the daemons show after a mount, a refresh, failures of both and an
// unpublish is what the document lists: all of it, and nothing else.
func TestWhatIsObservedIsDocumented(t *testing.T) {
	t.Parallel()
	policy := policyFile(t,
		"- {name: watched, action: audit, require: pod.name == 'nobody'}",
		"- {name: some-classes, require: secretProviderClass.name != 'forbidden'}")
	n := startNode(t, func(c *harness.Config) {
		c.DriverArgs = append(c.DriverArgs, "--rotation-poll-interval", "1s", "--sync-secret-namespaces", "*")
		c.GatewayArgs = append(c.GatewayArgs, "--policy-file", policy, "--max-calls=1", "--max-queued=1")
	})
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	class(t, namespace, "wrong", vaultSpec(namespace, map[string]any{"roleName": "nobody"}))
	v := pod(t, namespace, "web", "app")
	must(t, n.Kubelet.Publish(t.Context(), v))
	// One that stays, whose class asks for a Kubernetes Secret.
	openForSecrets(t, namespace)
	synced := vaultSpec(namespace, nil)
	synced["secretObjects"] = []any{map[string]any{"secretName": "app", "dataFrom": []any{map[string]any{}}}}
	class(t, namespace, "synced", synced)
	n.publish(t, pod(t, namespace, "synced", "synced"))
	n.eventuallyMetric(t, n.Driver, `rotation_reconcile_duration_sec_count{`)
	class(t, namespace, "app", vaultSpec(namespace, map[string]any{"roleName": "nobody"}))
	n.eventuallyMetric(t, n.Driver, `rotation_reconcile_error_total{`)
	if err := n.Kubelet.Publish(t.Context(), pod(t, namespace, "wrong", "wrong")); err == nil {
		t.Fatal("a mount with the wrong role succeeded")
	}
	// A provider that is not there is waited for.
	class(t, namespace, "nobody", map[string]any{"provider": "nobody", "parameters": map[string]any{"objects": "[]"}})
	short, cancelShort := context.WithTimeout(t.Context(), time.Second)
	defer cancelShort()
	if err := n.Kubelet.Publish(short, pod(t, namespace, "nobody", "nobody")); err == nil {
		t.Fatal("a mount without a provider succeeded")
	}
	class(t, namespace, "forbidden", vaultSpec(namespace, nil))
	if err := n.Kubelet.Publish(t.Context(), pod(t, namespace, "forbidden", "forbidden")); err == nil {
		t.Fatal("a mount that the policy forbids succeeded")
	}
	must(t, os.WriteFile(policy, []byte("rules: []\n"), 0o644))
	n.exhaustBudget(t, namespace)
	n.unpublish(t, v)

	documented, err := docs.Listed(servers.root, "Metrics")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// The release follows the unpublish.
	waitFor(t, ctx, func() string { return cmp.Diff(documented, n.metricNames(t)) })

	documented, err = docs.Listed(servers.root, "Traces")
	must(t, err)
	waitFor(t, ctx, func() string { return cmp.Diff(documented, n.spanNames()) })
}

// eventuallyMetric waits until a daemon shows a series that begins so.
func (n *node) eventuallyMetric(t *testing.T, of *harness.Daemon, series string) {
	t.Helper()
	eventually(t, "there is "+series, func() bool {
		metrics, err := of.Get(t.Context(), "/metrics")
		must(t, err)
		return strings.Contains(metrics, series)
	})
}

// policyFile writes rules where the gateway can read them, in a directory of
// their own as in a pod.
func policyFile(t *testing.T, rules ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern-policy-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "policy.yaml")
	must(t, os.WriteFile(path, []byte("rules:\n"+strings.Join(rules, "\n")+"\n"), 0o644))
	return path
}

// exhaustBudget has more calls at a time than the provider's budget allows: one
// is made, one waits for that, and others are refused.
func (n *node) exhaustBudget(t *testing.T, namespace string) {
	t.Helper()
	must(t, n.Providers["vault"].Signal(syscall.SIGSTOP))
	var pods sync.WaitGroup
	volumes := make([]kubelet.Volume, 4)
	for i := range volumes {
		name := fmt.Sprintf("budget-%d", i)
		class(t, namespace, name, vaultSpec(namespace, nil))
		volumes[i] = pod(t, namespace, name, name)
		pods.Go(func() { _ = n.Kubelet.Publish(t.Context(), volumes[i]) }) // two of them fail
	}
	n.eventuallyMetric(t, n.Gateway, "postern_gateway_budget_refused_total{")
	must(t, n.Providers["vault"].Signal(syscall.SIGCONT))
	pods.Wait()
	for _, v := range volumes {
		n.unpublish(t, v)
	}
}

// waitFor waits until a difference is gone, and shows it if it stays.
func waitFor(t *testing.T, ctx context.Context, difference func() string) { //nolint:revive // t first, as everywhere in tests
	t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		diff := difference()
		if diff == "" {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Errorf("%s does not list what the daemons show (-document +daemons):\n%s", docs.Observables, diff)
			return
		}
	}
}

// metricNames are the metrics of all daemons, but Go's and the process's own.
func (n *node) metricNames(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, daemon := range n.Daemons() {
		text, err := daemon.Get(t.Context(), "/metrics")
		must(t, err)
		for _, match := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(match[1], "go_") && !strings.HasPrefix(match[1], "process_") {
				names = append(names, match[1])
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (n *node) spanNames() []string {
	var names []string
	for _, span := range n.traces.Spans() {
		names = append(names, span.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
