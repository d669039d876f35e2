package mount

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// Mounts on one another come from drivers that do not look.
func TestMounter_RemoveStacked(t *testing.T) {
	t.Parallel()
	for name, api := range apis {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, root := newMounter(t, api)
			if err := mountAt(t, m, root, small()); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				volumetest.MountTmpfs(t, filepath.Join(root, "target"), "")
			}
			mustRemove(t, m, root)
		})
	}
}

// Files in the directory below are removed, but not through a mount.
func TestMounter_RemoveNestedMount(t *testing.T) {
	t.Parallel()
	for name, api := range apis {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, root := newMounter(t, api)
			target := filepath.Join(root, "target")
			disk := t.TempDir()
			volumetest.WriteFile(t, filepath.Join(disk, "precious"), "x", 0o600)
			nested := filepath.Join(target, "sub", "disk")
			volumetest.WriteFile(t, filepath.Join(target, "left"), "x", 0o600)
			if err := os.MkdirAll(nested, 0o750); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount(disk, nested, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			mustRemove(t, m, root)
			if _, err := os.Stat(filepath.Join(disk, "precious")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMounter_Kind(t *testing.T) {
	t.Parallel()
	for name, api := range apis {
		for what, tc := range map[string]struct {
			prepare func(t *testing.T, target string)
			want    Kind
		}{
			"directory": {func(*testing.T, string) {}, None},
			"tmpfs":     {func(t *testing.T, target string) { t.Helper(); volumetest.MountTmpfs(t, target, "") }, Tmpfs},
			"broken":    {func(t *testing.T, target string) { t.Helper(); volumetest.MountBroken(t, target) }, Broken},
			"foreign": {func(t *testing.T, target string) {
				t.Helper()
				if err := unix.Mount("proc", target, "proc", 0, ""); err != nil {
					t.Fatal(err)
				}
			}, Foreign},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				m, root := newMounter(t, api)
				target, _ := at(t, root)
				tc.prepare(t, filepath.Join(root, "target"))
				place, err := target.Open()
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = place.Close() }()
				if got, err := m.Kind(place); got != tc.want || err != nil {
					t.Errorf("Kind: %v, %v; want %v", got, err, tc.want)
				}
			})
		}
	}
}

func TestOpenTarget(t *testing.T) {
	t.Parallel()
	root, elsewhere := volumetest.TempRoot(t), t.TempDir()
	if _, err := OpenTarget(root, "a/b/target", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenTarget of what does not exist: %v", err)
	}
	target, err := OpenTarget(root, "a/b/target", true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = target.Close() }()
	// The target stays where it is when somebody changes its path.
	if err := os.Rename(filepath.Join(root, "a"), filepath.Join(root, "moved")); err != nil {
		t.Fatal(err)
	}
	volumetest.Symlink(t, elsewhere, filepath.Join(root, "a"))
	if made, err := target.Mkdir(); !made || err != nil {
		t.Errorf("Mkdir: %v, %v", made, err)
	}
	if made, err := target.Mkdir(); made || err != nil {
		t.Errorf("second Mkdir: %v, %v", made, err)
	}
	if want := filepath.Join(root, "moved", "b", "target"); target.RealPath() != want {
		t.Errorf("RealPath: %s, want %s", target.RealPath(), want)
	}
	if _, err := OpenTarget(root, "a/target", true); err == nil {
		t.Error("OpenTarget followed a link out of the root")
	}
	for range 2 {
		if err := target.Rmdir(); err != nil {
			t.Error(err)
		}
	}
}
