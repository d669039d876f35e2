package policy

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/postern-dev/postern/internal/logkey"
)

const (
	// lookInterval is the time between two looks at the file. It bounds how long
	// a change goes unseen where the directory cannot be watched.
	lookInterval = 30 * time.Second
	// settleTime is how long after an event the file is read: what writes a file
	// step by step makes several.
	settleTime = 100 * time.Millisecond
)

// Run reads the file again when it changes, until ctx ends.
func (e *Enforcer) Run(ctx context.Context) error {
	if e.cfg.Path == "" {
		<-ctx.Done()
		return nil
	}
	e.metrics.begin(ctx, e.inForce.Load().rules.List())
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		e.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot watch the policy file; it is looked at every 30 seconds instead",
			slog.String(logkey.Error, err.Error()))
		return e.look(ctx, nil)
	}
	defer func() { _ = watcher.Close() }()
	return e.look(ctx, watcher)
}

// look reads the file after each event of its directory, and now and then. The
// directory is what has to be watched: a ConfigMap's volume puts a new one in
// place of a link next to the file, and editors replace files.
func (e *Enforcer) look(ctx context.Context, watcher *fsnotify.Watcher) error {
	var events chan fsnotify.Event
	var failures chan error
	if watcher != nil {
		events, failures = watcher.Events, watcher.Errors
	}
	for {
		if watcher != nil {
			// Again each time: the directory may be a new one. Where it is not
			// there, the next look finds out.
			_ = watcher.Add(filepath.Dir(e.cfg.Path))
		}
		// Watched first and then read: what comes in between is seen twice.
		e.reload(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookInterval):
		case err := <-failures: // most likely an overflow: events are lost, so look
			e.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "watching the policy file failed", slog.String(logkey.Error, err.Error()))
		case <-events:
			if !settle(ctx, events) {
				return nil
			}
		}
	}
}

// settle waits, and drops the events of that time. It reports false if ctx ends.
func settle(ctx context.Context, events <-chan fsnotify.Event) bool {
	settled := time.After(settleTime)
	for {
		select {
		case <-ctx.Done():
			return false
		case <-settled:
			return true
		case <-events:
		}
	}
}
