package e2e_test

import (
	"strings"
	"testing"

	"github.com/postern-dev/postern/test/harness"
)

// On a node that starts, pods come in any order, and kubelet makes the
// directories of those that come before the driver: gateway and providers wait
// until the driver has given them theirs, and none has to be started again.
func TestDriverStartsLast(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(c *harness.Config) { c.DriverLast = true })
	n.checkMounts(t, "driver last")
	for _, daemon := range n.Daemons() {
		if lines := strings.Count(daemon.Log(), harness.WaitsForDirectory); daemon != n.Driver && lines != 1 {
			t.Errorf("%s says %d times that it waits, want once", daemon.Name(), lines)
		}
	}
}
