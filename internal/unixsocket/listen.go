package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// tempPrefix begins the names of the directories in which sockets are
	// bound. No watcher of socket directories looks at names with a dot.
	tempPrefix = ".postern-listen-"
	// defaultMode lets nobody but the owner (and root) connect.
	defaultMode fs.FileMode = 0o600
	// probeTimeout bounds the question whether somebody listens.
	probeTimeout = time.Second
	// lockTimeout bounds the wait for another process that listens or closes
	// in the same directory. They need microseconds, or probeTimeout.
	lockTimeout = 5 * time.Second
	// lockRetry is the time between two tries to lock.
	lockRetry = 5 * time.Millisecond
)

// ListenConfig says where and for whom to listen.
type ListenConfig struct {
	// Path is absolute and at most MaxPathLength bytes. Its directory must
	// exist, and the process must be able to create entries there.
	Path string
	// Mode is the socket's permission bits; to connect needs write. Default 0600.
	Mode fs.FileMode
	// UID and GID own the socket. Zero and Unowned leave what the kernel sets:
	// the process's own, or in a setgid directory that directory's group.
	UID, GID int
	// TakeOver takes the path from a process that listens there, instead of
	// failing with ErrInUse: for several instances of one program, of which the
	// one that came last serves. See Listen.
	TakeOver bool
}

func (c ListenConfig) validate() error {
	if err := validatePath(c.Path); err != nil {
		return err
	}
	if c.Mode&^fs.ModePerm != 0 {
		return fmt.Errorf("mode %v has more than permission bits", c.Mode)
	}
	if c.UID < Unowned || c.GID < Unowned {
		return fmt.Errorf("owner %d:%d is not a uid and gid; use %d to leave one", c.UID, c.GID, Unowned)
	}
	return nil
}

// Listen listens at cfg.Path. A socket that is there and that nobody answers is
// replaced; one that somebody answers makes Listen fail with ErrInUse; anything
// but a socket is left alone and is an error.
//
// The socket is bound in a private directory beside its path, gets its owner
// and mode there, and is renamed into place when it listens already. So it is
// never open to more than cfg says, nobody ever sees it half made, and the
// process's umask is not touched. Processes that call Listen or Close in one
// directory take turns by a lock (flock) on it.
//
// Close of the returned listener removes the socket only if it is still its
// own. Its Addr is cfg.Path.
//
// With TakeOver a connect finds an instance at every moment: the path is
// renamed over, and an instance that closes while the path is its own gives it
// back to the newest of the others that listen. One that is killed cannot, so
// each of them looks every second, and takes the path when nobody answers.
func Listen(ctx context.Context, cfg ListenConfig) (net.Listener, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if cfg.Mode == 0 {
		cfg.Mode = defaultMode
	}
	l, err := listen(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Path, err)
	}
	return l, nil
}

func listen(ctx context.Context, cfg ListenConfig) (_ *listener, err error) {
	dir := filepath.Dir(cfg.Path)
	unlock, err := lockWithin(ctx, dir, lockTimeout)
	if err != nil {
		return nil, err
	}
	defer unlock()

	if err := claim(ctx, cfg); err != nil {
		return nil, err
	}
	if err := removeAbandoned(dir); err != nil {
		return nil, err
	}
	if cfg.TakeOver {
		if err := removeDeadSpares(ctx, cfg.Path); err != nil {
			return nil, err
		}
	}
	// It is 0700: whatever the mode that bind gives the socket, nobody else gets
	// at it in there.
	temp, err := makeTemp(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	return bind(ctx, cfg, temp)
}

// makeTemp makes a private directory in dir. Its error names dir: the random
// name would make each one another.
func makeTemp(dir string) (string, error) {
	temp, err := os.MkdirTemp(dir, tempPrefix)
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return "", &fs.PathError{Op: "create in", Path: dir, Err: failed.Err}
	}
	return temp, err
}

