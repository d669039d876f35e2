package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Target is a path to mount at. It holds the parent directory open, so that all
// work is done on one and the same place even if the path is changed.
type Target struct {
	parent *os.File
	name   string
}

// OpenTarget finds the place of rel, a local path below the directory root. No
// link leads out of root on the way. The parent is made if create is set, else
// an error which is fs.ErrNotExist says that it does not exist.
func OpenTarget(root, rel string, create bool) (t *Target, err error) {
	top, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("open kubelet root: %w", err)
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	dir, name := filepath.Dir(rel), filepath.Base(rel)
	parent, err := top.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err := top.MkdirAll(dir, targetMode); err != nil {
			return nil, fmt.Errorf("make parent directory: %w", err)
		}
		parent, err = top.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open parent directory: %w", err)
	}
	return &Target{parent: parent, name: name}, nil
}

// targetMode is the mode of the directories that kubelet leaves to the driver.
const targetMode = 0o750

// Close lets go of the target.
func (t *Target) Close() error { return t.parent.Close() }

// fd is the parent's descriptor; it is valid until close.
func (t *Target) fd() int { return int(t.parent.Fd()) }

// path leads to the target through the open parent.
func (t *Target) path() string { return fdPath(t.fd()) + "/" + t.name }

// Open returns what is at the target now: the top of whatever is mounted there,
// else the directory. It works for mounts that cannot be read, too.
func (t *Target) Open() (*Place, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(t.fd(), t.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open target directory: %w", err)
	}
	return &Place{fd: fd}, nil
}

// Mkdir makes the target's directory and reports whether it was missing.
func (t *Target) Mkdir() (made bool, err error) {
	err = unix.Mkdirat(t.fd(), t.name, targetMode)
	if err == nil {
		return true, nil
	}
	// EEXIST also where the path ends at a mount that cannot be read.
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	return false, fmt.Errorf("make target directory: %w", err)
}

// Rmdir removes the target's directory, which need not exist.
func (t *Target) Rmdir() error {
	err := unix.Unlinkat(t.fd(), t.name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTDIR) {
		err = unix.Unlinkat(t.fd(), t.name, 0)
	}
	return ignoreNotExist(err)
}

// Place is a directory or the root of a mount, held open without access to what
// is in it. While it is open, its mount is busy.
type Place struct{ fd int }

// Close lets go of the place.
func (p *Place) Close() error { return unix.Close(p.fd) }

// Root opens the directory for reading and writing.
func (p *Place) Root() (*os.Root, error) {
	root, err := os.OpenRoot(fdPath(p.fd))
	if err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	return root, nil
}

// fdPath is a path to an open file which works wherever it is, even below a
// mount that is attached nowhere.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// RealPath is the target's path as the mount table and messages have it.
func (t *Target) RealPath() string {
	parent, err := os.Readlink(fdPath(t.fd()))
	if err != nil {
		parent = t.parent.Name()
	}
	return filepath.Join(parent, t.name)
}
