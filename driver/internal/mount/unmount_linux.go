package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/internal/logkey"
)

// maxStacked bounds how many mounts on one another are taken off a target.
const maxStacked = 1024

// Remove unmounts all that is mounted at the target, also what is in use, and
// removes the directory with all that is in it. What is in a tmpfs there is
// removed first; other file systems keep what they hold. A target that does not
// exist is no error.
func (m *Mounter) Remove(ctx context.Context, t *Target) error { return m.remove(ctx, t, true) }

// remove is Remove, which empties what it unmounts only if so wanted.
func (m *Mounter) remove(ctx context.Context, t *Target, emptied bool) error {
	for range maxStacked {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if emptied {
			if err := m.empty(t); err != nil {
				// The unmount takes the contents away as well, unless
				// something else holds on to the volume.
				m.cfg.Logger.WarnContext(ctx, "failed to empty a volume before it is unmounted",
					slog.String(logkey.TargetPath, t.RealPath()), slog.String(logkey.Error, err.Error()))
			}
		}
		err := t.unmountOne()
		if errors.Is(err, unix.EINVAL) { // not a mount point
			break
		}
		if err != nil {
			return ignoreNotExist(err)
		}
	}
	err := t.Rmdir()
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = t.removeTree()
	}
	if err != nil {
		return fmt.Errorf("remove target directory: %w", err)
	}
	return nil
}

// empty removes the contents of the volume that is mounted at t, if there
// is one. Secrets are gone then even where the mount is in use or was copied
// into another mount namespace.
func (m *Mounter) empty(t *Target) (err error) {
	at, err := t.Open()
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) { // a file or a link in the target's place
			return nil
		}
		return ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	kind, err := m.Kind(at)
	if err != nil || kind != Tmpfs {
		return err
	}
	root, err := at.Root()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	entries, err := fs.ReadDir(root.FS(), ".")
	errs := []error{err}
	// Links and files first: who follows a link into a directory finds
	// nothing, rather than part of what was there.
	for _, dirs := range []bool{false, true} {
		for _, entry := range entries {
			if entry.IsDir() == dirs {
				errs = append(errs, root.RemoveAll(entry.Name()))
			}
		}
	}
	return errors.Join(errs...)
}

// unmountOne takes the uppermost mount off the target, at once or, if it is in
// use, as soon as it is not.
func (t *Target) unmountOne() error {
	err := t.unmount(0)
	if errors.Is(err, unix.EBUSY) {
		err = t.Detach()
	}
	if err != nil {
		return fmt.Errorf("unmount target: %w", err)
	}
	return nil
}

// Detach takes the uppermost mount off the target, as soon as nobody uses it.
func (t *Target) Detach() error { return t.unmount(unix.MNT_DETACH) }

func (t *Target) unmount(flags int) error {
	_, err := retry(func() (int, error) { return 0, unix.Unmount(t.path(), flags|unix.UMOUNT_NOFOLLOW) })
	return err
}

// removeTree removes a directory that is not a mount point with all that is in
// it, such as files which were written there when nothing was mounted. What is
// mounted below is unmounted first and never emptied.
func (t *Target) removeTree() (err error) {
	path := t.RealPath()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return fmt.Errorf("read mount table: %w", err)
	}
	for _, mount := range slices.Backward(mounts) { // later ones lie on earlier ones
		if err := unix.Unmount(mount.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", mount.Mountpoint, err)
		}
	}
	root, err := os.OpenRoot(fdPath(t.fd()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return root.RemoveAll(t.name)
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
