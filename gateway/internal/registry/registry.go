// Package registry knows the providers of a node: it finds their sockets,
// checks who listens, keeps connections, follows their health and says which
// instance serves a name.
//
// # Names
//
// A native provider serves the name of its directory
// (<providers>/<name>/<instance>.sock), and the further names that it declares
// in Describe, unless a directory has such a name: then that directory's
// instances do, even if none is there at the moment. Of two providers that
// declare one name the one whose directory sorts first serves it. A legacy
// provider serves the name of its socket (<dir>/<name>.sock). A native provider
// wins over a legacy one, and among legacy directories the first listed.
//
// # Upgrades
//
// Of one provider's instances the newest that serves is used, by the time its
// socket was bound. An older one is drained: it finishes its calls and gets no
// new ones, but stays connected while its socket is there, as the fallback for
// a newer one that crashes.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// Config says where to look and how to connect.
type Config struct {
	// NativeDir holds a directory for each native provider. Required.
	NativeDir string
	// LegacyDirs hold sockets of providers made for the upstream driver; the
	// first wins.
	LegacyDirs []string
	// MaxMessageBytes bounds a message of a provider. Required.
	MaxMessageBytes int
	// RescanInterval is the time between two looks at all directories, where
	// they are watched as well; default 30 s.
	RescanInterval time.Duration
	// DialOptions are added to each connection's.
	DialOptions []grpc.DialOption
	// Logger is required.
	Logger *slog.Logger
}

// Registry keeps the instances of all providers.
//
// Invariants:
//  1. mu guards all below it and is never held over a call or a system call.
//  2. An instance has one goroutine, which alone opens and closes its
//     connection. It is in instances from when its socket was seen until that
//     goroutine ends. It describes itself anew on each connection, so that
//     what is known of it is always what the connected process said.
//  3. A connection is closed only when no handle to it is out, or when Run ends.
//  4. No byte is sent to a process whose uid is not the expected one: it is
//     checked in each connection's handshake, not just when the socket is found.
//  5. Whatever may change what Acquire answers closes changed.
type Registry struct {
	cfg    Config
	roots  []root
	logger *slog.Logger
	// tended are the instances' goroutines.
	tended sync.WaitGroup

	mu          sync.Mutex
	instances   []*instance
	directories map[string]bool
	unread      error // of the last look at the directories
	lastID      uint64
	scanned     bool
	ending      bool
	changed     chan struct{}
}

// New returns a registry that knows nothing until Run runs.
func New(cfg Config) (*Registry, error) {
	switch {
	case cfg.NativeDir == "":
		return nil, errors.New("registry: no directory for providers is given")
	case cfg.MaxMessageBytes <= 0:
		return nil, errors.New("registry: the maximum message size must be more than 0")
	case cfg.RescanInterval < 0:
		return nil, errors.New("registry: the rescan interval is negative")
	case cfg.Logger == nil:
		return nil, errors.New("registry: no logger is given")
	}
	if cfg.RescanInterval == 0 {
		cfg.RescanInterval = 30 * time.Second
	}
	roots := []root{{dir: cfg.NativeDir, protocol: Native}}
	for i, dir := range cfg.LegacyDirs {
		roots = append(roots, root{dir: dir, protocol: Legacy, order: i})
	}
	return &Registry{
		cfg:         cfg,
		roots:       roots,
		logger:      cfg.Logger,
		directories: map[string]bool{},
		changed:     make(chan struct{}),
	}, nil
}

// Ready returns nil once the directories were looked at. Providers need not be
// there: calls wait for them.
func (r *Registry) Ready(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.scanned {
		return errors.New("the provider directories have not been looked at yet")
	}
	return nil
}

// apply makes instances what a look at the directories found. ctx is that of
// the new instances' goroutines.
func (r *Registry) apply(ctx context.Context, found *finding) {
	for _, inst := range r.merge(ctx, found) {
		r.logger.LogAttrs(ctx, slog.LevelInfo, "provider socket is gone", inst.attrs()...)
	}
}

