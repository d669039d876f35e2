package mount

import (
	"time"

	"golang.org/x/sys/unix"
)

// Stamp is a directory at one moment: which mount it is in, which directory of it
// it is, and when it last changed. Equal stamps are of one and the same directory
// in which no entry was added, removed or renamed between them, unless so shortly
// after Changed that the kernel's clock had not moved on. The zero value is none.
type Stamp struct {
	mount, device, inode uint64
	changed              unix.StatxTimestamp
}

// Changed is when an entry, the mode or the owner last changed.
func (s Stamp) Changed() time.Time { return time.Unix(s.changed.Sec, int64(s.changed.Nsec)) }

// StampOf returns the stamp of the directory at path, in one system call. There is
// none of what is no directory or a link, and on kernels before 5.8.
func StampOf(path string) (Stamp, bool) { return stampAt(unix.AT_FDCWD, path) }

// StampOf is like the function StampOf, for a path below the place.
func (p *Place) StampOf(path string) (Stamp, bool) { return stampAt(p.fd, path) }

func stampAt(dir int, path string) (Stamp, bool) {
	const (
		flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
		want  = unix.STATX_TYPE | unix.STATX_INO | unix.STATX_CTIME
		// Kernels from 6.8 on never give the unique number of a mount to
		// another, which older ones do with the plain number.
		mount = unix.STATX_MNT_ID | unix.STATX_MNT_ID_UNIQUE
	)
	var stat unix.Statx_t
	_, err := retry(func() (int, error) { return 0, unix.Statx(dir, path, flags, want|mount, &stat) })
	switch {
	case err != nil, stat.Mask&want != want, stat.Mask&mount == 0, stat.Mode&unix.S_IFMT != unix.S_IFDIR:
		return Stamp{}, false
	}
	return Stamp{
		mount: stat.Mnt_id, device: unix.Mkdev(stat.Dev_major, stat.Dev_minor), inode: stat.Ino, changed: stat.Ctime,
	}, true
}
