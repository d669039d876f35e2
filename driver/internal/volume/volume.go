// Package volume puts a pod's secrets volume at the path where kubelet wants
// it, refreshes it in place and takes it away.
//
// On Linux a volume is a tmpfs which is filled where nobody sees it and then put
// onto the target; see package mount. On other systems it is a directory. What
// is in it has the layout of package atomicdir.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/postern-dev/postern/driver/internal/atomicdir"
	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/driver/internal/keylock"
)

// Defaults of Config.
const (
	DefaultSize   = 32 << 20
	DefaultInodes = 16384
)

// Config is what New needs.
type Config struct {
	// Root is kubelet's root directory. A target which does not lie below it
	// is refused, also where a symbolic link would lead out of it.
	Root string
	// StagingDir is where volumes are built on kernels without detached
	// mounts. The driver owns it alone; it is created with mode 0700 when it
	// is needed. Default: plugins/csi-secrets-store/staging below Root.
	StagingDir string
	// Size limits the contents of a volume, in bytes; each file counts as
	// whole pages of 4 KiB. The tmpfs is made twice as large, so that a
	// refresh of a full volume fits beside the old contents. It takes memory
	// only for what it holds. Default: DefaultSize.
	Size int64
	// Inodes limits how many files, directories and links a volume's tmpfs
	// holds, during a refresh those of both revisions. Default: DefaultInodes.
	Inodes int64
	// ForceFallback does without what kernels before 5.8 lack.
	ForceFallback bool
	// Observe is called before each step of a publish or an update with the
	// step's name; tests kill the process there. It may be nil, and must be
	// safe for concurrent use.
	Observe func(step string)
	// Logger gets what an operator should know but no caller can act on. It
	// may be nil.
	Logger *slog.Logger

	// inject makes a step fail. Only this package's tests set it.
	inject func(step string) error
}

// Manager makes, refreshes, reads and removes volumes. It keeps no record of them
// that anything depends on: the state of a volume is its mount. Its methods may
// be called concurrently.
//
// Invariants:
//  1. A target is not mounted or, if this package mounted it, complete, at
//     whatever instant the process or the machine stops.
//  2. A mounted volume changes from one revision to the next by one rename.
//     Until then readers see all of the old one, from then on all of the new.
//  3. A publish or an update that fails before this rename leaves what was
//     there and nothing else.
//  4. Work on one target is done by one call at a time.
//  5. No file is touched outside a volume, whatever is in a file's path, in the
//     volume's links or in the target's path.
type Manager struct {
	cfg   Config
	locks keylock.Locks

	system
}

// New returns a Manager. It touches nothing on disk.
func New(cfg Config) (*Manager, error) {
	if cfg.StagingDir == "" {
		cfg.StagingDir = filepath.Join(cfg.Root, "plugins", "csi-secrets-store", "staging")
	}
	if cfg.Size == 0 {
		cfg.Size = DefaultSize
	}
	if cfg.Inodes == 0 {
		cfg.Inodes = DefaultInodes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case !filepath.IsAbs(cfg.Root):
		return nil, fmt.Errorf("kubelet root %q must be an absolute path", cfg.Root)
	case !filepath.IsAbs(cfg.StagingDir):
		return nil, fmt.Errorf("staging directory %q must be an absolute path", cfg.StagingDir)
	case cfg.Size < fileset.PageSize:
		return nil, fmt.Errorf("volume size limit %d must be at least %d bytes", cfg.Size, fileset.PageSize)
	case cfg.Size > maxSize:
		return nil, fmt.Errorf("volume size limit %d must be at most %d bytes", cfg.Size, int64(maxSize))
	case cfg.Inodes < minInodes:
		return nil, fmt.Errorf("volume inode limit %d must be at least %d", cfg.Inodes, minInodes)
	}
	cfg.Root = filepath.Clean(cfg.Root)
	cfg.StagingDir = filepath.Clean(cfg.StagingDir)
	return &Manager{cfg: cfg, system: newSystem(cfg)}, nil
}

// Limits of Config.
const (
	maxSize   = 1 << 40
	minInodes = 16
)

// Publish makes the volume be at its target. If nothing is mounted there it
// builds the volume unseen and puts it in place complete; a volume that is
// mounted already is brought to spec in place, as Update does, and is never
// unmounted while it can be read.
//
// Errors: *fileset.FileError, fileset.ErrNoFiles and fileset.ErrTooLarge for what
// is wrong with spec; ErrTarget for the target; ErrForeignMount;
// mount.ErrSELinux; ctx's error.
// After an error a target that was not mounted is still not mounted.
func (m *Manager) Publish(ctx context.Context, spec Spec) error {
	p, err := m.plan(spec)
	if err != nil {
		return fmt.Errorf("publish volume at %s: %w", spec.Target, err)
	}
	unlock, err := m.lock(ctx, spec.Target)
	if err != nil {
		return fmt.Errorf("publish volume at %s: %w", spec.Target, err)
	}
	defer unlock()
	if err := m.publish(ctx, m.steps(ctx), spec.Target, p); err != nil {
		return fmt.Errorf("publish volume at %s: %w", spec.Target, err)
	}
	return nil
}

