package e2e_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
)

// What the driver and the gateway may take together, in MiB. The upstream
// driver takes 38 idle and 50 with 110 volumes, which is a full node, and the
// two are to stay below that. How much of a program's text the kernel maps
// differs by a MiB or two from machine to machine and from run to run.
const (
	fullNode     = 110
	toleranceMiB = 2
	idleLimitMiB = 38 + toleranceMiB
	fullLimitMiB = 50 + toleranceMiB
	mebibyte     = 1 << 20

	// settleTimeout is longer than the interval at which the daemons give
	// memory back.
	settleTimeout = 75 * time.Second
)

func TestMemory(t *testing.T) { //nolint:paralleltest // others' calls would be measured too
	n := startNode(t, func(c *harness.Config) { c.LogLevel, c.Telemetry = "info", nil }) // as it is installed
	n.wantMemory(t, "idle", idleLimitMiB)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	volumes := make([]kubelet.Volume, fullNode)
	for i := range volumes {
		volumes[i] = pod(t, namespace, fmt.Sprintf("web-%d", i), "app")
	}
	var wait sync.WaitGroup
	for _, v := range volumes {
		wait.Go(func() {
			if err := n.Kubelet.Publish(t.Context(), v); err != nil {
				t.Errorf("publish %s: %v", v.Pod, err)
			}
		})
	}
	wait.Wait()
	n.wantMemory(t, fmt.Sprintf("with %d volumes", fullNode), fullLimitMiB)
	for _, v := range volumes {
		n.unpublish(t, v)
	}
}

// wantMemory waits until driver and gateway take no more than limit together:
// they give back what they do not need, but not at once.
func (n *node) wantMemory(t *testing.T, when string, limit int64) {
	t.Helper()
	sum, first := n.memory(t)
	ctx, cancel := context.WithTimeout(t.Context(), settleTimeout)
	defer cancel()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	last := first
	for sum > limit*mebibyte {
		select {
		case <-ticker.C:
			sum, last = n.memory(t)
			continue
		case <-ctx.Done():
		}
		t.Errorf("%s: driver and gateway take %.1f MiB together after %s, want at most %d", when, float64(sum)/mebibyte, settleTimeout, limit)
		break
	}
	t.Logf("%s: at first %s\nthen %s", when, first, last)
}

// memory returns what both take together, in bytes, and a line that says of what.
func (n *node) memory(t *testing.T) (sum int64, line string) {
	t.Helper()
	for _, daemon := range []*harness.Daemon{n.Driver, n.Gateway} {
		rss, err := daemon.RSS()
		must(t, err)
		status, err := daemon.Status()
		must(t, err)
		sum += rss
		line += fmt.Sprintf("%s %.1f MiB (heap and stacks %s, program %s); ",
			daemon.Name(), float64(rss)/mebibyte, status["RssAnon"], status["RssFile"])
	}
	return sum, line
}
