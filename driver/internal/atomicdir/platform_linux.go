package atomicdir

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// owner is who owns all files; the group is the set's.
const owner = 0

// setOwner sets the owner first: to change it later could change the mode.
func setOwner(f *os.File, mode fs.FileMode, gid int) error {
	if err := f.Chown(owner, gid); err != nil {
		return err
	}
	return f.Chmod(mode)
}

// sameOwner reports whether a file or directory has this mode, setuid, setgid
// and sticky bits included, and belongs to owner and gid.
func sameOwner(info fs.FileInfo, mode fs.FileMode, gid int) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&^fs.ModeDir == mode && stat.Uid == owner && int64(stat.Gid) == int64(gid)
}

// moveLink gives the link at from, which leads to the given target, the name
// to. Whatever link or file had this name is replaced without a gap.
func moveLink(root *os.Root, _, from, to string) error { return root.Rename(from, to) }

func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
