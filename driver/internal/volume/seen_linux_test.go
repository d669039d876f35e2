package volume

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// A volume that was seen complete is seen as it is after whatever was done to it,
// by whomever.
func TestManager_StateAfterAChange(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(t *testing.T, m *Manager, target string)
		want   State
	}{
		"none": {func(*testing.T, *Manager, string) {}, Complete},
		"unmounted": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			must(t, unix.Unmount(target, 0))
		}, NotMounted},
		"unmounted while in use": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			held, err := os.Open(target)
			must(t, err)
			t.Cleanup(func() { _ = held.Close() })
			must(t, unix.Unmount(target, unix.MNT_DETACH))
		}, NotMounted},
		"another in its place": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			must(t, unix.Unmount(target, 0))
			volumetest.MountTmpfs(t, target, "")
		}, Incomplete},
		"hidden": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			volumetest.MountTmpfs(t, target, "")
		}, Incomplete},
		"hidden by a directory": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			must(t, unix.Mount(t.TempDir(), target, "", unix.MS_BIND, ""))
		}, Foreign},
		"hidden above": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			must(t, unix.Mount("tmpfs", filepath.Dir(target), "tmpfs", 0, ""))
		}, NotMounted},
		"revision hidden": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			must(t, unix.Mount("tmpfs", filepath.Join(target, "..data"), "tmpfs", 0, ""))
		}, Incomplete},
		"read-only": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			must(t, unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		}, Complete},
		"no data link": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			must(t, os.Remove(filepath.Join(target, "..data")))
		}, Incomplete},
		"data link astray": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			volumetest.Symlink(t, "..gone", filepath.Join(target, "..new"))
			must(t, os.Rename(filepath.Join(target, "..new"), filepath.Join(target, "..data")))
		}, Incomplete},
		"no top link": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			must(t, os.Remove(filepath.Join(target, "a")))
		}, Incomplete},
		"top link astray": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			must(t, os.Remove(filepath.Join(target, "a")))
			volumetest.Symlink(t, "elsewhere", filepath.Join(target, "a"))
		}, Incomplete},
		"no file in the revision": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			must(t, os.Remove(filepath.Join(target, "..data", "a")))
		}, Incomplete},
		"file in the revision without a link": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			volumetest.WriteFile(t, filepath.Join(target, "..data", "b"), "x", 0o644)
		}, Incomplete},
		"updated": {func(t *testing.T, m *Manager, target string) {
			t.Helper()
			mustUpdate(t, m, Spec{Target: target, Files: []File{volumetest.File("b", "2")}}, true)
		}, Complete},
		"unpublished and published": {func(t *testing.T, m *Manager, target string) {
			t.Helper()
			mustUnpublish(t, m, target)
			mustState(t, m, target, NotMounted)
			mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("b", "2")}})
		}, Complete},
		"moved away": {func(t *testing.T, _ *Manager, target string) {
			t.Helper()
			pod := filepath.Dir(filepath.Dir(target))
			must(t, os.Rename(pod, pod+"-moved"))
			must(t, os.MkdirAll(target, 0o750))
		}, NotMounted},
	} {
		for _, api := range apis {
			t.Run(name+" "+api.name, func(t *testing.T) {
				t.Parallel()
				m, target := api.manager(t)
				mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "1")}})
				if !api.fallback {
					mustBeRemembered(t, m, target)
				}
				tc.change(t, m, target)
				mustState(t, m, target, tc.want)
				mustState(t, m, target, tc.want)
			})
		}
	}
}

// A link in the target's place is no volume, even if it leads to one.
func TestManager_StateOfALink(t *testing.T) {
	t.Parallel()
	m, target := apis[0].manager(t)
	mustPublish(t, m, Spec{Target: target, Files: fiveFiles()})
	mustBeRemembered(t, m, target)
	elsewhere := filepath.Join(filepath.Dir(filepath.Dir(target)), "elsewhere")
	must(t, os.Rename(filepath.Dir(target), elsewhere))
	must(t, os.Mkdir(filepath.Dir(target), 0o750))
	volumetest.Symlink(t, filepath.Join(elsewhere, "mount"), target)
	for range 2 {
		if state, err := m.State(target); state == Complete || err == nil {
			t.Errorf("State: %v, %v", state, err)
		}
	}
}

// What has just changed is not remembered: the next change could look the same.
func TestManager_StateRemembersOnlyWhatIsSettled(t *testing.T) {
	t.Parallel()
	m, target := apis[0].manager(t)
	before := time.Now()
	mustPublish(t, m, Spec{Target: target, Files: fiveFiles()})
	mustState(t, m, target, Complete)
	if remembered(m, target) && time.Since(before) < settled {
		t.Error("remembered at once")
	}
	mustBeRemembered(t, m, target)
	before = time.Now()
	mustUpdate(t, m, Spec{Target: target, Files: fiveFiles()[:4]}, true)
	mustState(t, m, target, Complete)
	if remembered(m, target) && time.Since(before) < settled {
		t.Error("remembered at once after an update")
	}
}

// Only what kernels before 5.8 have is used where it is so wanted.
func TestManager_StateFallbackRemembersNothing(t *testing.T) {
	t.Parallel()
	m, root := newManager(t, Config{})
	target := targetIn(root)
	mustPublish(t, m, Spec{Target: target, Files: fiveFiles()})
	mustBeRemembered(t, m, target)
	fallback, _ := newManager(t, Config{Root: root, ForceFallback: true})
	mustState(t, fallback, target, Complete)
	if remembered(fallback, target) {
		t.Error("remembered by a number that old kernels do not tell")
	}
}

// What is remembered of a volume goes with it.
func TestManager_ForgetsWhatIsGone(t *testing.T) {
	t.Parallel()
	m, target := apis[0].manager(t)
	mustPublish(t, m, Spec{Target: target, Files: fiveFiles()})
	mustBeRemembered(t, m, target)
	mustUnpublish(t, m, target)
	if remembered(m, target) {
		t.Error("remembered after Unpublish")
	}
	mustPublish(t, m, Spec{Target: target, Files: fiveFiles()})
	mustBeRemembered(t, m, target)
	must(t, unix.Unmount(target, unix.MNT_DETACH))
	mustState(t, m, target, NotMounted)
	if remembered(m, target) {
		t.Error("remembered after the mount was lost")
	}
}

// mustBeRemembered waits until the volume is remembered: when it has not changed
// for a while, and is looked at.
func mustBeRemembered(tb testing.TB, m *Manager, target string) {
	tb.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(time.Minute)
	for {
		mustState(tb, m, target, Complete)
		if remembered(m, target) {
			return
		}
		select {
		case <-ticker.C:
		case <-limit:
			tb.Fatal("a volume that does not change is never remembered")
		}
	}
}

func remembered(m *Manager, target string) bool {
	m.seen.mu.Lock()
	defer m.seen.mu.Unlock()
	_, ok := m.seen.byTarget[target]
	return ok
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
