package mount

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/internal/logkey"
)

// Config is what New needs.
type Config struct {
	// StagingDir is where file systems are filled on kernels without detached
	// mounts. It is created with mode 0700 when it is needed.
	StagingDir string
	// ForceFallback does without what kernels before 5.8 lack.
	ForceFallback bool
	// Logger gets what an operator should know but no caller can act on.
	Logger *slog.Logger

	// noswap is the name of tmpfs's option; this package's tests take one
	// that no kernel has.
	noswap string
}

// Mounter mounts and unmounts. It keeps no record of mounts. Its methods may be
// called concurrently, also for one target.
//
// Invariants:
//  1. A place is not mounted or, if this package mounted it, filled, at whatever
//     instant the process or the machine stops.
//  2. Nothing is filled that is not the root of a tmpfs.
//  3. What this process stages is not swept by it.
type Mounter struct {
	cfg Config

	// Both are found out by trying, and remembered.
	withoutMountAPI atomic.Bool // no fsopen(2), or a seccomp filter forbids it
	withoutNoswap   atomic.Bool // tmpfs has no noswap option

	// staging is held shared while something is filled in the staging
	// directory, and exclusively while it is swept.
	staging sync.RWMutex
}

// New returns a Mounter. It touches nothing on disk.
func New(cfg Config) *Mounter {
	if cfg.noswap == "" {
		cfg.noswap = "noswap"
	}
	return &Mounter{cfg: cfg}
}

// Step is called before each step of a mount with the step's name. An error
// ends the mount there.
type Step = func(name string) error

// Names of the steps.
const (
	stepOpenFS     = "open file system"
	stepCreateFS   = "create file system"
	stepMount      = "mount detached"
	stepMove       = "move mount to target"
	stepStage      = "make staging directory"
	stepStageMount = "mount in staging directory"
	stepBind       = "bind mount to target"
	stepUnstage    = "unmount staging directory"
)

// Volume is a tmpfs to be mounted. It belongs to root.
type Volume struct {
	// Size is how much it holds, in bytes, and Inodes how many.
	Size, Inodes int64
	// Mode and GID are those of its top directory.
	Mode fs.FileMode
	GID  int
	// SELinuxContext labels all of it if not empty; see Label.
	SELinuxContext string
	// Fill writes what it holds. An error means that it is not mounted.
	Fill func(root *os.Root) error
}

// Mount mounts v at a directory when it is filled. Errors: ErrSELinux, those of
// step and of v.Fill, and the kernel's. After an error nothing is mounted.
func (m *Mounter) Mount(ctx context.Context, step Step, at *Place, v Volume) error {
	if m.cfg.ForceFallback || m.withoutMountAPI.Load() {
		return m.mountStaged(ctx, step, at, v)
	}
	err := m.mountDetached(ctx, step, at, v)
	if _, ok := errors.AsType[*noMountAPIError](err); ok {
		m.cfg.Logger.InfoContext(ctx, "no detached mounts on this node: building volumes in the staging directory",
			slog.String(logkey.Error, err.Error()), slog.String(logkey.Path, m.cfg.StagingDir))
		m.withoutMountAPI.Store(true)
		return m.mountStaged(ctx, step, at, v)
	}
	return err
}

// Check tells whether this process can mount v, by making one that is attached
// nowhere and letting go of it.
func (m *Mounter) Check(ctx context.Context, v Volume) error {
	if m.cfg.ForceFallback || m.withoutMountAPI.Load() {
		return ctx.Err()
	}
	made, err := m.detachedTmpfs(ctx, func(string) error { return ctx.Err() }, v)
	if _, missing := errors.AsType[*noMountAPIError](err); missing {
		return nil // volumes are built in the staging directory
	}
	if err != nil {
		return err
	}
	return made.Close()
}

// mountDetached fills a mount that is attached nowhere, hence gone with the
// process, and attaches it.
func (m *Mounter) mountDetached(ctx context.Context, step Step, at *Place, v Volume) (err error) {
	built, err := m.detachedTmpfs(ctx, step, v)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	if err := built.fill(v); err != nil {
		return err
	}
	if err := step(stepMove); err != nil {
		return err
	}
	const flags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(built.fd, "", at.fd, "", flags); err != nil {
		return mountAPIError("move mount to target", err)
	}
	return nil
}

func (p *Place) fill(v Volume) (err error) {
	root, err := p.Root()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return v.Fill(root)
}
