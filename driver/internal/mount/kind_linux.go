package mount

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Kind is what kind of mount there is at a place.
type Kind int

// The kinds of mounts.
const (
	// None: it is a directory and not the root of a mount.
	None Kind = iota
	// Tmpfs: a tmpfs, whoever mounted it.
	Tmpfs
	// Foreign: another file system.
	Foreign
	// Broken: a mount that cannot be read.
	Broken
)

// Kind finds out what is mounted at a place.
func (m *Mounter) Kind(p *Place) (Kind, error) {
	mounted, err := m.isMountRoot(p)
	if err != nil || !mounted {
		return None, err
	}
	var stat unix.Statfs_t
	_, err = retry(func() (int, error) { return 0, unix.Fstatfs(p.fd, &stat) })
	switch {
	case isBroken(err):
		return Broken, nil
	case err != nil:
		return None, fmt.Errorf("examine file system: %w", err)
	case stat.Type != unix.TMPFS_MAGIC:
		return Foreign, nil
	}
	return Tmpfs, nil
}

// isBroken reports whether an error tells that a mount is there but its file
// system is not, as with a server that is gone.
func isBroken(err error) bool {
	for _, errno := range []syscall.Errno{
		unix.ENOTCONN, unix.ESTALE, unix.EIO, unix.EACCES, unix.EHOSTDOWN, unix.ENODEV, unix.ECONNABORTED,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// isMountRoot reports whether the place is the root of a mount. Kernels from
// 5.8 on say so; on older ones the mount table is searched.
func (m *Mounter) isMountRoot(p *Place) (bool, error) {
	if !m.cfg.ForceFallback {
		var stat unix.Statx_t
		flags := unix.AT_EMPTY_PATH | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
		err := unix.Statx(p.fd, "", flags, unix.STATX_TYPE, &stat)
		if err == nil && stat.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			return stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
		}
	}
	path, err := os.Readlink(fdPath(p.fd))
	if err != nil {
		return false, fmt.Errorf("find real path: %w", err)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	if err != nil {
		return false, fmt.Errorf("read mount table: %w", err)
	}
	return len(mounts) > 0, nil
}
