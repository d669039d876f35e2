package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	// cgroupTimeout is how long the kernel may take to empty the cgroups of
	// processes that were killed.
	cgroupTimeout = 30 * time.Second
)

// cgroupDirs returns name's directory in each hierarchy: one with cgroup v2, one
// per controller with v1.
func cgroupDirs(name string) ([]string, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &stat); err != nil {
		return nil, fmt.Errorf("look at %s: %w", cgroupRoot, err)
	}
	if stat.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{filepath.Join(cgroupRoot, name)}, nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, fmt.Errorf("list the cgroup hierarchies: %w", err)
	}
	var dirs []string
	for _, entry := range entries {
		if entry.IsDir() { // the rest are links, as cpu to cpu,cpuacct
			dirs = append(dirs, filepath.Join(cgroupRoot, entry.Name(), name))
		}
	}
	return dirs, nil
}

// MakeCgroups makes the cgroup in each hierarchy.
func MakeCgroups(name string) error {
	dirs, err := cgroupDirs(name)
	if err != nil {
		return err
	}
	return makeDirs(dirs...)
}

// RemoveCgroups removes the cgroup and those below it from each hierarchy. They
// outlive the namespaces. The processes in them have been killed.
func RemoveCgroups(ctx context.Context, name string) error {
	dirs, err := cgroupDirs(name)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := removeCgroup(ctx, dir); err != nil {
			return fmt.Errorf("remove a cgroup: %w", err)
		}
	}
	return nil
}

// removeCgroup removes a cgroup from the bottom up, and tries again while the
// kernel says that dying processes are in it.
func removeCgroup(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, cgroupTimeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := removeTree(dir)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) { // parents come before their children
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
	}
	return nil
}
