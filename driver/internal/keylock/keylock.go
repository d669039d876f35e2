// Package keylock serialises work by key, such as calls on one volume.
package keylock

import (
	"context"
	"sync"
)

// Locks is a set of locks, one per key in use. The zero value is ready.
//
// Invariants:
//  1. At most one caller holds a key.
//  2. A key is kept only while somebody holds it or waits for it.
type Locks struct {
	mu   sync.Mutex
	keys map[string]*lock
}

type lock struct {
	held  chan struct{} // holds one value while the key is held
	users int           // holder and waiters, guarded by Locks.mu
}

// Lock waits for key and returns what unlocks it, or ctx's error.
func (l *Locks) Lock(ctx context.Context, key string) (unlock func(), err error) {
	k := l.enter(key)
	select {
	case k.held <- struct{}{}:
		return func() {
			<-k.held
			l.leave(key, k)
		}, nil
	case <-ctx.Done():
		l.leave(key, k)
		return nil, context.Cause(ctx)
	}
}

func (l *Locks) enter(key string) *lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.keys[key]
	if !ok {
		if l.keys == nil {
			l.keys = make(map[string]*lock)
		}
		k = &lock{held: make(chan struct{}, 1)}
		l.keys[key] = k
	}
	k.users++
	return k
}

func (l *Locks) leave(key string, k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k.users--
	if k.users == 0 {
		delete(l.keys, key)
	}
}
