package podstatus

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/postern-dev/postern/internal/logkey"
)

const (
	// maxQueued bounds what waits to be written: several times the pods that
	// a node may have.
	maxQueued = 4096
	// writers is how many writes are under way at once. An API server answers
	// in a few milliseconds: a thousand volumes take a few seconds.
	writers = 4
	// writeTimeout bounds one attempt, which is up to three calls.
	writeTimeout = 30 * time.Second
	// flushTimeout is how long the end of Run waits for what is queued.
	flushTimeout = 3 * time.Second

	retryBase = 500 * time.Millisecond
	retryMax  = time.Minute
	// retryLasting is how long the wait is from maxAttempts on.
	retryLasting = 5 * time.Minute
	// maxAttempts is how often what is refused is tried. It takes about ten
	// minutes. What fails otherwise is tried for as long as it is in the queue.
	maxAttempts = 20
)

// task writes something. It may be run again after a failure.
type task func(ctx context.Context) error

// item is a key's place in the queue.
type item struct {
	key      string
	task     task
	next     task // put while task runs
	due      time.Time
	attempts int
	running  bool
	index    int // in the heap, while not running
}

// queue runs tasks, the latest of each key, with retries.
//
// Invariants:
//  1. Of one key at most one task runs at a time, and at most one waits: the
//     latest. What it replaced is never run.
//  2. At most maxQueued keys are queued; a new one beyond that is refused.
//  3. No task runs before run and none after it.
type queue struct {
	logger *slog.Logger
	// settle is how long a first attempt waits.
	settle  time.Duration
	wake    chan struct{}
	slots   chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	byKey   map[string]*item
	waiting dueHeap
	closing bool
}

func newQueue(logger *slog.Logger, settle time.Duration) *queue {
	return &queue{
		logger: logger,
		settle: settle,
		wake:   make(chan struct{}, 1),
		slots:  make(chan struct{}, writers),
		byKey:  make(map[string]*item),
	}
}

// put queues the task to run after settle, in place of one that waits.
// It never blocks, and tells whether there was room.
func (q *queue) put(key string, t task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	queued, ok := q.byKey[key]
	switch {
	case ok && queued.running:
		queued.next = t
		return true
	case ok:
		// The time of the next attempt stays: a new state is no reason to
		// press an API server that is down.
		queued.task = t
		return true
	case len(q.byKey) >= maxQueued || q.closing:
		return false
	}
	added := &item{key: key, task: t, due: time.Now().Add(q.settle)}
	q.byKey[key] = added
	q.push(added)
	return true
}

// run runs tasks until ctx ends. What is queued then is tried once more, for
// flushTimeout at most.
func (q *queue) run(ctx context.Context) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	q.dispatch(ctx, work)
	timer := time.AfterFunc(flushTimeout, cancel)
	defer timer.Stop()
	q.flush(work)
}

// dispatch starts tasks as they become due, until ctx ends. They run with work.
func (q *queue) dispatch(ctx, work context.Context) {
	for {
		select {
		case q.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		next, wait := q.take(time.Now())
		if next != nil {
			q.start(work, next)
			continue
		}
		<-q.slots
		if !q.sleep(ctx, wait) {
			return
		}
	}
}

// flush tries all that is queued once, due or not.
func (q *queue) flush(work context.Context) {
	q.mu.Lock()
	q.closing = true
	q.mu.Unlock()
	for {
		next, _ := q.take(time.Now().Add(2 * retryLasting))
		if next != nil {
			q.slots <- struct{}{}
			q.start(work, next)
			continue
		}
		// Those that run may have been given a next state meanwhile.
		q.running.Wait()
		if q.len() == 0 {
			return
		}
	}
}

func (q *queue) start(work context.Context, started *item) {
	q.running.Go(func() {
		defer func() { <-q.slots }()
		ctx, cancel := context.WithTimeout(work, writeTimeout)
		defer cancel()
		q.finish(ctx, started, started.task(ctx))
	})
}

// take returns what is due and marks it as running, or how long to wait for
// the next one; negative: there is none.
func (q *queue) take(now time.Time) (*item, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil, -1
	}
	if wait := q.waiting[0].due.Sub(now); wait > 0 {
		return nil, wait
	}
	next := heap.Pop(&q.waiting).(*item) //nolint:forcetypeassert // the heap holds nothing else
	next.running = true
	return next, 0
}

func (q *queue) finish(ctx context.Context, finished *item, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	finished.running = false
	finished.attempts++
	superseded := finished.next != nil
	if superseded {
		finished.task, finished.next = finished.next, nil
	}
	switch {
	case err == nil && superseded:
		finished.attempts = 0
		finished.due = time.Now().Add(q.settle)
	case err == nil:
		delete(q.byKey, finished.key)
		return
	case !superseded && (q.closing || hopeless(err, finished.attempts)):
		delete(q.byKey, finished.key)
		q.logger.LogAttrs(ctx, slog.LevelWarn, "cannot tell Kubernetes what happened, gave up",
			slog.Int(logkey.Attempt, finished.attempts), slog.Any(logkey.Error, err))
		return
	default:
		finished.due = time.Now().Add(backoff(finished.attempts))
		q.logRetry(ctx, finished, err)
	}
	q.push(finished)
}

// hopeless tells whether so many attempts that ended with err are enough.
func hopeless(err error, attempts int) bool {
	return errors.Is(err, errDrop) || errors.Is(err, errRefused) && attempts >= maxAttempts
}

// logRetry is loud once a failure seems to last.
func (q *queue) logRetry(ctx context.Context, failed *item, err error) {
	const lasting = 3
	level := slog.LevelDebug
	if failed.attempts == lasting {
		level = slog.LevelWarn
	}
	q.logger.LogAttrs(ctx, level, "cannot tell Kubernetes what happened, will try again",
		slog.Int(logkey.Attempt, failed.attempts), slog.Any(logkey.Error, err))
}

// push needs q.mu.
func (q *queue) push(added *item) {
	heap.Push(&q.waiting, added)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.byKey)
}

// sleep waits until something was put, or for d if that is not negative. It
// tells whether ctx goes on.
func (q *queue) sleep(ctx context.Context, d time.Duration) bool {
	var elapsed <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		elapsed = timer.C
	}
	select {
	case <-q.wake:
		return true
	case <-elapsed:
		return true
	case <-ctx.Done():
		return false
	}
}

// backoff is how long to wait after so many failures: doubled each time, and
// between half of that and all of it, so that the drivers of all nodes do not
// come back to an API server at once.
func backoff(attempts int) time.Duration {
	const doublings = 10 // beyond retryMax, and far from an overflow
	d := min(retryBase<<min(attempts-1, doublings), retryMax)
	if attempts >= maxAttempts {
		d = retryLasting
	}
	return d/2 + rand.N(d/2+1) //nolint:gosec // spreads load, guards nothing
}

// dueHeap orders items by due time, for container/heap.
type dueHeap []*item

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	added := x.(*item) //nolint:forcetypeassert // nothing else is pushed
	added.index = len(*h)
	*h = append(*h, added)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	popped := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return popped
}
