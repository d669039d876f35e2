//go:build !linux

package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/postern-dev/postern/driver/internal/atomicdir"
)

// Here nothing is mounted: a volume is a directory on the node's disk, and
// counts as mounted when something is in it. There are neither owners nor modes
// to compare; access follows from the directory's access control list.

const targetMode = 0o750

// system: there is nothing to work with.
type system struct{}

func newSystem(Config) system { return system{} }

func (m *Manager) publish(_ context.Context, step step, path string, p *plan) (err error) {
	rel, err := m.relative(path)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(m.cfg.Root)
	if err != nil {
		return fmt.Errorf("open kubelet root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := root.MkdirAll(rel, targetMode); err != nil {
		return fmt.Errorf("make target directory: %w", err)
	}
	_, err = refreshBelow(step, root, rel, p)
	return err
}

func (m *Manager) update(step step, path string, p *plan) (changed bool, err error) {
	rel, err := m.relative(path)
	if err != nil {
		return false, err
	}
	root, err := os.OpenRoot(m.cfg.Root)
	if err != nil {
		return false, fmt.Errorf("open kubelet root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	state, err := stateBelow(root, rel)
	if err != nil {
		return false, err
	}
	if state == NotMounted {
		return false, ErrNotMounted
	}
	return refreshBelow(step, root, rel, p)
}

func refreshBelow(step step, root *os.Root, rel string, p *plan) (changed bool, err error) {
	dir, err := root.OpenRoot(rel)
	if err != nil {
		return false, fmt.Errorf("open volume: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return atomicdir.Refresh(dir, p.files, step)
}

func (m *Manager) read(path string) (files []File, err error) {
	rel, err := m.relative(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(m.cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("open kubelet root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	state, err := stateBelow(root, rel)
	if err != nil {
		return nil, err
	}
	if state == NotMounted {
		return nil, ErrNotMounted
	}
	dir, err := root.OpenRoot(rel)
	if err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return atomicdir.Read(dir, m.readLimits())
}

func (m *Manager) state(path string) (state State, err error) {
	rel, err := m.relative(path)
	if err != nil {
		return NotMounted, err
	}
	root, err := os.OpenRoot(m.cfg.Root)
	if err != nil {
		return NotMounted, fmt.Errorf("open kubelet root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return stateBelow(root, rel)
}

func stateBelow(root *os.Root, rel string) (state State, err error) {
	dir, err := root.OpenRoot(rel)
	if err != nil {
		return NotMounted, ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil || len(entries) == 0 {
		return NotMounted, err
	}
	complete, err := atomicdir.Complete(dir)
	if err != nil {
		return NotMounted, err
	}
	if complete {
		return Complete, nil
	}
	return Incomplete, nil
}

func (m *Manager) unpublish(ctx context.Context, path string) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	rel, err := m.relative(path)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(m.cfg.Root)
	if err != nil {
		return ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := root.RemoveAll(rel); err != nil {
		return fmt.Errorf("remove target directory: %w", err)
	}
	return nil
}

// sweep has nothing to do: there is no staging.
func (*Manager) sweep(context.Context) error { return nil }

// check has nothing to find out: a volume is a directory.
func (*Manager) check(ctx context.Context) error { return ctx.Err() }
