package kube

import (
	"context"
	"sync"
)

// flights makes one call of several that ask for the same thing at the same
// time. The zero value is ready.
//
// Invariants:
//  1. At most one call per key is joined at any time.
//  2. A waiter leaves when its own context ends, and the others stay.
//  3. A call is cancelled when its last waiter left, and nobody joins it then.
//  4. No goroutine outlives its call.
type flights[T any] struct {
	mu    sync.Mutex
	byKey map[string]*flight[T]
}

type flight[T any] struct {
	waiters int // guarded by flights.mu
	cancel  context.CancelFunc
	done    chan struct{}
	value   T // set before done is closed, as is err
	err     error
}

// do returns what call returns, its own call or one that is under way. All
// callers get the same value. The call sees the values of the first caller's
// context, such as its trace.
func (f *flights[T]) do(ctx context.Context, key string, call func(context.Context) (T, error)) (T, error) {
	current := f.join(ctx, key, call)
	select {
	case <-current.done:
		f.leave(key, current)
		return current.value, current.err
	case <-ctx.Done():
		f.leave(key, current)
		var none T
		return none, context.Cause(ctx)
	}
}

func (f *flights[T]) join(ctx context.Context, key string, call func(context.Context) (T, error)) *flight[T] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if current, ok := f.byKey[key]; ok {
		current.waiters++
		return current
	}
	callCtx, cancel := context.WithCancel(context.WithoutCancel(ctx)) //nolint:gosec // called when the last waiter leaves
	current := &flight[T]{waiters: 1, cancel: cancel, done: make(chan struct{})}
	if f.byKey == nil {
		f.byKey = make(map[string]*flight[T])
	}
	f.byKey[key] = current
	go func() {
		current.value, current.err = call(callCtx)
		f.forget(key, current)
		close(current.done)
	}()
	return current
}

func (f *flights[T]) leave(key string, left *flight[T]) {
	f.mu.Lock()
	left.waiters--
	last := left.waiters == 0
	if last && f.byKey[key] == left {
		delete(f.byKey, key)
	}
	f.mu.Unlock()
	if last {
		left.cancel()
	}
}

// forget lets nobody join a call whose answer is there: who asks later wants a
// later answer.
func (f *flights[T]) forget(key string, finished *flight[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byKey[key] == finished {
		delete(f.byKey, key)
	}
}
