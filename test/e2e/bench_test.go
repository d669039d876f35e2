package e2e_test

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/postern-dev/postern/test/harness"
)

// BenchmarkPublish is a mount as kubelet sees it, through real daemons as they
// are installed: driver, gateway and provider, with the SecretProviderClass
// read from a real API server and two objects of one secret read from a real
// OpenBao by a login that is kept. The allocations are those of the processes,
// for a publish with its unpublish.
func BenchmarkPublish(b *testing.B) {
	n := startNode(b, func(c *harness.Config) { c.LogLevel, c.Telemetry = "info", nil })
	namespace := tenant(b, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(b, namespace, "app", vaultSpec(namespace, nil))
	// Another volume of the identity keeps its login.
	first := pod(b, namespace, "first", "app")
	must(b, n.Kubelet.Publish(b.Context(), first))
	v := pod(b, namespace, "web", "app")
	driver, gateway := n.mallocs(b, n.Driver), n.mallocs(b, n.Gateway)
	for b.Loop() {
		must(b, n.Kubelet.Publish(b.Context(), v))
		b.StopTimer()
		must(b, n.Kubelet.Unpublish(b.Context(), v))
		b.StartTimer()
	}
	b.ReportMetric((n.mallocs(b, n.Driver)-driver)/float64(b.N), "driver-allocs/op")
	b.ReportMetric((n.mallocs(b, n.Gateway)-gateway)/float64(b.N), "gateway-allocs/op")
	must(b, n.Kubelet.Unpublish(b.Context(), first))
}

// mallocs is how many objects a daemon has allocated.
func (n *node) mallocs(b *testing.B, daemon *harness.Daemon) float64 {
	b.Helper()
	text, err := daemon.Get(b.Context(), "/metrics")
	must(b, err)
	match := regexp.MustCompile(`(?m)^go_memstats_mallocs_total (\S+)$`).FindStringSubmatch(text)
	if match == nil {
		b.Fatal("no go_memstats_mallocs_total")
	}
	count, err := strconv.ParseFloat(match[1], 64)
	must(b, err)
	return count
}