// claim makes sure that the path may be taken: there is nothing, or a socket
// that nobody listens on or that is to be taken over. The caller holds the
// directory's lock.
func claim(ctx context.Context, cfg ListenConfig) error {
	info, err := os.Lstat(cfg.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("there is a file (%v) that is not a socket; remove it", info.Mode())
	case cfg.TakeOver:
		return nil // the rename replaces it
	}
	answers, err := probe(ctx, cfg.Path)
	if err == nil && answers {
		return ErrInUse
	}
	return err
}

// probe reports whether somebody listens at path.
func probe(ctx context.Context, path string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := connect(ctx, path)
	switch {
	case err == nil:
		_ = conn.Close() // only asked
		return true, nil
	case isRefused(err), errors.Is(err, fs.ErrNotExist):
		return false, nil
	case isBusy(err), errors.Is(err, context.DeadlineExceeded):
		return true, nil
	default:
		return false, fmt.Errorf("find out whether the socket there is in use: %w", err)
	}
}

// removeAbandoned removes what processes that were killed in Listen left. The
// caller holds the directory's lock, so none of it is in use.
func removeAbandoned(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// bind makes the complete socket in temp and renames it to cfg.Path.
func bind(ctx context.Context, cfg ListenConfig, temp string) (_ *listener, err error) {
	inner, err := listenIn(ctx, temp)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, inner.Close())
		}
	}()
	inner.SetUnlinkOnClose(false) // the name it was bound to is gone by then
	made := filepath.Join(temp, tempSocket)
	if err := setOwner(made, cfg); err != nil {
		return nil, err
	}
	// Nobody can have changed what is in temp, so this follows no foreign link.
	if err := os.Chmod(made, cfg.Mode); err != nil {
		return nil, err
	}
	info, err := os.Lstat(made)
	if err != nil {
		return nil, err
	}
	l := &listener{UnixListener: inner, path: cfg.Path, info: info}
	if cfg.TakeOver {
		if l.spare, err = newSpare(made, cfg.Path); err != nil {
			return nil, err
		}
	}
	if err := os.Rename(made, cfg.Path); err != nil {
		return nil, errors.Join(err, l.spare.remove())
	}
	l.spare.keep(ctx, l)
	return l, nil
}

// listener is a unix listener that knows where its socket really is.
//
// Invariants:
//  1. info identifies the socket file that belongs to the UnixListener. The
//     open socket keeps its inode, so the number is not used again before
//     Close is done.
//  2. What is at path is removed or replaced only while the directory's lock is
//     held, and by Close only if it is that file.
type listener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	// spare is nil without TakeOver.
	spare *spare

	closeOnce sync.Once
	closeErr  error
}

// Addr returns the path at which clients find the socket.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the socket's file if it is still this listener's, and then
// stops listening. A file that cannot be removed is an error, but does no harm:
// the next Listen replaces it.
func (l *listener) Close() error {
	l.closeOnce.Do(func() {
		l.spare.stop()
		l.closeErr = errors.Join(l.unlink(), l.UnixListener.Close())
	})
	return l.closeErr
}

func (l *listener) unlink() error {
	// net.Listener's Close takes no context, and the wait is bounded.
	ctx := context.Background()
	unlock, err := lockWithin(ctx, filepath.Dir(l.path), probeTimeout)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove socket %s: %w", l.path, err)
	}
	defer unlock()
	if err := l.spare.remove(); err != nil {
		return err
	}
	if own, err := l.atPath(); !own {
		return err // a newer instance's, or nobody's
	}
	if l.spare != nil {
		if given, err := giveBack(ctx, l.path); given {
			return err
		}
	}
	return os.Remove(l.path)
}

// atPath reports whether what is at the path is this listener's socket.
func (l *listener) atPath() (bool, error) {
	info, err := os.Lstat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(info, l.info), err
}

// lockWithin locks the directory, waiting at most for d.
func lockWithin(ctx context.Context, dir string, d time.Duration) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	unlock, err = lockDir(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("lock directory %s: %w", dir, err)
	}
	return unlock, nil
}
