package registry

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/postern-dev/postern/internal/logkey"
)

// unwatchedInterval is the time between two looks where a directory cannot be
// watched, as on nodes that have run out of inotify instances.
const unwatchedInterval = time.Second

// Run finds providers and tends them until ctx ends, and returns when all
// connections are closed.
func (r *Registry) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer r.tended.Wait()
	defer cancel()
	w := newWatch(ctx, r.roots, r.logger)
	defer w.close()
	for {
		interval := unwatchedInterval
		if r.rescan(ctx, w) {
			interval = r.cfg.RescanInterval
		}
		if err := w.wait(ctx, interval); err != nil {
			return nil
		}
	}
}

// rescan looks at all directories once, and reports whether all are watched.
func (r *Registry) rescan(ctx context.Context, w *watch) bool {
	// Each directory is watched first and then listed: what comes in between is
	// seen twice, and not never.
	w.follow(r.roots)
	found := &finding{directories: map[string]bool{}, enter: w.add}
	var failed error
	for _, root := range r.roots {
		failed = errors.Join(failed, found.look(root))
	}
	w.leave(r.cfg.NativeDir, found.directories)
	found.unread = failed
	w.report(ctx, failed)
	r.apply(ctx, found)
	return w.complete
}

// watch tells when to look at directories again.
//
// Invariants:
//  1. Of each root, the directory itself is watched or, as long as it does not
//     exist, its nearest ancestor that does.
//  2. A directory that was removed and made again is watched again with the
//     next look, which its removal brings about.
type watch struct {
	roots  []root
	logger *slog.Logger
	// watcher is nil where the system has no more to give.
	watcher *fsnotify.Watcher
	// followed are the watched directories.
	followed map[string]bool
	// complete is set if the last look could watch all there is to watch.
	complete bool
	// failure is why the last look could not read all, or "".
	failure string
}

func newWatch(ctx context.Context, roots []root, logger *slog.Logger) *watch {
	w := &watch{roots: roots, logger: logger, followed: map[string]bool{}}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		logger.LogAttrs(ctx, slog.LevelWarn, "cannot watch provider directories; they are looked at every second instead",
			slog.String(logkey.Error, err.Error()))
		return w
	}
	w.watcher = watcher
	return w
}

func (w *watch) close() {
	if w.watcher != nil {
		_ = w.watcher.Close()
	}
}

// follow watches the roots.
func (w *watch) follow(roots []root) {
	w.complete = w.watcher != nil
	wanted := map[string]bool{}
	for _, root := range roots {
		wanted[w.nearest(root.dir)] = true
	}
	for dir := range w.followed {
		if !wanted[dir] && !w.belowRoot(dir) {
			w.remove(dir)
		}
	}
}

// nearest watches a root, or else its nearest ancestor that exists, and returns
// which. An ancestor will do only if what comes next on the way to the root is
// not there after the watch is: its coming is then an event.
func (w *watch) nearest(root string) string {
	dir, next := root, ""
	for {
		switch {
		case !w.add(dir) && filepath.Dir(dir) != dir:
			dir, next = filepath.Dir(dir), dir
		case next != "" && exists(next):
			dir, next = root, ""
		default:
			return dir
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// leave drops the directories of native providers that are not there any more.
func (w *watch) leave(base string, names map[string]bool) {
	for dir := range w.followed {
		if filepath.Dir(dir) == base && !names[filepath.Base(dir)] {
			w.remove(dir)
		}
	}
}

// add watches a directory and reports whether it is there. Again and again is
// fine.
func (w *watch) add(dir string) bool {
	if w.watcher == nil {
		return true
	}
	err := w.watcher.Add(dir)
	switch {
	case err == nil:
		w.followed[dir] = true
	case errors.Is(err, fs.ErrNotExist):
		delete(w.followed, dir)
		return false
	default:
		w.complete = false
	}
	return true
}

func (w *watch) remove(dir string) {
	// It fails where the directory took its watch with it.
	_ = w.watcher.Remove(dir)
	delete(w.followed, dir)
}

// report logs that a directory cannot be read, once for each reason.
func (w *watch) report(ctx context.Context, failed error) {
	failure := ""
	if failed != nil {
		failure = failed.Error()
	}
	if failure != "" && failure != w.failure {
		w.logger.LogAttrs(ctx, slog.LevelWarn, "cannot read a provider directory", slog.String(logkey.Error, failure))
	}
	w.failure = failure
}

// belowRoot reports whether a directory lies in a root.
func (w *watch) belowRoot(dir string) bool {
	for _, root := range w.roots {
		if strings.HasPrefix(dir, root.dir+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// wait returns when it is time to look again, or with ctx's error.
func (w *watch) wait(ctx context.Context, interval time.Duration) error {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	var events chan fsnotify.Event
	var failures chan error
	if w.watcher != nil {
		events, failures = w.watcher.Events, w.watcher.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case err := <-failures:
			// Most likely an overflow: events are lost, so look.
			w.logger.LogAttrs(ctx, slog.LevelWarn, "watching provider directories failed", slog.String(logkey.Error, err.Error()))
			return nil
		case event := <-events:
			if w.concerns(event) {
				w.drain()
				return nil
			}
		}
	}
}

// drain drops events that one look answers together.
func (w *watch) drain() {
	for {
		select {
		case <-w.watcher.Events:
		default:
			return
		}
	}
}

// concerns reports whether an event can mean a change: something in a root, or
// a directory on the way to one, that came, went or changed its owner.
func (w *watch) concerns(event fsnotify.Event) bool {
	if event.Op == fsnotify.Write {
		return false
	}
	const separator = string(filepath.Separator)
	for _, root := range w.roots {
		if event.Name == root.dir ||
			strings.HasPrefix(event.Name, root.dir+separator) ||
			strings.HasPrefix(root.dir, event.Name+separator) {
			return true
		}
	}
	return false
}
