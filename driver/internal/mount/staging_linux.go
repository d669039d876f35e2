package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/internal/logkey"
)

// mountStaged fills the volume at a place of its own and binds it to the
// target. What a kill leaves is removed by Sweep.
func (m *Mounter) mountStaged(ctx context.Context, step Step, at *Place, v Volume) (err error) {
	m.staging.RLock()
	defer m.staging.RUnlock()
	if err := step(stepStage); err != nil {
		return err
	}
	t, err := m.makeStage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if err := m.bindStaged(ctx, step, stage{t, at}, v); err != nil {
		return errors.Join(err, t.unstage())
	}
	// The volume is in place: what is left over is no failure of the publish.
	err = step(stepUnstage)
	if err == nil {
		err = t.unstage()
	}
	if err != nil {
		m.cfg.Logger.WarnContext(ctx, "left a staged volume behind: it is removed when the driver starts",
			slog.String(logkey.Path, t.RealPath()), slog.String(logkey.Error, err.Error()))
	}
	return nil
}

// makeStage makes an empty directory that no other process looks at.
func (m *Mounter) makeStage() (*Target, error) {
	if err := os.MkdirAll(m.cfg.StagingDir, 0o700); err != nil {
		return nil, fmt.Errorf("make staging directory: %w", err)
	}
	parent, err := os.Open(m.cfg.StagingDir)
	if err != nil {
		return nil, fmt.Errorf("open staging directory: %w", err)
	}
	err = parent.Chmod(0o700)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("close staging directory to others: %w", err), parent.Close())
	}
	path, err := os.MkdirTemp(fdPath(int(parent.Fd())), "volume-")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make staging directory: %w", err), parent.Close())
	}
	return &Target{parent: parent, name: filepath.Base(path)}, nil
}

// stage is a place to build at and the one to bind to.
type stage struct {
	at     *Target
	bindTo *Place
}

func (m *Mounter) bindStaged(ctx context.Context, step Step, s stage, v Volume) error {
	if err := step(stepStageMount); err != nil {
		return err
	}
	if err := m.mountTmpfs(ctx, s.at.path(), v); err != nil {
		return err
	}
	return m.fillAndBind(step, s, v)
}

func (m *Mounter) fillAndBind(step Step, s stage, v Volume) (err error) {
	built, err := s.at.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	// Another process can have swept the mount away already, and below it is
	// the node's disk.
	if kind, err := m.Kind(built); err != nil || kind != Tmpfs {
		return errors.Join(errors.New("verify staged volume: it is not mounted"), err)
	}
	if err := built.fill(v); err != nil {
		return err
	}
	if err := step(stepBind); err != nil {
		return err
	}
	// By descriptor: if another process swept the mount away, this fails
	// instead of binding the empty directory below it.
	if err := unix.Mount(fdPath(built.fd), fdPath(s.bindTo.fd), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind mount to target: %w", err)
	}
	return nil
}

// unstage takes away the staged mount, if there is one, and its directory. The
// volume itself stays where it was bound.
func (t *Target) unstage() error {
	if err := t.Detach(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount staging directory: %w", err)
	}
	if err := t.Rmdir(); err != nil {
		return fmt.Errorf("remove staging directory: %w", err)
	}
	return nil
}

// Sweep removes what a process that was killed left in the staging directory. A
// mount that another process stages at the same time fails and can be retried.
func (m *Mounter) Sweep(ctx context.Context) (err error) {
	m.staging.Lock()
	defer m.staging.Unlock()
	parent, err := os.Open(m.cfg.StagingDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	names, err := parent.Readdirnames(-1)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
		t := &Target{parent: parent, name: name}
		m.cfg.Logger.InfoContext(ctx, "removing a staged volume that was left behind", slog.String(logkey.Path, t.RealPath()))
		// Without emptying it: it may be the volume of a target by now.
		errs = append(errs, m.remove(ctx, t, false))
	}
	return errors.Join(errs...)
}
