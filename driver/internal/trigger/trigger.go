// Package trigger watches the SecretProviderClasses of this node's volumes for
// the annotation with which a person asks for a refresh.
//
// Each class is watched by itself, and only while a volume of this node uses
// it, as kubelet does it for the Secrets of its pods: a watch of all classes on
// every node of a cluster would cost memory and traffic for what other nodes
// use.
package trigger

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/internal/logkey"
)

// Classes are the cluster's SecretProviderClasses.
type Classes interface {
	// WatchSecretProviderClass calls seen with the class's annotations as they
	// are, and again whenever the class changes, until ctx ends.
	WatchSecretProviderClass(ctx context.Context, namespace, name string, seen func(annotations map[string]string))
}

// Config is what New needs.
type Config struct {
	Classes Classes
	// Changed is told the annotation's value of a class that is used, "" if it
	// has none: when it is seen first, and at each change of the class. Values
	// may come more than once, so it compares. A class's values come one at a
	// time and in their order. It must not block for long, and a call may
	// still come while the class's last volume is being removed.
	Changed func(namespace, name, value string)
	Logger  *slog.Logger
}

// Watcher watches the classes that volumes use.
//
// Invariants:
//  1. Each volume uses one class, and a class is used by at least one volume:
//     there is nothing kept for others.
//  2. While Run runs, each class that is used is watched, and no other is for
//     longer than its watch takes to end.
//  3. A class has at most one watch at a time.
//  4. No watch outlives Run.
type Watcher struct {
	cfg Config
	// wake has Run look again at what is used. It holds one value at most.
	wake chan struct{}

	mu      sync.Mutex
	volumes map[string]class // the class of each volume
	users   map[class]int    // how many volumes use a class
}

type class struct{ namespace, name string }

// New returns a Watcher. It makes no call.
func New(cfg Config) (*Watcher, error) {
	if cfg.Classes == nil || cfg.Changed == nil || cfg.Logger == nil {
		return nil, errors.New("trigger: classes, what is to be told of changes, and logger are required")
	}
	return &Watcher{
		cfg:     cfg,
		wake:    make(chan struct{}, 1),
		volumes: make(map[string]class),
		users:   make(map[class]int),
	}, nil
}

// Add says that the volume uses this class, and no longer the one before if
// there was one. The class is watched while Run runs.
func (w *Watcher) Add(volumeID, namespace, name string) {
	added := class{namespace, name}
	w.mu.Lock()
	defer w.mu.Unlock()
	before, had := w.volumes[volumeID]
	w.volumes[volumeID] = added
	w.users[added]++
	if w.users[added] == 1 {
		w.look()
	}
	if had {
		w.release(before)
	}
}

// Remove says that the volume is gone. It may be one that was never added.
func (w *Watcher) Remove(volumeID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if used, ok := w.volumes[volumeID]; ok {
		delete(w.volumes, volumeID)
		w.release(used)
	}
}

// release needs w.mu.
func (w *Watcher) release(used class) {
	w.users[used]--
	if w.users[used] == 0 {
		delete(w.users, used)
		w.look()
	}
}

// look wakes Run, now or when it is done with what it does.
func (w *Watcher) look() {
	select {
	case w.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Run watches until ctx ends, and then returns nil. It is called once.
func (w *Watcher) Run(ctx context.Context) error {
	watches := &watches{cfg: w.cfg, cancel: make(map[class]context.CancelFunc), ended: make(chan class)}
	for {
		watches.follow(ctx, w.used())
		select {
		case <-w.wake:
		case ended := <-watches.ended:
			delete(watches.cancel, ended)
		case <-ctx.Done():
			watches.drain()
			return nil
		}
	}
}

// used returns the classes that volumes use.
func (w *Watcher) used() map[class]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	used := make(map[class]bool, len(w.users))
	for class := range w.users {
		used[class] = true
	}
	return used
}

// watches are those that Run started. Only Run touches them.
type watches struct {
	cfg    Config
	cancel map[class]context.CancelFunc // of each watch that has not ended
	ended  chan class
}

// follow starts the watches that are missing and ends those that are not used.
// A class that is used again while its watch ends gets the next one after that.
func (s *watches) follow(ctx context.Context, used map[class]bool) {
	for class, cancel := range s.cancel {
		if !used[class] {
			cancel()
		}
	}
	for class := range used {
		if s.cancel[class] == nil {
			s.start(ctx, class)
		}
	}
}

func (s *watches) start(ctx context.Context, of class) {
	ctx, cancel := context.WithCancel(ctx)
	s.cancel[of] = cancel
	go func() {
		defer func() { s.ended <- of }()
		defer cancel()
		s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "watches for requests to refresh",
			slog.String(logkey.Namespace, of.namespace), slog.String(logkey.SecretProviderClass, of.name))
		s.cfg.Classes.WatchSecretProviderClass(ctx, of.namespace, of.name, func(annotations map[string]string) {
			if ctx.Err() == nil {
				s.cfg.Changed(of.namespace, of.name, annotations[apiv1.AnnotationRefresh])
			}
		})
	}()
}

// drain waits until all have ended; their context has.
func (s *watches) drain() {
	for len(s.cancel) > 0 {
		delete(s.cancel, <-s.ended)
	}
}