// merge returns the instances whose socket is gone now.
func (r *Registry) merge(ctx context.Context, found *finding) []*instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found.unread != nil {
		maps.Copy(found.directories, r.directories)
	}
	r.unread = found.unread
	r.directories = found.directories
	r.scanned = true
	var gone []*instance
	for _, inst := range r.instances {
		if found.unread == nil && !inst.gone && !slices.Contains(found.sockets, inst.socket) {
			inst.gone = true
			gone = append(gone, inst)
			r.retireLocked(inst)
		}
	}
	for _, s := range found.sockets {
		if !slices.ContainsFunc(r.instances, func(i *instance) bool { return i.socket == s && !i.gone }) {
			r.addLocked(ctx, s)
		}
	}
	r.notifyLocked()
	return gone
}

// addLocked starts to tend an instance.
func (r *Registry) addLocked(ctx context.Context, s socket) {
	ctx, end := context.WithCancel(ctx)
	r.lastID++
	inst := &instance{id: r.lastID, socket: s, end: end}
	r.instances = append(r.instances, inst)
	r.tended.Go(func() {
		defer r.remove(inst)
		r.tend(ctx, inst)
	})
}

// remove forgets an instance whose goroutine is about to end.
func (r *Registry) remove(inst *instance) {
	inst.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances = slices.DeleteFunc(r.instances, func(i *instance) bool { return i == inst })
	r.notifyLocked()
}

// retireLocked ends an instance whose socket is gone and that has no use any
// more: nobody calls it, and it does not serve or another one does. One that
// lost its socket but works, and is all there is, is kept.
func (r *Registry) retireLocked(inst *instance) {
	if !inst.gone || inst.calls > 0 {
		return
	}
	if inst.state != Serving || r.bestLocked(inst.socket.provider) != inst {
		inst.end()
	}
}

// update changes an instance's state under the lock and tells who waits.
func (r *Registry) update(inst *instance, change func(*instance)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(inst)
	// A newer instance may just have made an older one useless.
	for _, i := range r.instances {
		r.retireLocked(i)
	}
	r.notifyLocked()
}

func (r *Registry) notifyLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// bestLocked is the instance that serves a name, or nil.
func (r *Registry) bestLocked(name string) *instance {
	var best *instance
	bestRank := -1
	for _, inst := range r.instances {
		if inst.state != Serving {
			continue
		}
		rank := inst.rank(name, r.directories)
		if rank >= 0 && (best == nil || inst.better(rank, best, bestRank)) {
			best, bestRank = inst, rank
		}
	}
	return best
}

func (r *Registry) handleLocked(inst *instance) *Handle {
	inst.calls++
	return &Handle{
		Provider:     inst.provider,
		Description:  inst.description,
		ID:           inst.id,
		Socket:       inst.socket.path,
		ProviderName: inst.socket.provider,
		Protocol:     inst.socket.protocol,
		registry:     r,
		instance:     inst,
	}
}

// Connected returns handles to all instances that can be called now, drained
// ones included. The caller has to end each with Done.
func (r *Registry) Connected() []*Handle {
	r.mu.Lock()
	defer r.mu.Unlock()
	var handles []*Handle
	for _, inst := range r.instances {
		if inst.state == Serving {
			handles = append(handles, r.handleLocked(inst))
		}
	}
	return handles
}

// Known reports whether a name is a provider's, whether or not it serves. It
// bounds what becomes a metric's label.
func (r *Registry) Known(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.directories[name] || slices.ContainsFunc(r.instances, func(i *instance) bool {
		return i.rank(name, r.directories) >= 0
	})
}

// places lists where instances of a name are looked for.
func (r *Registry) places(name string) string {
	places := make([]string, 0, len(r.roots))
	for _, root := range r.roots {
		if root.protocol == Native {
			places = append(places, fmt.Sprintf("%s/%s/*%s", root.dir, name, socketSuffix))
			continue
		}
		places = append(places, fmt.Sprintf("%s/%s%s", root.dir, name, socketSuffix))
	}
	return strings.Join(places, ", ")
}
