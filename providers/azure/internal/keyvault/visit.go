package keyvault

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// visit is one call: what it has read is read once.
//
// Its invariants:
//  1. All its goroutines end before the call does.
//  2. It waits for the vault with at most as many requests as the vault may get at
//     a time, so that a call of many objects leaves room for others.
//  3. Once a vault could not be asked for its challenge, no more is asked.
type visit struct {
	store *Store
	vault Vault
	limit *limit
	slots chan struct{}
	gets  memo[getKey, Object]
	lists memo[listKey, []entry]
	// lost is why the vault could not be asked; nil while it can.
	lost atomic.Pointer[Error]
}

// getKey is an object in one version; the newest if that is "".
type getKey struct {
	kind          params.ObjectType
	name, version string
}

// listKey is an object of which versions are listed.
type listKey struct {
	kind params.ObjectType
	name string
}

func (s *Store) visit(vault Vault) *visit {
	return &visit{
		store: s, vault: vault, limit: s.limits.enter(vault.URL),
		slots: make(chan struct{}, s.concurrency),
	}
}

func (v *visit) leave() { v.store.limits.leave(v.limit) }

// read reads one ref.
func (v *visit) read(ctx context.Context, ref Ref) Answer {
	answer := Answer{Ref: ref}
	var failure *Error
	if ref.History > 1 {
		answer.Objects, failure = v.history(ctx, ref)
	} else {
		var object Object
		if object, failure = v.get(ctx, getKey{ref.Type, ref.Name, ref.Version}); failure == nil {
			answer.Objects = []Object{object}
		}
	}
	if failure != nil {
		answer.Err = failure
	}
	return answer
}

// get reads one version of an object.
func (v *visit) get(ctx context.Context, key getKey) (Object, *Error) {
	return v.gets.do(key, func() (object Object, failure *Error) {
		failure = v.call(ctx, operation{key.kind, "get", key.name}, func(ctx context.Context, from service) error {
			var err error
			object, err = from.get(ctx, key.name, key.version)
			return err
		})
		if failure != nil {
			return Object{}, failure
		}
		return object, nil
	})
}

// call makes one request, when it is its turn.
func (v *visit) call(ctx context.Context, did operation, do func(context.Context, service) error) (failure *Error) {
	c, err := v.store.clients.of(v.vault, did.kind)
	if err != nil {
		return did.refused(v.vault.URL, err)
	}
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-ctx.Done():
		return did.ended(v.vault.URL, ctx.Err())
	}
	if lost := v.lost.Load(); lost != nil {
		return lost.of(did)
	}
	first, lost := c.challenge.wait(ctx)
	if lost != nil {
		v.lost.Store(lost)
		return lost.of(did)
	}
	if first {
		defer func() {
			if lost := c.challenge.done(vaultWide(ctx, failure)); lost != nil {
				v.lost.Store(lost)
			}
		}()
	}
	return v.ask(ctx, did, c, do)
}

// ask makes the request.
func (v *visit) ask(ctx context.Context, did operation, c *client, do func(context.Context, service) error) *Error {
	if err := v.limit.turns.Acquire(ctx, 1); err != nil {
		return did.ended(v.vault.URL, err)
	}
	defer v.limit.turns.Release(1)
	a := newAttempts(ctx, v.store.logger, did)
	err := do(a.context(ctx), c.service)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return did.ended(v.vault.URL, ctx.Err())
	default:
		return did.failed(v.vault.URL, a, err)
	}
}

// vaultWide returns a failure to learn the vault's challenge, if those have it too
// who wait for that. That this caller's time is over, or that it asked for what
// vaults do not take, says nothing of theirs.
func vaultWide(ctx context.Context, failure *Error) *Error {
	if failure != nil && failure.Kind != Invalid && ctx.Err() == nil {
		return failure
	}
	return nil
}

// memo does for each key once, also when asked at the same time.
type memo[K comparable, V any] struct {
	mu    sync.Mutex
	calls map[K]*memoized[V]
}

type memoized[V any] struct {
	once    sync.Once
	value   V
	failure *Error
}

func (m *memo[K, V]) do(key K, read func() (V, *Error)) (V, *Error) {
	m.mu.Lock()
	c, ok := m.calls[key]
	if !ok {
		if m.calls == nil {
			m.calls = make(map[K]*memoized[V])
		}
		c = new(memoized[V])
		m.calls[key] = c
	}
	m.mu.Unlock()
	c.once.Do(func() { c.value, c.failure = read() })
	return c.value, c.failure
}
