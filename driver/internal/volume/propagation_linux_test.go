package volume

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// In a cluster kubelet's root is shared between the host and the driver's
// container, so that what the driver mounts is seen by kubelet and by the
// containers that start later, and goes when the driver unmounts it.
func TestManager_MountsPropagate(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			base := volumetest.TempRoot(t)
			host, driver := filepath.Join(base, "host"), filepath.Join(base, "driver")
			for _, dir := range []string{host, driver} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, err := range []error{
				unix.Mount(host, host, "", unix.MS_BIND, ""),
				unix.Mount("", host, "", unix.MS_SHARED, ""),
				unix.Mount(host, driver, "", unix.MS_BIND, ""),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			m, _ := newManager(t, Config{Root: driver, ForceFallback: api.fallback})
			mustPublish(t, m, Spec{Target: targetIn(driver), Files: oldFiles})
			if got := visible(t, targetIn(host)); !same(got, oldRevision) {
				t.Errorf("the host sees %v", got)
			}
			if mounts := volumetest.Mounts(t, base); len(mounts) != 4 {
				t.Errorf("mounts: %v", mounts)
			}
			mustUpdate(t, m, Spec{Target: targetIn(driver), Files: newFiles}, true)
			if got := visible(t, targetIn(host)); !same(got, newRevision) {
				t.Errorf("the host sees %v", got)
			}
			mustUnpublish(t, m, targetIn(driver))
			if mounts := volumetest.Mounts(t, base); len(mounts) != 2 {
				t.Errorf("mounts left: %v", mounts)
			}
		})
	}
}

// Two drivers that run at once, as during an upgrade, can both find a target
// not mounted. Each volume is complete, and one call takes both away.
func TestManager_TwoDrivers(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			other, err := New(Config{Root: m.cfg.Root, ForceFallback: m.cfg.ForceFallback})
			if err != nil {
				t.Fatal(err)
			}
			step := "move mount to target"
			if m.cfg.ForceFallback {
				step = "bind mount to target"
			}
			m.cfg.Observe = func(name string) {
				if name == step {
					mustPublish(t, other, Spec{Target: target, Files: oldFiles})
				}
			}
			mustPublish(t, m, Spec{Target: target, Files: newFiles})
			m.cfg.Observe = nil
			mustState(t, m, target, Complete)
			if got := visible(t, target); !same(got, newRevision) {
				t.Errorf("the volume holds %v", got)
			}
			if mounts := volumetest.Mounts(t, m.cfg.Root); len(mounts) != 2 {
				t.Errorf("mounts: %v", mounts)
			}
			mustUnpublish(t, m, target)
		})
	}
}
