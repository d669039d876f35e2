//go:build unix

package unixsocket

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// tempSocket is the socket's name while it is in its private directory.
const tempSocket = "s"

// listenIn listens on tempSocket in dir.
func listenIn(ctx context.Context, dir string) (*net.UnixListener, error) {
	name, done, err := shorten(filepath.Join(dir, tempSocket))
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := new(net.ListenConfig).Listen(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil // by the package net's contract for "unix"
}

func connect(ctx context.Context, path string) (net.Conn, error) {
	name, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	return new(net.Dialer).DialContext(ctx, "unix", name)
}

// shorten returns a name of path that a socket's address has room for: private
// names are longer than the path that callers chose. The kernel also takes a
// path below an open directory, which is short. The name is good until done.
func shorten(path string) (name string, done func(), err error) {
	if len(path) <= MaxPathLength {
		return path, func() {}, nil
	}
	dir := filepath.Dir(path)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	done = func() { _ = unix.Close(fd) } // only a name
	return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + filepath.Base(path), done, nil
}

func setOwner(name string, cfg ListenConfig) error {
	uid, gid := cfg.UID, cfg.GID
	if uid == 0 {
		uid = Unowned
	}
	if gid == 0 {
		gid = Unowned
	}
	if uid == Unowned && gid == Unowned {
		return nil
	}
	return os.Lchown(name, uid, gid)
}

// lockDir takes the exclusive lock on a directory, or waits until ctx ends.
func lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	retry := time.NewTicker(lockRetry)
	defer retry.Stop()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil // which gives the lock back
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, errors.Join(os.NewSyscallError("flock", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(errors.New("another process holds the lock"), ctx.Err(), f.Close())
		case <-retry.C:
		}
	}
}

// isRefused reports whether a connect failed because nobody listens.
func isRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// isBusy reports whether a connect failed although somebody is there: its
// backlog is full, or it is a socket of another type.
func isBusy(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EPROTOTYPE)
}
