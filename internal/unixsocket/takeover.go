package unixsocket

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// keepInterval is how often an instance looks whether somebody answers at the
// path that it shares.
const keepInterval = time.Second

// spare is a second name of a socket whose path another instance may take: a
// hard link, by which the path can be made to lead to the socket again.
// Methods of a nil spare do nothing.
type spare struct {
	name    string
	end     context.CancelFunc
	keeping sync.WaitGroup
}

// sparePrefix begins the names of the spares of a path.
func sparePrefix(path string) string { return "." + filepath.Base(path) + "." }

// newSpare gives the socket at made, in a private directory with a random name,
// its second name.
func newSpare(made, path string) (*spare, error) {
	dir, temp := filepath.Dir(path), filepath.Base(filepath.Dir(made))
	s := &spare{name: filepath.Join(dir, sparePrefix(path)+strings.TrimPrefix(temp, tempPrefix)), end: func() {}}
	if err := os.Link(made, s.name); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *spare) remove() error {
	if s == nil {
		return nil
	}
	if err := os.Remove(s.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// keep makes the path lead to l's socket again whenever nobody answers there,
// until stop is called: a listener ends by Close, not with a context.
func (s *spare) keep(ctx context.Context, l *listener) {
	if s == nil {
		return
	}
	ctx, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.keeping.Go(func() {
		ticker := time.NewTicker(keepInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if own, err := l.atPath(); err == nil && !own {
					// What fails is tried again; whoever asks at the path for
					// this process' health sees it.
					_ = s.reclaim(ctx, l.path)
				}
			}
		}
	})
}

func (s *spare) stop() {
	if s == nil {
		return
	}
	s.end()
	s.keeping.Wait()
}

// reclaim takes the path if nobody answers there.
func (s *spare) reclaim(ctx context.Context, path string) error {
	unlock, err := lockWithin(ctx, filepath.Dir(path), probeTimeout)
	if err != nil {
		return err
	}
	defer unlock()
	if err := claim(ctx, ListenConfig{Path: path}); err != nil {
		return err
	}
	return point(path, s.name)
}

// giveBack makes the path lead to the newest other instance that listens, and
// reports whether there is one. The caller holds the directory's lock.
func giveBack(ctx context.Context, path string) (bool, error) {
	spares, err := sparesOf(path)
	if err != nil {
		return false, err
	}
	for _, name := range spares {
		if answers, err := probe(ctx, name); err != nil || !answers {
			continue
		}
		return true, point(path, name)
	}
	return false, nil
}

// removeDeadSpares removes the second names that instances left which were
// killed. The caller holds the directory's lock.
func removeDeadSpares(ctx context.Context, path string) error {
	spares, err := sparesOf(path)
	if err != nil {
		return err
	}
	for _, name := range spares {
		if answers, err := probe(ctx, name); err != nil || answers {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sparesOf lists the spares of a path, the newest first.
func sparesOf(path string) ([]string, error) {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	type found struct {
		name string
		made time.Time
	}
	var spares []found
	for _, e := range entries {
		if e.Type() != fs.ModeSocket || !strings.HasPrefix(e.Name(), sparePrefix(path)) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // gone by now
		}
		spares = append(spares, found{filepath.Join(dir, e.Name()), info.ModTime()})
	}
	slices.SortStableFunc(spares, func(a, b found) int { return b.made.Compare(a.made) })
	names := make([]string, len(spares))
	for i, s := range spares {
		names[i] = s.name
	}
	return names, nil
}

// point makes path lead to the socket that is also at name, at one stroke. The
// caller holds the directory's lock.
func point(path, name string) (err error) {
	temp, err := makeTemp(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	link := filepath.Join(temp, tempSocket)
	if err := os.Link(name, link); err != nil {
		return err
	}
	return os.Rename(link, path)
}
