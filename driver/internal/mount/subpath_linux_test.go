package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// podWithSubPaths makes the directories of a pod with a mounted volume called
// secrets, as kubelet does, and returns how to mount a part of a volume into a
// container by subPath.
func podWithSubPaths(t *testing.T, root string) (bind func(from, volume, container string, index int)) {
	t.Helper()
	pod := filepath.Join(root, "pods", "5e2a")
	volume := filepath.Join(pod, "volumes", "kubernetes.io~csi", "secrets", "mount")
	volumetest.MountTmpfs(t, volume, "")
	volumetest.WriteFile(t, filepath.Join(volume, "..1", "a"), "1", 0o644)
	volumetest.WriteFile(t, filepath.Join(volume, "..1", "d", "b"), "1", 0o644)
	return func(from, name, container string, index int) {
		t.Helper()
		at := filepath.Join(pod, "volume-subpaths", name, container, fmt.Sprint(index))
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			err = os.MkdirAll(at, 0o750)
		} else {
			volumetest.WriteFile(t, at, "", 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
}

func mustHaveSubPaths(t *testing.T, root string, want ...string) {
	t.Helper()
	got, err := SubPaths(root, "5e2a", "secrets")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("SubPaths: %v, (-want +got):\n%s", err, diff)
	}
}

func TestSubPaths(t *testing.T) {
	t.Parallel()
	root := volumetest.TempRoot(t)
	mustHaveSubPaths(t, root) // not even the pod is there
	bind := podWithSubPaths(t, root)
	pod := filepath.Join(root, "pods", "5e2a")
	volume := filepath.Join(pod, "volumes", "kubernetes.io~csi", "secrets", "mount")
	mustHaveSubPaths(t, root)

	// What was not mounted yet, or is of another volume.
	subPaths := filepath.Join(pod, "volume-subpaths")
	volumetest.WriteFile(t, filepath.Join(subPaths, "secrets", "starting", "0"), "", 0o640)
	config := filepath.Join(pod, "volumes", "kubernetes.io~configmap", "config", "c")
	volumetest.WriteFile(t, config, "1", 0o644)
	bind(config, "config", "web", 0)
	bind(filepath.Join(volume, "..1", "a"), "config", "web", 1)
	bind(config, "secrets", "mixed", 0)
	mustHaveSubPaths(t, root)

	bind(filepath.Join(volume, "..1", "a"), "secrets", "web", 0)
	bind(filepath.Join(volume, "..1", "a"), "secrets", "web", 3)
	bind(filepath.Join(volume, "..1", "d"), "secrets", "job", 1)
	mustHaveSubPaths(t, root, "job", "web")
	bind(filepath.Join(volume, "..1", "a"), "secrets", "mixed", 1)
	mustHaveSubPaths(t, root, "job", "mixed", "web")

	// A refresh takes away what was mounted; the mount stays.
	if err := os.RemoveAll(filepath.Join(volume, "..1")); err != nil {
		t.Fatal(err)
	}
	mustHaveSubPaths(t, root, "job", "mixed", "web")
	if err := unix.Unmount(filepath.Join(subPaths, "secrets", "job", "1"), 0); err != nil {
		t.Fatal(err)
	}
	mustHaveSubPaths(t, root, "mixed", "web")
	if err := unix.Unmount(volume, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	mustHaveSubPaths(t, root) // without the volume, the disk's files are no parts of it
}

func TestSubPaths_BadNames(t *testing.T) {
	t.Parallel()
	root := volumetest.TempRoot(t)
	for _, name := range []string{"", ".", "..", "a/b", "../a", "/a"} {
		if _, err := SubPaths(root, name, "secrets"); err == nil {
			t.Errorf("SubPaths of pod %q: no error", name)
		}
		if _, err := SubPaths(root, "5e2a", name); err == nil {
			t.Errorf("SubPaths of volume %q: no error", name)
		}
	}
	if _, err := SubPaths(filepath.Join(root, "gone"), "5e2a", "secrets"); err == nil {
		t.Error("SubPaths without a kubelet root: no error")
	}
}
