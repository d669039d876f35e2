package volumetest

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var revisionName = regexp.MustCompile(`^\.\.\d{4}(_\d\d){5}\.\d+$`)

// TempRoot returns a directory which is free of mounts when the test ends. It
// skips the test where nothing can be mounted.
func TempRoot(tb testing.TB) string {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("mounting needs root")
	}
	root, err := filepath.EvalSymlinks(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		for _, mount := range slices.Backward(Mounts(tb, root)) {
			if err := unix.Unmount(mount.Path, unix.MNT_DETACH); err != nil {
				tb.Errorf("unmount %s: %v", mount.Path, err)
			}
		}
	})
	return root
}

// Mount is a line of the mount table.
type Mount struct {
	Path    string
	Options []string // of the mount and of the file system
}

// Mounts returns what is mounted below root.
func Mounts(tb testing.TB, root string) []Mount {
	tb.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var entries []Mount
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if strings.HasPrefix(fields[4], root+"/") {
			options := strings.Split(fields[5]+","+fields[len(fields)-1], ",")
			entries = append(entries, Mount{fields[4], options})
		}
	}
	return entries
}

// Entry describes a file as "mode uid:gid contents", a directory with a slash
// for contents and a link with an arrow and where it leads.
func Entry(tb testing.TB, path string) string {
	tb.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		tb.Fatal(err)
	}
	what := "/"
	switch info.Mode().Type() {
	case fs.ModeDir:
	case fs.ModeSymlink:
		to, err := os.Readlink(path)
		if err != nil {
			tb.Fatal(err)
		}
		return "-> " + to
	default:
		contents, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		what = string(contents)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%04o %d:%d %s", stat.Mode&0o7777, stat.Uid, stat.Gid, what)
}

// Tree describes all that is in a directory. The name of a revision is replaced
// by "..rev", after a check of its form.
func Tree(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	found := map[string]string{}
	revision, err := os.Readlink(filepath.Join(dir, "..data"))
	if err == nil && !revisionName.MatchString(revision) {
		tb.Errorf("revision is called %q", revision)
	}
	rename := func(s string) string {
		if revision == "" {
			return s
		}
		return strings.ReplaceAll(s, revision, "..rev")
	}
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		found[rename(strings.TrimPrefix(path, dir))] = rename(Entry(tb, path))
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

// MustBe compares Tree with what is wanted.
func MustBe(tb testing.TB, dir string, want map[string]string) {
	tb.Helper()
	if diff := cmp.Diff(want, Tree(tb, dir)); diff != "" {
		tb.Fatalf("volume (-want +got):\n%s", diff)
	}
}

// MountTmpfs mounts a tmpfs as the upstream driver does.
func MountTmpfs(tb testing.TB, target, options string) {
	tb.Helper()
	if err := os.MkdirAll(target, 0o750); err != nil {
		tb.Fatal(err)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, options); err != nil {
		tb.Fatal(err)
	}
}

// WriteFile writes a file, whatever the umask, and the directories above it.
func WriteFile(tb testing.TB, path, contents string, mode fs.FileMode) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as other drivers make them
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		tb.Fatal(err)
	}
}

// Symlink makes a link.
func Symlink(tb testing.TB, to, path string) {
	tb.Helper()
	if err := os.Symlink(to, path); err != nil {
		tb.Fatal(err)
	}
}

// Inode tells whether a file was replaced, also by one of the same content.
func Inode(tb testing.TB, path string) uint64 {
	tb.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		tb.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// MountBroken mounts a file system whose server is gone.
func MountBroken(tb testing.TB, target string) {
	tb.Helper()
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		tb.Skipf("no FUSE: %v", err)
	}
	defer func() { _ = device.Close() }()
	if err := os.MkdirAll(target, 0o750); err != nil {
		tb.Fatal(err)
	}
	options := "fd=" + strconv.Itoa(int(device.Fd())) + ",rootmode=40000,user_id=0,group_id=0"
	if err := unix.Mount("broken", target, "fuse", 0, options); err != nil {
		tb.Skipf("no FUSE: %v", err)
	}
}
