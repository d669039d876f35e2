package e2e_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
)

// minSteps is fewer than a publish has: what ends the loop early is a defect.
const minSteps = 10

// The driver kills itself before each step of a publish in turn. What kubelet
// finds is always nothing or all, and its next attempt gives all.
func TestKillDriverAtEachStep(t *testing.T) {
	t.Parallel()
	binaries, err := servers.builder.Daemons(t.Context(), build.FaultInjection)
	must(t, err)
	file := filepath.Join(t.TempDir(), "step")
	n := startNode(t, func(c *harness.Config) {
		c.Binaries = binaries
		c.DriverEnv = append(c.DriverEnv, "POSTERN_FAULT_FILE="+file)
	})
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	steps := 0
	for {
		v := pod(t, namespace, "web-"+strconv.Itoa(steps), "app")
		if !n.killAtStep(t, v, file, steps+1) {
			break
		}
		steps++
	}
	t.Logf("killed before each of %d steps", steps)
	if steps < minSteps {
		t.Errorf("%d steps, want at least %d", steps, minSteps)
	}
}

// killAtStep publishes while the driver is to kill itself before a step. It
// returns false if the publish has fewer.
func (n *node) killAtStep(t *testing.T, v kubelet.Volume, file string, step int) bool {
	t.Helper()
	want := map[string]string{"username": "bob", "password": "p4ssw0rd"}
	must(t, os.WriteFile(file, []byte(strconv.Itoa(step)), 0o600))
	answer := n.Kubelet.Publish(t.Context(), v)
	_, err := os.Stat(file)
	killed := errors.Is(err, fs.ErrNotExist)
	if !killed {
		must(t, answer)
		must(t, os.Remove(file))
		n.unpublish(t, v)
		return false
	}
	if answer == nil {
		t.Errorf("step %d: the driver answered OK and was killed before it", step)
	}
	n.wantCompleteOrNothing(t, v, want)
	must(t, n.Driver.Restart(t.Context()))
	n.publishUntilOK(t, v)
	n.wantFiles(t, v, want)
	mounts, err := kubelet.Mounts(n.Kubelet.Target(v))
	must(t, err)
	if len(mounts) != 1 {
		t.Errorf("step %d: %d mounts at the target, want 1", step, len(mounts))
	}
	n.unpublish(t, v)
	return true
}
