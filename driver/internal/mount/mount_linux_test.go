package mount

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// apis are the ways to mount.
var apis = map[string]Config{"detached": {}, "fallback": {ForceFallback: true}}

// newMounter returns a Mounter and a directory for mounts.
func newMounter(t *testing.T, cfg Config) (m *Mounter, root string) {
	t.Helper()
	root = volumetest.TempRoot(t)
	cfg.StagingDir = filepath.Join(root, "staging")
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return New(cfg), root
}

// small is a volume with one file.
func small() Volume {
	return Volume{Size: 1 << 20, Inodes: 100, Mode: 0o750, GID: 7, Fill: func(root *os.Root) error {
		return root.WriteFile("a", []byte("1"), 0o600)
	}}
}

// at opens the target below root and makes its directory.
func at(t *testing.T, root string) (*Target, *Place) {
	t.Helper()
	target, err := OpenTarget(root, "target", true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Close() })
	if _, err := target.Mkdir(); err != nil {
		t.Fatal(err)
	}
	place, err := target.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = place.Close() })
	return target, place
}

func mountAt(t *testing.T, m *Mounter, root string, v Volume) error {
	t.Helper()
	_, place := at(t, root)
	return m.Mount(t.Context(), goOn, place, v)
}

func goOn(string) error { return nil }

// mustRemove also checks that nothing is left of the target.
func mustRemove(t *testing.T, m *Mounter, root string) {
	t.Helper()
	target, err := OpenTarget(root, "target", false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = target.Close() }()
	if err := m.Remove(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(root, "target")); !os.IsNotExist(err) {
		t.Errorf("Lstat of the target after Remove: %v", err)
	}
	mustHaveNoMounts(t, m, root)
}

func mustHaveNoMounts(t *testing.T, m *Mounter, root string) {
	t.Helper()
	if mounts := volumetest.Mounts(t, root); len(mounts) > 0 {
		t.Errorf("mounts left: %v", mounts)
	}
	if entries, err := os.ReadDir(m.cfg.StagingDir); len(entries) > 0 {
		t.Errorf("staging directory holds %v, %v", entries, err)
	}
}

func TestMounter_Mount(t *testing.T) {
	t.Parallel()
	for name, api := range apis {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, root := newMounter(t, api)
			if err := mountAt(t, m, root, small()); err != nil {
				t.Fatal(err)
			}
			volumetest.MustBe(t, filepath.Join(root, "target"), map[string]string{"": "0750 0:7 /", "/a": "0600 0:0 1"})
			mounts := volumetest.Mounts(t, root)
			if len(mounts) != 1 || mounts[0].Path != filepath.Join(root, "target") {
				t.Fatalf("mounts: %v", mounts)
			}
			want := []string{"rw", "nosuid", "nodev", "noexec", "size=1024k", "nr_inodes=100", "mode=750", "gid=7"}
			if !m.withoutNoswap.Load() {
				want = append(want, "noswap")
			}
			for _, option := range want {
				if !slices.Contains(mounts[0].Options, option) {
					t.Errorf("%s is not among %v", option, mounts[0].Options)
				}
			}
			mustRemove(t, m, root)
		})
	}
}

// An older kernel refuses the option noswap and nothing else. That is worth one
// warning.
func TestMounter_MountWithoutNoswap(t *testing.T) {
	t.Parallel()
	for name, api := range apis {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			api.Logger, api.noswap = slog.New(slog.NewTextHandler(&log, nil)), "no-such-option"
			m, root := newMounter(t, api)
			for range 2 {
				if err := mountAt(t, m, root, small()); err != nil {
					t.Fatal(err)
				}
				mounts := volumetest.Mounts(t, root)
				if len(mounts) != 1 || slices.Contains(mounts[0].Options, "noswap") || !slices.Contains(mounts[0].Options, "nosuid") {
					t.Errorf("mounts: %v", mounts)
				}
				mustRemove(t, m, root)
			}
			if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "has no noswap option") {
				t.Errorf("%d warnings: %s", n, log.String())
			}
		})
	}
}

