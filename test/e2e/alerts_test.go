package e2e_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/openbao"
	"github.com/postern-dev/postern/test/prometheus"
	"github.com/postern-dev/postern/test/stack"
)

// A store that is away for a few intervals raises the alert that the chart
// installs, as a real Prometheus evaluates it; nothing happens to what is
// mounted. The alert ends by itself when the store is back.
func TestAlert_ContentOld(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, nil)
	secret := map[string]any{"username": "bob", "password": "p4ssw0rd"}
	bao := ownBao(t)
	seed(t, bao, namespace, secret)
	class(t, namespace, "app", vaultSpec(namespace, map[string]any{
		"vaultAddress": bao.Address, "rotationPollInterval": "2s",
	}))
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	metrics := n.watch(t, rulesAtOnce(t))
	what := fmt.Sprintf(`provider="vault", secret_provider_class="%s/app"`, namespace)
	n.wantAge(t, metrics, what, "<= 4")
	n.wantNoAlert(t, metrics, what)

	must(t, bao.Stop())
	stopped := time.Now()
	n.wantAlert(t, metrics, what, "warning")
	if waited := time.Since(stopped); waited < 2*time.Second {
		t.Errorf("the alert fired %s after the store went away: nothing was old then", waited)
	}
	n.wantAlert(t, metrics, what, "critical")
	n.wantFiles(t, v, map[string]string{"username": "bob", "password": "p4ssw0rd"})

	must(t, bao.Restart(t.Context()))
	secret["password"] = "changed"
	seed(t, bao, namespace, secret)
	n.wantNoAlert(t, metrics, what)
	n.wantAge(t, metrics, what, "<= 4")
	n.wantFiles(t, v, map[string]string{"username": "bob", "password": "changed"})
}

// The alert does not end because a node's daemons are restarted, when nobody
// knows any more how old the volumes are that are mounted: it fires again.
func TestAlert_ContentOldAfterRestart(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, nil)
	bao := ownBao(t)
	seed(t, bao, namespace, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, map[string]any{
		"vaultAddress": bao.Address, "rotationPollInterval": "2s",
	}))
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	must(t, bao.Stop())
	for _, daemon := range []*harness.Daemon{n.Driver, n.Gateway} {
		daemon.Kill()
		must(t, daemon.Restart(t.Context()))
	}
	n.Kubelet.Connect()
	metrics := n.watch(t, rulesAtOnce(t))
	must(t, n.Kubelet.Publish(t.Context(), v)) // as it does every minute
	n.wantAlert(t, metrics, fmt.Sprintf(`provider="vault", secret_provider_class="%s/app"`, namespace), "warning")
}

// ownBao starts an OpenBao for one test, which may stop it.
func ownBao(t *testing.T) *openbao.Server {
	t.Helper()
	program, err := servers.builder.Server(t.Context(), build.Bao())
	must(t, err)
	bao, err := openbao.Start(t.Context(), openbao.Config{Bao: program, Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, bao.Stop()) })
	return bao
}

// seed puts into an OpenBao what a tenant has in the one that tests share.
func seed(t *testing.T, bao *openbao.Server, namespace string, secret map[string]any) {
	t.Helper()
	ctx := t.Context()
	must(t, (&stack.Stack{API: servers.API, Bao: bao}).TrustTokens(ctx))
	must(t, bao.PutSecret(ctx, namespace+"/app", secret))
	must(t, bao.PutPolicy(ctx, namespace, fmt.Sprintf(`path "secret/data/%s/*" { capabilities = ["read"] }`, namespace)))
	must(t, bao.PutRole(ctx, openbao.Role{
		Name: namespace, Namespace: namespace, ServiceAccount: "web", Audience: "vault", Policies: []string{namespace},
	}))
}

// rulesAtOnce is a copy of the chart's rules whose alerts fire without waiting
// for minutes first. Their expressions are as they are.
func rulesAtOnce(t *testing.T) string {
	t.Helper()
	rules, err := prometheus.ReadRules(filepath.Join(servers.root, "charts/postern/files/rules.yaml"))
	must(t, err)
	for _, group := range rules.Groups {
		for i := range group.Rules {
			group.Rules[i].For = "1s"
		}
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	must(t, rules.Write(path))
	return path
}

// wantAge waits until the age of a class's content is known, and is so.
func (n *node) wantAge(t *testing.T, metrics *prometheus.Server, class, condition string) {
	t.Helper()
	eventually(t, "the content's age is "+condition, func() bool {
		samples, err := metrics.Query(t.Context(), `postern_driver_content_age_seconds{`+class+`} `+condition)
		must(t, err)
		return len(samples) == 1
	})
}

func (n *node) wantNoAlert(t *testing.T, metrics *prometheus.Server, class string) {
	t.Helper()
	eventually(t, "no alert PosternContentOld fires", func() bool {
		samples, err := metrics.Query(t.Context(), `ALERTS{alertname="PosternContentOld", alertstate="firing", `+class+`}`)
		must(t, err)
		return len(samples) == 0
	})
}

// wantAlert waits for the alert, with labels that tell which node it is about.
func (n *node) wantAlert(t *testing.T, metrics *prometheus.Server, class, severity string) {
	t.Helper()
	var samples []prometheus.Sample
	eventually(t, "the alert PosternContentOld fires: "+severity, func() (fires bool) {
		var err error
		samples, err = metrics.Query(t.Context(),
			`ALERTS{alertname="PosternContentOld", alertstate="firing", severity="`+severity+`", `+class+`}`)
		must(t, err)
		return len(samples) > 0
	})
	want := map[string]string{"namespace": "postern-system", "pod": "postern-driver-1", "provider": "vault"}
	for label, value := range want {
		if got := samples[0].Labels[label]; got != value {
			t.Errorf("the alert's label %s is %q, want %q: %v", label, got, value, samples[0].Labels)
		}
	}
}
