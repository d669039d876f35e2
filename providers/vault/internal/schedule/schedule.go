// Package schedule runs tasks when they are due, such as renewals.
package schedule

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// concurrency is how many tasks run at a time.
const concurrency = 4

// Task does something and returns in how long to do it again; zero or less: not
// again.
type Task func(ctx context.Context) time.Duration

// Loop runs tasks at their time, while Run runs.
//
// Its invariants:
//  1. There is at most one task for a key; a new one replaces the old.
//  2. A task does not run twice at the same time.
//  3. No task runs before Run has started nor after it has ended.
type Loop struct {
	wake chan struct{}

	mu      sync.Mutex
	entries map[any]*entry
}

type entry struct {
	task    Task
	due     time.Time
	running bool
}

// New returns a Loop without tasks.
func New() *Loop {
	return &Loop{wake: make(chan struct{}, 1), entries: make(map[any]*entry)}
}

// Set schedules a task under a comparable key.
func (l *Loop) Set(key any, after time.Duration, task Task) {
	l.mu.Lock()
	l.entries[key] = &entry{task: task, due: time.Now().Add(after)}
	l.mu.Unlock()
	l.notify()
}

// Remove forgets the task under key. One that runs goes on, once.
func (l *Loop) Remove(key any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, key)
}

// Run runs tasks until ctx ends, and returns when the last has ended.
func (l *Loop) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	slots := make(chan struct{}, concurrency)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, next := l.due()
		for _, key := range due {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			tasks.Go(func() {
				l.run(ctx, key)
				<-slots
			})
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-l.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// due returns the keys of the tasks to run now, and when to look again.
func (l *Loop) due() ([]any, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := time.Hour
	var keys []any
	for key, e := range l.entries {
		if e.running {
			continue
		}
		if wait := time.Until(e.due); wait > 0 {
			next = min(next, wait)
			continue
		}
		e.running = true
		keys = append(keys, key)
	}
	return keys, next
}

func (l *Loop) run(ctx context.Context, key any) {
	l.mu.Lock()
	e, ok := l.entries[key]
	l.mu.Unlock()
	if !ok || !e.running {
		return // removed or replaced in the meantime
	}
	after := e.task(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	e.running = false
	if l.entries[key] != e {
		return
	}
	if after <= 0 {
		delete(l.entries, key)
		return
	}
	e.due = time.Now().Add(after)
	l.notify()
}

func (l *Loop) notify() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// TwoThirds is when to renew what lives for d: at two thirds of it, less up to
// a tenth of that, so that what began together does not end together.
func TwoThirds(d time.Duration) time.Duration {
	at := d * 2 / 3
	return max(at-rand.N(at/10+1), time.Second) //nolint:gosec // jitter is no secret
}
