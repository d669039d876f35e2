package atomicdir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/atomicdir"
	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// directory is an empty one to write into.
type directory struct {
	path string
	root *os.Root
}

func newDir(t *testing.T) directory {
	t.Helper()
	path := volumetest.TempRoot(t)
	root, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return directory{path, root}
}

func (d directory) mustRefresh(t *testing.T, set *fileset.Set, wantChanged bool) {
	t.Helper()
	changed, err := atomicdir.Refresh(d.root, set, goOn)
	if err != nil || changed != wantChanged {
		t.Fatalf("Refresh: changed %v, %v; want changed %v", changed, err, wantChanged)
	}
}

func (d directory) mustBeComplete(t *testing.T, want bool) {
	t.Helper()
	if got, err := atomicdir.Complete(d.root); got != want || err != nil {
		t.Fatalf("Complete: %v, %v; want %v", got, err, want)
	}
}

func goOn(string) error { return nil }

func newSet(t *testing.T, gid *int64, files ...fileset.File) *fileset.Set {
	t.Helper()
	set, err := fileset.New(fileset.Spec{Files: files, GID: gid, MaxBytes: 1 << 20, MaxInodes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestFill(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	gid := int64(4242)
	var steps []string
	step := func(name string) error {
		steps = append(steps, name)
		return nil
	}
	set := newSet(t, &gid, fileset.File{Path: "a", Mode: 0o400, Contents: volumetest.Content("1")}, volumetest.File("d/e/b", "2"))
	if err := atomicdir.Fill(dir.root, set, step); err != nil {
		t.Fatal(err)
	}
	volumetest.MustBe(t, filepath.Join(dir.path, "..data")+"/", map[string]string{
		"": "0755 0:4242 /", "a": "0440 0:4242 1", "d": "0755 0:4242 /", "d/e": "0755 0:4242 /", "d/e/b": "0644 0:4242 2",
	})
	dir.mustBeComplete(t, true)
	dir.mustRefresh(t, set, false)
	want := []string{
		"create revision", "write file", "write file", "open revision to readers", "link name", "link name",
		"prepare swap", "swap revision",
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// A step that fails before the swap leaves what was there and nothing else; the
// next refresh puts right what a later one left.
func TestRefresh_FailsAtAnyStep(t *testing.T) {
	t.Parallel()
	failure := errors.New("injected")
	oldSet := newSet(t, nil, volumetest.File("a", "1"), volumetest.File("b", "1"), volumetest.File("d/c", "1"))
	set := newSet(t, nil, volumetest.File("a", "2"), volumetest.File("b/x", "2"), volumetest.File("z", "2"))
	for n, done := 0, false; !done; n++ {
		dir := newDir(t)
		dir.mustRefresh(t, oldSet, true)
		before := volumetest.Tree(t, dir.path)
		calls, swapped := 0, false
		_, err := atomicdir.Refresh(dir.root, set, func(name string) error {
			if calls++; calls > n {
				return failure
			}
			swapped = swapped || name == "swap revision"
			return nil
		})
		if done = calls <= n; done == (err != nil) || (err != nil && !errors.Is(err, failure)) {
			t.Errorf("step %d: Refresh: %v", n, err)
		}
		if !swapped {
			volumetest.MustBe(t, dir.path, before)
		}
		dir.mustBeComplete(t, true)
		if _, err := atomicdir.Refresh(dir.root, set, goOn); err != nil {
			t.Errorf("step %d: the next Refresh: %v", n, err)
		}
		volumetest.MustBe(t, dir.path, map[string]string{
			"": "0755 0:0 /", "/..data": "-> ..rev", "/..rev": "0755 0:0 /", "/..rev/a": "0644 0:0 2",
			"/..rev/b": "0755 0:0 /", "/..rev/b/x": "0644 0:0 2", "/..rev/z": "0644 0:0 2",
			"/a": "-> ..data/a", "/b": "-> ..data/b", "/z": "-> ..data/z",
		})
	}
}

// Somebody who writes there at the same time is found out.
func TestRefresh_Verifies(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	_, err := atomicdir.Refresh(dir.root, newSet(t, nil, volumetest.File("a", "1")), func(name string) error {
		if name == "verify volume" {
			volumetest.WriteFile(t, filepath.Join(dir.path, "..data", "a"), "2", 0o644)
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "what was read back is not what was written") {
		t.Errorf("Refresh: %v", err)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	base := []fileset.File{volumetest.File("a", "1"), volumetest.File("b", "2"), volumetest.File("d/c", "3")}
	gid := int64(99)
	for name, tc := range map[string]struct {
		files     []fileset.File
		gid       *int64
		unchanged bool
		want      map[string]string // what differs from base
	}{
		"same": {files: base, unchanged: true},
		"same in another order": {
			files: []fileset.File{base[2], base[0], base[1]}, unchanged: true,
		},
		"contents": {
			files: []fileset.File{volumetest.File("a", "x"), base[1], base[2]},
			want:  map[string]string{"/..rev/a": "0644 0:0 x"},
		},
		"longer contents": {
			files: []fileset.File{volumetest.File("a", strings.Repeat("x", 3*16<<10+1)), base[1], base[2]},
			want:  map[string]string{"/..rev/a": "0644 0:0 " + strings.Repeat("x", 3*16<<10+1)},
		},
		"mode": {
			files: []fileset.File{{Path: "a", Mode: 0o600, Contents: volumetest.Content("1")}, base[1], base[2]},
			want:  map[string]string{"/..rev/a": "0600 0:0 1"},
		},
		"group": {
			files: base, gid: &gid,
			want: map[string]string{
				"": "0755 0:99 /", "/..rev": "0755 0:99 /", "/..rev/d": "0755 0:99 /",
				"/..rev/a": "0644 0:99 1", "/..rev/b": "0644 0:99 2", "/..rev/d/c": "0644 0:99 3",
			},
		},
		"added": {
			files: append([]fileset.File{volumetest.File("e", "4"), volumetest.File("d/f/g", "5")}, base...),
			want: map[string]string{
				"/e": "-> ..data/e", "/..rev/e": "0644 0:0 4",
				"/..rev/d/f": "0755 0:0 /", "/..rev/d/f/g": "0644 0:0 5",
			},
		},
		"removed": {
			files: base[1:],
			want:  map[string]string{"/a": "", "/..rev/a": ""},
		},
		"removed directory": {
			files: base[:2],
			want:  map[string]string{"/d": "", "/..rev/d": "", "/..rev/d/c": ""},
		},
		"file becomes directory": {
			files: []fileset.File{volumetest.File("a/x", "1"), base[1], base[2]},
			want:  map[string]string{"/..rev/a": "0755 0:0 /", "/..rev/a/x": "0644 0:0 1"},
		},
		"directory becomes file": {
			files: []fileset.File{base[0], base[1], volumetest.File("d", "3")},
			want:  map[string]string{"/..rev/d": "0644 0:0 3", "/..rev/d/c": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			dir.mustRefresh(t, newSet(t, nil, base...), true)
			want := volumetest.Tree(t, dir.path)
			before := volumetest.Inode(t, filepath.Join(dir.path, "..data"))
			set := newSet(t, tc.gid, tc.files...)
			dir.mustRefresh(t, set, !tc.unchanged)
			if touched := volumetest.Inode(t, filepath.Join(dir.path, "..data")) != before; touched == tc.unchanged {
				t.Errorf("..data was replaced: %v", touched)
			}
			for path, what := range tc.want {
				if what == "" {
					delete(want, path)
				} else {
					want[path] = what
				}
			}
			volumetest.MustBe(t, dir.path, want)
			dir.mustBeComplete(t, true)
			dir.mustRefresh(t, set, false)
		})
	}
}

// What is not changed is not touched, down to the times of the directory, which
// the upstream driver and its users look at.
func TestRefresh_UnchangedTouchesNothing(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	set := newSet(t, nil, volumetest.File("a", "1"), volumetest.File("d/b", "2"))
	dir.mustRefresh(t, set, true)
	times := func() (all []unix.Timespec) {
		for path := range volumetest.Tree(t, dir.path) {
			var stat unix.Stat_t
			path = strings.Replace(path, "/..rev", "/..data", 1)
			if err := unix.Lstat(dir.path+path, &stat); err != nil {
				t.Fatal(err)
			}
			all = append(all, stat.Ctim)
		}
		return all
	}
	latest := func() (last int64) {
		for _, at := range times() {
			last = max(last, at.Nano())
		}
		return last
	}
	before := latest()
	dir.mustRefresh(t, set, false)
	if got := latest(); got != before {
		t.Error("an update that changes nothing changed an inode")
	}
}

// A provider of the old kind writes its files straight into the volume.
func TestRefresh_MigratesProviderWrittenFiles(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	volumetest.WriteFile(t, filepath.Join(dir.path, "a"), "old", 0o644)
	volumetest.WriteFile(t, filepath.Join(dir.path, "d", "b"), "old", 0o644)
	volumetest.WriteFile(t, filepath.Join(dir.path, "gone", "x"), "old", 0o644)
	volumetest.Symlink(t, "/etc/hostname", filepath.Join(dir.path, "l"))
	dir.mustBeComplete(t, false)
	dir.mustRefresh(t, newSet(t, nil,
		volumetest.File("a", "1"), volumetest.File("d/b", "2"), volumetest.File("l", "3"), volumetest.File("n", "4")), true)
	volumetest.MustBe(t, dir.path, map[string]string{
		"": "0755 0:0 /", "/..data": "-> ..rev", "/..rev": "0755 0:0 /",
		"/..rev/a": "0644 0:0 1", "/a": "-> ..data/a",
		"/..rev/d": "0755 0:0 /", "/..rev/d/b": "0644 0:0 2", "/d": "-> ..data/d",
		"/..rev/l": "0644 0:0 3", "/l": "-> ..data/l",
		"/..rev/n": "0644 0:0 4", "/n": "-> ..data/n",
	})
}
