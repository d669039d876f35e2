package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

func TestManager_UpdateNotMounted(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			spec := Spec{Target: target, Files: []File{volumetest.File("a", "1")}}
			for _, prepare := range []func() error{
				func() error { return nil },
				func() error { return os.MkdirAll(filepath.Dir(target), 0o750) },
				func() error { return os.Mkdir(target, 0o750) },
			} {
				if err := prepare(); err != nil {
					t.Fatal(err)
				}
				if changed, err := m.Update(t.Context(), spec); !errors.Is(err, ErrNotMounted) || changed {
					t.Errorf("Update: %v, %v", changed, err)
				}
			}
			if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
				t.Errorf("Update wrote without a mount: %v, %v", entries, err)
			}
		})
	}
}

// upstreamVolume makes a volume as the upstream driver leaves it.
func upstreamVolume(tb testing.TB, target string) {
	tb.Helper()
	volumetest.MountTmpfs(tb, target, "")
	const revision = "..2024_02_29_23_59_58.123456789"
	volumetest.WriteFile(tb, filepath.Join(target, revision, "a"), "1", 0o644)
	volumetest.WriteFile(tb, filepath.Join(target, revision, "d", "b"), "2", 0o400)
	volumetest.Symlink(tb, revision, filepath.Join(target, "..data"))
	volumetest.Symlink(tb, "..data/a", filepath.Join(target, "a"))
	volumetest.Symlink(tb, "..data/d", filepath.Join(target, "d"))
}

func TestManager_AdoptUpstreamVolume(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			upstreamVolume(t, target)
			mustState(t, m, target, Complete)
			if got := volumetest.Entry(t, target); got != "1777 0:0 /" {
				t.Fatalf("the upstream driver's volume is %s", got)
			}
			files := []File{volumetest.File("a", "1"), {Path: "d/b", Mode: 0o400, Contents: volumetest.Content("2")}}
			before := volumetest.Inode(t, filepath.Join(target, "..data"))
			mustUpdate(t, m, Spec{Target: target, Files: files}, false)
			if volumetest.Inode(t, filepath.Join(target, "..data")) != before {
				t.Error("the same files were written again")
			}
			if got := volumetest.Entry(t, target); got != "0755 0:0 /" {
				t.Errorf("everybody may write: %s", got)
			}
			mustUpdate(t, m, Spec{Target: target, Files: files[:1]}, true)
			volumetest.MustBe(t, target, map[string]string{
				"": "0755 0:0 /", "/..data": "-> ..rev", "/..rev": "0755 0:0 /",
				"/..rev/a": "0644 0:0 1", "/a": "-> ..data/a",
			})
			mustUnpublish(t, m, target)
		})
	}
}

// A full volume can be refreshed, since both revisions fit.
func TestManager_UpdateFullVolume(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			const limit = 64 * fileset.PageSize
			m.cfg.Size, m.cfg.Inodes = limit, 16
			for _, letter := range []string{"a", "b", "c"} {
				mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("x", strings.Repeat(letter, limit))}})
			}
			before := volumetest.Tree(t, target)
			_, err := m.Update(t.Context(), Spec{Target: target, Files: []File{volumetest.File("x", strings.Repeat("d", limit+1))}})
			if !errors.Is(err, fileset.ErrTooLarge) {
				t.Errorf("Update: %v", err)
			}
			volumetest.MustBe(t, target, before)
		})
	}
}

// A volume that was mounted with another limit can be too small.
func TestManager_UpdateNoSpace(t *testing.T) {
	t.Parallel()
	const pages = 8
	for name, tc := range map[string]struct {
		options string
		files   []File
	}{
		"pages":  {"size=32k", []File{volumetest.File("a", strings.Repeat("2", pages*fileset.PageSize)), volumetest.File("n", "")}},
		"inodes": {"nr_inodes=12", []File{volumetest.File("a", ""), volumetest.File("b", ""), volumetest.File("c", ""), volumetest.File("d", ""), volumetest.File("e", ""), volumetest.File("f", "")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, root := newManager(t, Config{})
			target := targetIn(root)
			volumetest.MountTmpfs(t, target, tc.options)
			spec := Spec{Target: target, Files: tc.files}
			empty := map[string]string{"": "0755 0:0 /"}
			if name == "pages" {
				mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "1"), volumetest.File("b", "1")}})
				empty = volumetest.Tree(t, target)
			} else {
				volumetest.WriteFile(t, filepath.Join(target, "legacy"), "1", 0o644)
				empty["/legacy"] = "0644 0:0 1"
			}
			err := m.Publish(t.Context(), spec)
			if !errors.Is(err, fileset.ErrTooLarge) || !errors.Is(err, unix.ENOSPC) ||
				!strings.Contains(err.Error(), "raise the driver's --volume-size") {
				t.Fatalf("Publish: %v", err)
			}
			volumetest.MustBe(t, target, empty)
		})
	}
}

func TestManager_UpdateRefusesNoFiles(t *testing.T) {
	t.Parallel()
	m, root := newManager(t, Config{})
	target := targetIn(root)
	mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "1")}})
	before := volumetest.Tree(t, target)
	if _, err := m.Update(t.Context(), Spec{Target: target}); !errors.Is(err, fileset.ErrNoFiles) {
		t.Errorf("Update: %v", err)
	}
	volumetest.MustBe(t, target, before)
}

// A read-only volume refuses the write; the error must come through.
func TestManager_UpdateReadOnlyMount(t *testing.T) {
	t.Parallel()
	m, root := newManager(t, Config{})
	target := targetIn(root)
	mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "1")}})
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	mustUpdate(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "1")}}, false)
	if _, err := m.Update(t.Context(), Spec{Target: target, Files: []File{volumetest.File("a", "2")}}); !errors.Is(err, unix.EROFS) {
		t.Errorf("Update: %v", err)
	}
	if err := m.Unpublish(t.Context(), target); err != nil {
		t.Errorf("Unpublish: %v", err)
	}
}
