package mount

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// mustStamp returns the stamp of a directory, which is the same however it is
// reached.
func mustStamp(t *testing.T, path string) Stamp {
	t.Helper()
	stamp, ok := StampOf(path)
	if !ok {
		t.Fatalf("%s has no stamp", path)
	}
	target, err := OpenTarget(filepath.Dir(path), filepath.Base(path), false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = target.Close() }()
	place, err := target.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = place.Close() }()
	if got, ok := place.StampOf("."); !ok || got != stamp {
		t.Fatalf("the open place has stamp %+v, %v; the path %+v", got, ok, stamp)
	}
	return stamp
}

// mustChange repeats what changes a directory until its stamp is another: the
// first changes can fall into the same step of the kernel's clock.
func mustChange(t *testing.T, path string, change func() error) {
	t.Helper()
	before := mustStamp(t, path)
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	limit := time.After(30 * time.Second)
	for {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if after := mustStamp(t, path); after != before {
			if after.Changed().Before(before.Changed()) {
				t.Errorf("changed at %v, before that at %v", after.Changed(), before.Changed())
			}
			return
		}
		select {
		case <-ticker.C:
		case <-limit:
			t.Fatal("the stamp stays the same")
		}
	}
}

func TestStampOf(t *testing.T) {
	t.Parallel()
	root := volumetest.TempRoot(t)
	dir := filepath.Join(root, "target")
	volumetest.MountTmpfs(t, dir, "")
	file, link := filepath.Join(dir, "a"), filepath.Join(dir, "l")
	volumetest.WriteFile(t, file, "1", 0o644)
	volumetest.Symlink(t, "a", link)
	for name, change := range map[string]func() error{
		"rename": func() error {
			file, link = link, file
			return unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
		},
		"add": func() error {
			f, err := os.CreateTemp(dir, "")
			if err != nil {
				return err
			}
			return f.Close()
		},
		"replace a link": func() error {
			if err := os.Symlink("b", filepath.Join(dir, "tmp")); err != nil {
				return err
			}
			return os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "l"))
		},
	} {
		before := mustStamp(t, dir)
		if _, err := os.ReadDir(dir); err != nil {
			t.Fatal(err)
		}
		if again := mustStamp(t, dir); again != before {
			t.Errorf("before %s: looked at, the stamp changed from %+v to %+v", name, before, again)
		}
		mustChange(t, dir, change)
	}
	before := mustStamp(t, dir)
	volumetest.MountTmpfs(t, dir, "")
	if hidden := mustStamp(t, dir); hidden.mount == before.mount || hidden.device == before.device {
		t.Errorf("stamp %+v of what is hidden by %+v", before, hidden)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if after := mustStamp(t, dir); after != before {
		t.Errorf("stamp %+v of what was hidden, before that %+v", after, before)
	}
}

func TestStampOf_None(t *testing.T) {
	t.Parallel()
	root := volumetest.TempRoot(t)
	volumetest.WriteFile(t, filepath.Join(root, "file"), "", 0o644)
	volumetest.Symlink(t, ".", filepath.Join(root, "link"))
	for _, name := range []string{"file", "link", "gone", "file/x", "a\x00b"} {
		if stamp, ok := StampOf(filepath.Join(root, name)); ok || stamp != (Stamp{}) {
			t.Errorf("%q has stamp %+v", name, stamp)
		}
	}
	if _, ok := StampOf(filepath.Join(root, "link") + "/."); !ok {
		t.Error("a link that is followed leads to no stamp")
	}
}
