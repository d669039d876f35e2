package e2e_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/grafana"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/prometheus"
)

// Every query of the dashboard has data, as a real Prometheus has it of a node
// to which all happens that the dashboard shows.
func TestDashboard(t *testing.T) {
	t.Parallel()
	dashboard, err := grafana.Read(filepath.Join(servers.root, grafana.Path))
	must(t, err)
	p := newProvoker(t)
	metrics := p.watch(t, rulesAtOnce(t))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for round := 0; ; round++ {
		// A rate needs two scrapes between which something happened.
		p.provoke(t, round)
		empty := emptyPanels(t, metrics, dashboard)
		if len(empty) == 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("after %d rounds these have no data:\n%s", round+1, strings.Join(empty, "\n"))
		}
	}
}

// emptyPanels tells which queries of the dashboard, and of its variables, have
// no data.
func emptyPanels(t *testing.T, metrics *prometheus.Server, dashboard grafana.Dashboard) (empty []string) {
	t.Helper()
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expression := grafana.Expand(target.Expr, map[string]string{
				"node": "node-1|other", "provider": ".*", "__rate_interval": "1m",
			})
			if !hasData(t, metrics, expression) {
				empty = append(empty, fmt.Sprintf("  %s (%s): %s", panel.Title, target.RefID, expression))
			}
		}
	}
	for _, variable := range dashboard.Templating.List {
		if variable.Type != "query" {
			continue
		}
		// label_values(metric, label)
		metric, label, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(variable.Query.Query, "label_values("), ")"), ", ")
		if !ok || !hasData(t, metrics, fmt.Sprintf(`group by (%s) (%s{%[1]s!=""})`, label, metric)) {
			empty = append(empty, fmt.Sprintf("  the variable %s: %s", variable.Name, variable.Query.Query))
		}
	}
	return empty
}

// hasData tells whether there is a number: a quantile of nothing is none.
func hasData(t *testing.T, metrics *prometheus.Server, expression string) bool {
	t.Helper()
	samples, err := metrics.Query(t.Context(), expression)
	must(t, err)
	for _, sample := range samples {
		if !math.IsNaN(sample.Value) {
			return true
		}
	}
	return false
}

// crowdSize is how many pods come at once.
const crowdSize = 4

// provoker has everything happen on a node that can happen, again and again.
type provoker struct {
	*node

	namespace string
	store     *line
}

func newProvoker(t *testing.T) *provoker {
	t.Helper()
	policy := policyFile(t,
		"- {name: watched, action: audit, require: pod.name == 'nobody'}",
		"- {name: some-classes, require: secretProviderClass.name != 'forbidden'}")
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	p := &provoker{namespace: namespace, store: newLine(t)}
	p.node = startNode(t, func(c *harness.Config) {
		c.DriverArgs = append(c.DriverArgs, "--rotation-poll-interval", "1s", "--sync-secret-namespaces", namespace)
		c.GatewayArgs = append(c.GatewayArgs, "--policy-file", policy, "--max-calls=1", "--max-queued=1", "--call-timeout=5s")
	})
	openForSecrets(t, namespace)
	synced := vaultSpec(namespace, nil)
	synced["secretObjects"] = []any{map[string]any{
		"secretName": "app", "type": "Opaque", "data": []any{map[string]any{"objectName": "password", "key": "password"}},
	}}
	class(t, namespace, "synced", synced)
	class(t, namespace, "app", vaultSpec(namespace, nil))
	class(t, namespace, "wrong", vaultSpec(namespace, map[string]any{"roleName": "nobody"}))
	class(t, namespace, "forbidden", vaultSpec(namespace, nil))
	class(t, namespace, "nobody", map[string]any{"provider": "nobody", "parameters": map[string]any{"objects": "[]"}})
	for i := range crowdSize {
		class(t, namespace, fmt.Sprintf("crowd-%d", i), vaultSpec(namespace, nil))
	}
	p.store.class(t, namespace, "outage", map[string]any{"maxAge": "0", "maxStale": "1h"})
	for _, name := range []string{"app", "synced", "outage"} {
		v := pod(t, namespace, "lasting-"+name, name)
		p.publish(t, v)
	}
	p.store.set(true)
	return p
}

// provoke is one round: a secret changes, pods come and go, and some do not
// start for each of the reasons that there are.
func (p *provoker) provoke(t *testing.T, round int) {
	t.Helper()
	must(t, servers.Bao.PutSecret(t.Context(), p.namespace+"/app", map[string]any{
		"username": "bob", "password": fmt.Sprintf("password-%d", round),
	}))
	for _, name := range []string{"app", "synced", "outage", "wrong", "forbidden", "nobody"} {
		v := podOf(t, p.namespace, "web", fmt.Sprintf("%s-%d", name, round), name)
		p.try(t, v)
	}
	p.crowd(t, round)
}

// crowd has more calls of a provider at a time than its budget allows: one is
// made, one waits, and the others are refused.
func (p *provoker) crowd(t *testing.T, round int) {
	t.Helper()
	volumes := make([]kubelet.Volume, crowdSize)
	for i := range volumes {
		volumes[i] = podOf(t, p.namespace, "web", fmt.Sprintf("crowd-%d-%d", round, i), fmt.Sprintf("crowd-%d", i))
	}
	must(t, p.Providers["vault"].Signal(syscall.SIGSTOP))
	refused := make(chan error, crowdSize)
	var pods sync.WaitGroup
	for _, v := range volumes {
		pods.Go(func() {
			if err := p.Kubelet.Publish(t.Context(), v); err != nil {
				refused <- err
			}
		})
	}
	t.Logf("beyond the budget: %v", <-refused)
	must(t, p.Providers["vault"].Signal(syscall.SIGCONT))
	pods.Wait()
	for _, v := range volumes {
		p.leave(t, v)
	}
}

// try publishes a volume, or fails to, and takes it away.
func (p *provoker) try(t *testing.T, v kubelet.Volume) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_ = p.Kubelet.Publish(ctx, v) // most of them fail, each in its way
	p.leave(t, v)
}

// leave takes a pod away.
func (p *provoker) leave(t *testing.T, v kubelet.Volume) {
	t.Helper()
	p.unpublish(t, v)
	must(t, servers.API.DeletePod(t.Context(), v.Namespace, v.Pod))
}
