package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/postern-dev/postern/driver/internal/atomicdir"
	"github.com/postern-dev/postern/driver/internal/mount"
	"github.com/postern-dev/postern/internal/logkey"
)

// Names of the steps around the mount.
const (
	stepTarget = "make target directory"
	stepClear  = "unmount broken mount"
)

// system is what a Manager works with here.
type system struct {
	mounts *mount.Mounter
	seen   *seen
}

func newSystem(cfg Config) system {
	return system{
		mounts: mount.New(mount.Config{
			StagingDir: cfg.StagingDir, ForceFallback: cfg.ForceFallback, Logger: cfg.Logger,
		}),
		seen: &seen{},
	}
}

// openTarget finds the place of path. The parent is made if create is set.
func (m *Manager) openTarget(path string, create bool) (*mount.Target, error) {
	rel, err := m.relative(path)
	if err != nil {
		return nil, err
	}
	return mount.OpenTarget(m.cfg.Root, rel, create)
}

func (m *Manager) publish(ctx context.Context, step step, path string, p *plan) (err error) {
	t, err := m.openTarget(path, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if err := step(stepTarget); err != nil {
		return err
	}
	made, err := t.Mkdir()
	if err != nil {
		return err
	}
	if err := m.publishAt(ctx, step, t, p); err != nil {
		if made {
			err = errors.Join(err, t.Rmdir())
		}
		return err
	}
	return nil
}

func (m *Manager) publishAt(ctx context.Context, step step, t *mount.Target, p *plan) (err error) {
	at, err := t.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	state, err := m.stateAt(at)
	if err != nil {
		return err
	}
	if state == Broken {
		if at, err = m.clearBroken(ctx, step, t, at); err != nil {
			return err
		}
		if state, err = m.stateAt(at); err != nil {
			return err
		}
	}
	switch state {
	case NotMounted:
		return m.mounts.Mount(ctx, step, at, m.volume(step, p))
	case Complete, Incomplete:
		_, err := refresh(step, at, p)
		return err
	case Foreign:
		return ErrForeignMount
	default:
		return fmt.Errorf("mount is still %v after it was unmounted", state)
	}
}

// clearBroken unmounts what cannot be read and returns what is below it. The
// place that it is given is closed only on success, that it returns open always.
func (m *Manager) clearBroken(ctx context.Context, step step, t *mount.Target, broken *mount.Place) (*mount.Place, error) {
	if err := step(stepClear); err != nil {
		return broken, err
	}
	m.cfg.Logger.WarnContext(ctx, "replacing a mount that cannot be read", slog.String(logkey.TargetPath, t.RealPath()))
	if err := t.Detach(); err != nil {
		return broken, fmt.Errorf("unmount what cannot be read: %w", err)
	}
	below, err := t.Open()
	if err != nil {
		return broken, err
	}
	return below, broken.Close()
}

func (m *Manager) update(step step, path string, p *plan) (changed bool, err error) {
	at, err := m.openVolume(path)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	return refresh(step, at, p)
}

// openVolume opens the top of the volume that is mounted at path, complete or
// not, or fails with ErrNotMounted or ErrForeignMount.
func (m *Manager) openVolume(path string) (*mount.Place, error) {
	t, err := m.openTarget(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotMounted
	}
	if err != nil {
		return nil, err
	}
	at, err := t.Open()
	err = errors.Join(err, t.Close())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotMounted
	}
	if err != nil {
		return nil, err
	}
	kind, err := m.mounts.Kind(at)
	switch {
	case err != nil:
	case kind == mount.Tmpfs:
		return at, nil
	case kind == mount.Foreign:
		err = ErrForeignMount
	default:
		err = ErrNotMounted
	}
	return nil, errors.Join(err, at.Close())
}

func refresh(step step, at *mount.Place, p *plan) (changed bool, err error) {
	root, err := at.Root()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return atomicdir.Refresh(root, p.files, step)
}

func (m *Manager) read(path string) (files []File, err error) {
	at, err := m.openVolume(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	root, err := at.Root()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return atomicdir.Read(root, m.readLimits())
}

func (m *Manager) state(path string) (state State, err error) {
	if m.seen.unchanged(path) {
		return Complete, nil
	}
	t, err := m.openTarget(path, false)
	if err != nil {
		return NotMounted, ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	at, err := t.Open()
	if err != nil {
		return NotMounted, ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	now := m.lookAt(at) // before it is found complete, so that no change is missed
	state, err = m.stateAt(at)
	if state == Complete && err == nil {
		m.seen.remember(path, now)
	}
	return state, err
}

// stateAt says what there is at a place.
func (m *Manager) stateAt(at *mount.Place) (State, error) {
	kind, err := m.mounts.Kind(at)
	if err != nil {
		return NotMounted, err
	}
	switch kind {
	case mount.Tmpfs:
		return volumeState(at)
	case mount.Foreign:
		return Foreign, nil
	case mount.Broken:
		return Broken, nil
	default:
		return NotMounted, nil
	}
}

func volumeState(at *mount.Place) (state State, err error) {
	root, err := at.Root()
	if err != nil {
		return NotMounted, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	complete, err := atomicdir.Complete(root)
	if !complete {
		return Incomplete, err
	}
	return Complete, nil
}

// volume is the file system to mount for a plan.
func (m *Manager) volume(step step, p *plan) mount.Volume {
	return mount.Volume{
		Size: 2 * m.cfg.Size, Inodes: m.cfg.Inodes,
		Mode: atomicdir.DirMode, GID: p.files.GID, SELinuxContext: p.selinux,
		Fill: func(root *os.Root) error { return atomicdir.Fill(root, p.files, step) },
	}
}

func (m *Manager) unpublish(ctx context.Context, path string) (err error) {
	defer m.seen.forget(path)
	t, err := m.openTarget(path, false)
	if err != nil {
		return ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	return m.mounts.Remove(ctx, t)
}

func (m *Manager) sweep(ctx context.Context) error { return m.mounts.Sweep(ctx) }

func (m *Manager) check(ctx context.Context) error {
	return m.mounts.Check(ctx, mount.Volume{Size: 2 * m.cfg.Size, Inodes: m.cfg.Inodes, Mode: atomicdir.DirMode})
}
