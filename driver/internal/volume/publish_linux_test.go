package volume

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/mount"
	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

func TestManager_Publish(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			mustState(t, m, target, NotMounted)
			mustPublish(t, m, Spec{Target: target, Files: []File{
				{Path: "password", Mode: 0o400, Contents: volumetest.Content("hunter2")},
				{Path: "tls/server/key.pem", Mode: 0o777, Contents: volumetest.Content("key")},
				{Path: "tls/ca.pem", Mode: 0, Contents: volumetest.Content("")},
			}})
			volumetest.MustBe(t, target, map[string]string{
				"":                          "0755 0:0 /",
				"/..data":                   "-> ..rev",
				"/..rev":                    "0755 0:0 /",
				"/..rev/password":           "0400 0:0 hunter2",
				"/..rev/tls":                "0755 0:0 /",
				"/..rev/tls/ca.pem":         "0000 0:0 ",
				"/..rev/tls/server":         "0755 0:0 /",
				"/..rev/tls/server/key.pem": "0777 0:0 key",
				"/password":                 "-> ..data/password",
				"/tls":                      "-> ..data/tls",
			})
			mustState(t, m, target, Complete)
			mustUnpublish(t, m, target)
			mustState(t, m, target, NotMounted)
		})
	}
}

func TestManager_PublishWithGroup(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			gid := int64(4242)
			spec := Spec{Target: target, GID: &gid, Files: []File{
				{Path: "a", Mode: 0o400, Contents: volumetest.Content("1")},
				{Path: "d/b", Mode: 0, Contents: volumetest.Content("2")},
			}}
			mustPublish(t, m, spec)
			volumetest.MustBe(t, target, map[string]string{
				"":           "0755 0:4242 /",
				"/..data":    "-> ..rev",
				"/..rev":     "0755 0:4242 /",
				"/..rev/a":   "0440 0:4242 1",
				"/..rev/d":   "0755 0:4242 /",
				"/..rev/d/b": "0440 0:4242 2",
				"/a":         "-> ..data/a",
				"/d":         "-> ..data/d",
			})
			mustUpdate(t, m, spec, false)
		})
	}
}

// The kernel has SELinux or not; a label that it cannot give must fail the
// publish, and say why, rather than be forgotten.
func TestManager_PublishBadSELinuxLabel(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			spec := Spec{Target: target, Files: []File{volumetest.File("a", "1")}, SELinuxContext: "no:such:label:s0:c1,c2"}
			err := m.Publish(t.Context(), spec)
			if !errors.Is(err, mount.ErrSELinux) || !strings.Contains(err.Error(), `"no:such:label:s0:c1,c2"; is SELinux enabled on the node?`) {
				t.Fatalf("Publish: %v", err)
			}
			mustHaveNoMounts(t, m)
			if _, err := os.Lstat(target); !os.IsNotExist(err) {
				t.Errorf("the target is left: %v", err)
			}
			spec.SELinuxContext = ""
			mustPublish(t, m, spec)
		})
	}
}

func TestManager_PublishAgain(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "1")}})
			before := volumetest.Inode(t, filepath.Join(target, "..data"))
			mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "1")}})
			if volumetest.Inode(t, filepath.Join(target, "..data")) != before {
				t.Error("a publish of the same files wrote a revision")
			}
			mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "2")}})
			if got := volumetest.Entry(t, filepath.Join(target, "..data", "a")); got != "0644 0:0 2" {
				t.Errorf("after a publish of another content: %s", got)
			}
			mustUnpublish(t, m, target)
		})
	}
}

// The upstream driver can leave files in the directory itself.
func TestManager_PublishOverNonEmptyDirectory(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			volumetest.WriteFile(t, filepath.Join(target, "left", "over"), "x", 0o600)
			mustState(t, m, target, NotMounted)
			mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "1")}})
			if _, err := os.Lstat(filepath.Join(target, "left")); !os.IsNotExist(err) {
				t.Errorf("what is below the volume shows: %v", err)
			}
			mustUnpublish(t, m, target)
		})
	}
}

func TestManager_PublishIntoEmptyMount(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			volumetest.MountTmpfs(t, target, "")
			mustState(t, m, target, Incomplete)
			mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "1"), volumetest.File("d/b", "2")}})
			volumetest.MustBe(t, target, map[string]string{
				"":           "0755 0:0 /",
				"/..data":    "-> ..rev",
				"/..rev":     "0755 0:0 /",
				"/..rev/a":   "0644 0:0 1",
				"/..rev/d":   "0755 0:0 /",
				"/..rev/d/b": "0644 0:0 2",
				"/a":         "-> ..data/a",
				"/d":         "-> ..data/d",
			})
			if mounts := volumetest.Mounts(t, m.cfg.Root); len(mounts) != 1 {
				t.Errorf("mounts: %v", mounts)
			}
			mustUnpublish(t, m, target)
		})
	}
}

