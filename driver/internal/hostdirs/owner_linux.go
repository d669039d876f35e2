package hostdirs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const modeBits = fs.ModePerm | fs.ModeSetgid | fs.ModeSetuid | fs.ModeSticky

// ensure makes dir belong to uid and gid with exactly mode.
func ensure(dir string, uid, gid int, mode fs.FileMode) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // parents are only passed through; dir itself gets its mode below
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at directory %s: %w", dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory: remove it", dir)
	}
	if owner, group := ownerOf(info); owner != uid || group != gid {
		if err := os.Lchown(dir, uid, gid); err != nil {
			return fmt.Errorf("give directory %s to uid %d: %w", dir, uid, err)
		}
		info = nil // chown clears the setgid bit
	}
	if info == nil || info.Mode()&modeBits != mode {
		if err := os.Chmod(dir, mode); err != nil {
			return fmt.Errorf("set mode of directory %s: %w", dir, err)
		}
	}
	return nil
}

// openTo gives path to group gid with the given bits more. A path that is gone
// is no failure, and a symbolic link is left alone.
func openTo(path string, gid int, bits fs.FileMode) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if kind := stat.Mode & unix.S_IFMT; kind != unix.S_IFSOCK && kind != unix.S_IFDIR {
		return nil
	}
	if int(stat.Gid) == gid && stat.Mode&uint32(bits) == uint32(bits) {
		return nil
	}
	if err := unix.Fchownat(fd, "", -1, gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("give %s to group %d: %w", path, gid, err)
	}
	// fchmodat has no AT_EMPTY_PATH before Linux 6.6; the descriptor's own path
	// names the same file.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), stat.Mode&0o7777|uint32(bits)); err != nil {
		return fmt.Errorf("set mode of %s: %w", path, err)
	}
	return nil
}

func ownerOf(info fs.FileInfo) (uid, gid int) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, -1
	}
	return int(stat.Uid), int(stat.Gid)
}