// What cannot be mounted or filled leaves nothing behind.
func TestMounter_MountFails(t *testing.T) {
	t.Parallel()
	failure := errors.New("injected")
	for name, api := range apis {
		for what, tc := range map[string]struct {
			mutate func(*Volume)
			is     error
			text   string // of the detached mount: the kernel's own words
		}{
			"option": {func(v *Volume) { v.Inodes = -1 }, unix.EINVAL, "Bad value for 'nr_inodes'"},
			"label": {
				func(v *Volume) { v.SELinuxContext = "no:such:label:s0:c1,c2" }, ErrSELinux,
				`"no:such:label:s0:c1,c2"; is SELinux enabled on the node?`,
			},
			"fill": {func(v *Volume) { v.Fill = func(*os.Root) error { return failure } }, failure, "injected"},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				m, root := newMounter(t, api)
				v := small()
				tc.mutate(&v)
				err := mountAt(t, m, root, v)
				if !errors.Is(err, tc.is) || (!api.ForceFallback && !strings.Contains(err.Error(), tc.text)) {
					t.Errorf("Mount: %v, want %v and %q", err, tc.is, tc.text)
				}
				mustHaveNoMounts(t, m, root)
			})
		}
	}
}

// A kernel without fsopen(2), or a seccomp filter that forbids it, is found out
// once and remembered.
func TestMounter_FallsBack(t *testing.T) {
	t.Parallel()
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			m, root := newMounter(t, Config{})
			tries := 0
			step := func(name string) error {
				if name == stepOpenFS {
					tries++
					return errno
				}
				return nil
			}
			for range 2 {
				_, place := at(t, root)
				if err := m.Mount(t.Context(), step, place, small()); err != nil {
					t.Fatal(err)
				}
				mustRemove(t, m, root)
			}
			if tries != 1 {
				t.Errorf("fsopen was tried %d times", tries)
			}
		})
	}
}

// A mount that is swept before it is filled leaves the node's disk in its place,
// where no secret must be written.
func TestMounter_SweptBeforeFilling(t *testing.T) {
	t.Parallel()
	m, root := newMounter(t, Config{ForceFallback: true})
	unmounted, err := m.makeStage()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unmounted.Close() }()
	_, place := at(t, root)
	err = m.fillAndBind(goOn, stage{unmounted, place}, small())
	if err == nil || err.Error() != "verify staged volume: it is not mounted" {
		t.Errorf("fillAndBind: %v", err)
	}
	if err := unmounted.unstage(); err != nil {
		t.Errorf("something was written: %v", err)
	}
	mustHaveNoMounts(t, m, root)
}

// Another process that sweeps makes a mount fail; it must not bind the node's
// disk to the target.
func TestMounter_SweptWhileFilling(t *testing.T) {
	t.Parallel()
	m, root := newMounter(t, Config{ForceFallback: true})
	other := New(m.cfg)
	v := small()
	v.Fill = func(*os.Root) error { return other.Sweep(t.Context()) }
	if err := mountAt(t, m, root, v); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Mount: %v", err)
	}
	mustHaveNoMounts(t, m, root)
}

func TestMounter_StagingDirIsPrivate(t *testing.T) {
	t.Parallel()
	m, root := newMounter(t, Config{ForceFallback: true})
	if err := os.MkdirAll(m.cfg.StagingDir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := mountAt(t, m, root, small()); err != nil {
		t.Fatal(err)
	}
	if got := volumetest.Entry(t, m.cfg.StagingDir); got != "0700 0:0 /" {
		t.Errorf("staging directory: %s", got)
	}
}

func TestMounter_Sweep(t *testing.T) {
	t.Parallel()
	m, root := newMounter(t, Config{ForceFallback: true})
	if err := m.Sweep(t.Context()); err != nil {
		t.Fatalf("Sweep without a staging directory: %v", err)
	}
	// What remains after a kill between the bind and the clean-up, and before
	// and after the staging mount.
	target := filepath.Join(root, "target")
	volumetest.MountTmpfs(t, filepath.Join(m.cfg.StagingDir, "volume-1"), "")
	volumetest.WriteFile(t, filepath.Join(m.cfg.StagingDir, "volume-1", "..data"), "x", 0o600)
	if err := os.MkdirAll(target, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Join(m.cfg.StagingDir, "volume-1"), target, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	volumetest.MountTmpfs(t, filepath.Join(m.cfg.StagingDir, "volume-2"), "")
	volumetest.WriteFile(t, filepath.Join(m.cfg.StagingDir, "volume-3", "x"), "x", 0o600)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Sweep(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Sweep with a context that ended: %v", err)
	}
	if err := m.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(m.cfg.StagingDir); err != nil || len(entries) > 0 {
		t.Errorf("staging directory holds %v, %v", entries, err)
	}
	if _, err := os.Stat(filepath.Join(target, "..data")); err != nil {
		t.Errorf("Sweep emptied a volume that is in place: %v", err)
	}
	mustRemove(t, m, root)
}
