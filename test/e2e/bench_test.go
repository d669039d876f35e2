package e2e_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

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

// BenchmarkRepublish is kubelet's round over a full node whose volumes are not
// due: 110 calls at once.
func BenchmarkRepublish(b *testing.B) {
	n := startNode(b, func(c *harness.Config) {
		c.LogLevel, c.Telemetry = "info", nil
		c.DriverArgs = append(c.DriverArgs, "--rotation-poll-interval", "1h")
	})
	namespace := tenant(b, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(b, namespace, "app", vaultSpec(namespace, nil))
	requests := make([]*csi.NodePublishVolumeRequest, fullNode)
	for i := range requests {
		v := pod(b, namespace, fmt.Sprint(i), "app")
		must(b, n.Kubelet.Publish(b.Context(), v))
		b.Cleanup(func() { must(b, n.Kubelet.Unpublish(context.WithoutCancel(b.Context()), v)) })
		requests[i] = n.Kubelet.Request(v)
	}
	allocations := n.mallocs(b, n.Driver)
	for b.Loop() {
		var calls sync.WaitGroup
		for _, request := range requests {
			calls.Go(func() {
				if _, err := n.Kubelet.NodePublishVolume(b.Context(), request); err != nil {
					b.Error(err)
				}
			})
		}
		calls.Wait()
	}
	b.ReportMetric((n.mallocs(b, n.Driver)-allocations)/float64(b.N*fullNode), "driver-allocs/call")
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
