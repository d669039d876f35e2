//go:build !linux

package atomicdir

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
)

// Here nobody compares owners, nor modes on Windows; access follows from the
// directory's access control list.

func setOwner(f *os.File, mode fs.FileMode, _ int) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	return f.Chmod(mode)
}

func sameOwner(info fs.FileInfo, mode fs.FileMode, _ int) bool {
	return runtime.GOOS == "windows" || info.Mode()&^fs.ModeDir == mode
}

// moveLink gives a link to target the name to. Windows cannot rename over a link
// to a directory, so that there is an instant without it.
func moveLink(root *os.Root, target, from, to string) error {
	if err := root.RemoveAll(to); err != nil {
		return err
	}
	if err := root.Symlink(target, to); err != nil {
		return errors.Join(err, root.RemoveAll(from))
	}
	return root.RemoveAll(from)
}

func isNoSpace(error) bool { return false }