func TestManager_PublishRefusesForeignMount(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			disk := t.TempDir()
			volumetest.WriteFile(t, filepath.Join(disk, "precious"), "x", 0o600)
			if err := os.MkdirAll(target, 0o750); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount(disk, target, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			mustState(t, m, target, Foreign)
			spec := Spec{Target: target, Files: []File{volumetest.File("a", "1")}}
			if err := m.Publish(t.Context(), spec); !errors.Is(err, ErrForeignMount) {
				t.Errorf("Publish: %v", err)
			}
			if _, err := m.Update(t.Context(), spec); !errors.Is(err, ErrForeignMount) {
				t.Errorf("Update: %v", err)
			}
			mustUnpublish(t, m, target)
			if _, err := os.Stat(filepath.Join(disk, "precious")); err != nil {
				t.Errorf("Unpublish emptied a foreign file system: %v", err)
			}
		})
	}
}

func TestManager_BrokenMount(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			volumetest.MountBroken(t, target)
			if _, err := os.ReadDir(target); !errors.Is(err, unix.ENOTCONN) {
				t.Fatalf("the mount is not broken: %v", err)
			}
			mustState(t, m, target, Broken)
			spec := Spec{Target: target, Files: []File{volumetest.File("a", "1")}}
			if _, err := m.Update(t.Context(), spec); !errors.Is(err, ErrNotMounted) {
				t.Errorf("Update: %v", err)
			}
			mustPublish(t, m, spec)
			mustState(t, m, target, Complete)
			mustUnpublish(t, m, target)

			volumetest.MountBroken(t, target)
			mustUnpublish(t, m, target)
		})
	}
}

func TestManager_PublishTargetIsNoDirectory(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			volumetest.WriteFile(t, target, "x", 0o600)
			err := m.Publish(t.Context(), Spec{Target: target, Files: []File{volumetest.File("a", "1")}})
			if !errors.Is(err, unix.ENOTDIR) {
				t.Errorf("Publish over a file: %v", err)
			}
			mustUnpublish(t, m, target)

			elsewhere := t.TempDir()
			volumetest.Symlink(t, elsewhere, target)
			err = m.Publish(t.Context(), Spec{Target: target, Files: []File{volumetest.File("a", "1")}})
			if !errors.Is(err, unix.ENOTDIR) {
				t.Errorf("Publish over a link: %v", err)
			}
			mustUnpublish(t, m, target)
			if _, err := os.Stat(elsewhere); err != nil {
				t.Errorf("Unpublish followed a link: %v", err)
			}
		})
	}
}

// A link in the target's path must not lead out of the root.
func TestManager_TargetBehindLink(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, _ := api.manager(t)
			elsewhere := t.TempDir()
			volumetest.WriteFile(t, filepath.Join(elsewhere, "mount", "precious"), "x", 0o600)
			volumetest.Symlink(t, elsewhere, filepath.Join(m.cfg.Root, "out"))
			escaping := filepath.Join(m.cfg.Root, "out", "mount")
			if err := m.Publish(t.Context(), Spec{Target: escaping, Files: []File{volumetest.File("a", "1")}}); err == nil {
				t.Error("Publish followed a link out of the root")
			}
			if err := m.Unpublish(t.Context(), escaping); err == nil {
				t.Error("Unpublish followed a link out of the root")
			}
			if _, err := os.Stat(filepath.Join(elsewhere, "mount", "precious")); err != nil {
				t.Error(err)
			}

			// One that stays inside is fine: nodes have such roots.
			if err := os.MkdirAll(filepath.Join(m.cfg.Root, "disk", "p"), 0o755); err != nil {
				t.Fatal(err)
			}
			volumetest.Symlink(t, filepath.Join("disk", "p"), filepath.Join(m.cfg.Root, "in"))
			inside := filepath.Join(m.cfg.Root, "in", "mount")
			mustPublish(t, m, Spec{Target: inside, Files: []File{volumetest.File("a", "1")}})
			mustState(t, m, inside, Complete)
			mustUnpublish(t, m, inside)
		})
	}
}

// The limits of Config are those of the mount, with room for two revisions.
func TestManager_PublishMountOptions(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, root := newManager(t, Config{ForceFallback: api.fallback, Size: 1 << 20, Inodes: 500})
			gid := int64(7)
			mustPublish(t, m, Spec{Target: targetIn(root), GID: &gid, Files: []File{volumetest.File("a", "1")}})
			mounts := volumetest.Mounts(t, root)
			if len(mounts) != 1 || mounts[0].Path != targetIn(root) {
				t.Fatalf("mounts: %v", mounts)
			}
			for _, option := range []string{"size=2048k", "nr_inodes=500", "mode=755", "gid=7"} {
				if !slices.Contains(mounts[0].Options, option) {
					t.Errorf("%s is not among %v", option, mounts[0].Options)
				}
			}
		})
	}
}
