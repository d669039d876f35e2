package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// SubPaths returns the names of a pod's containers that mount part of a CSI
// volume by subPath. Such a mount is of one file or directory as it was when the
// container started: it never shows what a refresh brings. Kubelet makes these
// mounts after the volume is published, and this process sees them if mounts
// propagate to it from the host. There are none of a volume that is not mounted.
func SubPaths(kubeletRoot, podUID, volumeName string) (containers []string, err error) {
	for _, name := range []string{podUID, volumeName} {
		if !filepath.IsLocal(name) || name == "." || strings.ContainsRune(name, filepath.Separator) {
			return nil, fmt.Errorf("find subPath mounts: %q is no name of a pod's directory", name)
		}
	}
	root, err := os.OpenRoot(kubeletRoot)
	if err != nil {
		return nil, fmt.Errorf("find subPath mounts: open kubelet root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	containers, err = subPaths(root, filepath.Join("pods", podUID), volumeName)
	if err != nil {
		return nil, fmt.Errorf("find subPath mounts: %w", err)
	}
	return containers, nil
}

func subPaths(root *os.Root, pod, volumeName string) (containers []string, err error) {
	volume, err := deviceOf(root, filepath.Join(pod, "volumes", "kubernetes.io~csi", volumeName, "mount"))
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	disk, err := deviceOf(root, pod)
	if err != nil || volume == disk {
		return nil, ignoreNotExist(err)
	}
	// Kubelet makes a directory for each container, and in it a file or
	// directory for each mount.
	dir := filepath.Join(pod, "volume-subpaths", volumeName)
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	for _, entry := range entries {
		mounted, err := anyOn(root, filepath.Join(dir, entry.Name()), volume)
		if err != nil {
			return nil, err
		}
		if mounted {
			containers = append(containers, entry.Name())
		}
	}
	return containers, nil
}

// anyOn reports whether something in dir, if that is still there, is on a device.
func anyOn(root *os.Root, dir string, device uint64) (bool, error) {
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return false, ignoreNotExist(err)
	}
	for _, entry := range entries {
		on, err := deviceOf(root, filepath.Join(dir, entry.Name()))
		if on == device || ignoreNotExist(err) != nil {
			return on == device, ignoreNotExist(err)
		}
	}
	return false, nil
}

// deviceOf returns the device that a file is on, which tells its file system.
func deviceOf(root *os.Root, path string) (uint64, error) {
	info, err := root.Lstat(path)
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("examine %s: no device number", path)
	}
	return stat.Dev, nil
}