// Update brings a mounted volume to spec in place. It reports whether the set
// of files, their contents, modes or owners differed; if not, nothing is
// written. The errors are those of Publish, and ErrNotMounted if there is no
// volume at the target: Update never mounts.
func (m *Manager) Update(ctx context.Context, spec Spec) (changed bool, err error) {
	p, err := m.plan(spec)
	if err != nil {
		return false, fmt.Errorf("update volume at %s: %w", spec.Target, err)
	}
	unlock, err := m.lock(ctx, spec.Target)
	if err != nil {
		return false, fmt.Errorf("update volume at %s: %w", spec.Target, err)
	}
	defer unlock()
	changed, err = m.update(m.steps(ctx), spec.Target, p)
	if err != nil {
		return changed, fmt.Errorf("update volume at %s: %w", spec.Target, err)
	}
	return changed, nil
}

// State says what there is at target. It waits for nobody: during a Publish of
// the same target it returns the state before or after, and Complete during an
// Update of a complete volume.
func (m *Manager) State(target string) (State, error) {
	state, err := m.state(target)
	if err != nil {
		return NotMounted, fmt.Errorf("find state of volume at %s: %w", target, err)
	}
	return state, nil
}

// Read returns the files of the volume at target as they are now, by path: of one
// revision, with the modes that they have there. It follows no link out of the
// volume, whoever mounted it, and reads at most Config.Size bytes. It waits for
// nobody: during a call for the same target it returns the files before or after
// on Linux; elsewhere the caller must let no other call run meanwhile. The caller
// wipes the contents.
//
// Errors: ErrNotMounted, ErrForeignMount, ErrIncomplete, fileset.ErrTooLarge, and
// *fileset.FileError for what is no file of a volume.
func (m *Manager) Read(target string) ([]File, error) {
	files, err := m.read(target)
	if err != nil {
		return nil, fmt.Errorf("read volume at %s: %w", target, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("read volume at %s: %w", target, ErrIncomplete)
	}
	return files, nil
}

func (m *Manager) readLimits() atomicdir.Limits {
	return atomicdir.Limits{Bytes: m.cfg.Size, Inodes: m.cfg.Inodes}
}

// Unpublish removes the volume: its contents, all mounts at the target, also
// those in use, and the directory itself. A target that does not exist is no
// error.
func (m *Manager) Unpublish(ctx context.Context, target string) error {
	unlock, err := m.lock(ctx, target)
	if err != nil {
		return fmt.Errorf("unpublish volume at %s: %w", target, err)
	}
	defer unlock()
	if err := m.unpublish(ctx, target); err != nil {
		return fmt.Errorf("unpublish volume at %s: %w", target, err)
	}
	return nil
}

// Check tells whether this process can make a volume.
func (m *Manager) Check(ctx context.Context) error { return m.check(ctx) }

// Sweep removes what a driver that was killed left in StagingDir. It is meant
// for the start of the driver; a publish that another process is doing there
// at the same time fails and can be retried.
func (m *Manager) Sweep(ctx context.Context) error {
	if err := m.sweep(ctx); err != nil {
		return fmt.Errorf("sweep staging directory %s: %w", m.cfg.StagingDir, err)
	}
	return nil
}

// lock refuses a bad target before it serves as a key.
func (m *Manager) lock(ctx context.Context, target string) (unlock func(), err error) {
	if _, err := m.relative(target); err != nil {
		return nil, err
	}
	return m.locks.Lock(ctx, target)
}

// relative returns target relative to Root.
func (m *Manager) relative(target string) (string, error) {
	if !filepath.IsAbs(target) || filepath.Clean(target) != target {
		return "", fmt.Errorf("%w: it must be absolute and clean", ErrTarget)
	}
	rel, err := filepath.Rel(m.cfg.Root, target)
	if err != nil || rel == "." || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%w: it must lie below %s", ErrTarget, m.cfg.Root)
	}
	if strings.ContainsRune(rel, 0) {
		return "", fmt.Errorf("%w: it must not hold a zero byte", ErrTarget)
	}
	return rel, nil
}

// step announces that the step called name begins; an error forbids it.
type step = func(name string) error

// steps returns the step function of one call, which also ends the call between
// two steps when ctx ends.
func (m *Manager) steps(ctx context.Context) step {
	return func(name string) error {
		if ctx.Err() != nil {
			return fmt.Errorf("stopped before step %q: %w", name, context.Cause(ctx))
		}
		if m.cfg.Observe != nil {
			m.cfg.Observe(name)
		}
		if m.cfg.inject != nil {
			return m.cfg.inject(name)
		}
		return nil
	}
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
