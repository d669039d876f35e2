// Package flight makes one call of what many ask for at the same time.
//
// It differs from golang.org/x/sync/singleflight in that a caller can leave, that
// work which nobody waits for is cancelled, and that each caller gets a reference
// of its own to the answer.
package flight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/key"
)

// ErrLeaderDeadline is what a caller gets who has a good deal of time left when
// that of the flight is over: the flight had the deadline of the caller who began
// it. The caller may come again and then begins a flight, or joins one, with more
// time.
var ErrLeaderDeadline = errors.New("the fetch that this one had joined ran out of time")

// worthwhile is how much more time than a flight a caller has to have for
// another one. Callers that come at once have deadlines that differ by little:
// without a bound each of them would make a call of its own as a store hangs.
const worthwhile = time.Second

// Work gets an answer. It returns one reference to it, which is the group's.
//
// Its context has the values of the one who began the flight, so its spans are
// that one's, and the same deadline, but ends otherwise only when nobody waits
// any more. An error is shared by all who wait; nobody may change it.
type Work func(ctx context.Context) (*answer.Answer, error)

// Landing is how a flight ended for one caller.
type Landing struct {
	// Answer is the caller's to release. It is nil with an error.
	Answer *answer.Answer
	// Joined says that the flight was under way when the caller came.
	Joined bool
	// Work is the span under which the work runs, to link to.
	Work trace.SpanContext
}

// Flight is work that is under way.
type Flight struct {
	Key key.Key
	// Waiters counts the callers that wait. It is 0 for work that was cancelled
	// and has not returned yet.
	Waiters   int
	StartedAt time.Time
}

// Group runs the flights of a process. It is safe for concurrent use.
//
// Invariants:
//  1. Of one key at most one flight can be joined: that in current, unless its
//     work's context has ended.
//  2. A flight's work is cancelled when its last waiter leaves, and not before,
//     except by its deadline. Who comes after that begins a new one at once,
//     even if the old work has not returned: its outcome is nobody's.
//  3. A caller leaves as soon as its own context ends, whatever the work does.
//     One with worthwhile more time leaves when the flight's time is over.
//  4. Each caller that gets an answer gets one reference to it. The group keeps
//     none: an answer that nobody waits for is released as it comes.
//  5. Work that panics, or ends its goroutine, fails for all who wait, and for
//     nobody else.
//  6. Each work has a goroutine, which ends when the work returns; see Wait.
//  7. mu guards all below it, and the waiters and the outcome of each flight
//     until that has landed. It is never held over work or over the release of
//     an answer.
type Group struct {
	works sync.WaitGroup

	mu sync.Mutex
	// current are the last flights of their keys, until they land.
	current map[key.Key]*flight
	// running are those whose work has not returned, the oldest first.
	running []*flight
}

// flight is one work and those who wait for it.
type flight struct {
	key       key.Key
	startedAt time.Time
	span      trace.SpanContext
	// deadline is zero where there is none.
	deadline time.Time
	cancel   context.CancelFunc
	// over is closed when the work's context ends, landed when the work has
	// returned.
	over   <-chan struct{}
	landed chan struct{}

	waiters int
	outcome outcome
}

// outcome is what work came to. Once its flight has landed it does not change.
type outcome struct {
	answer *answer.Answer
	err    error
	// outOfTime says that with more time there may have been no error.
	outOfTime bool
}

// New returns a group without flights.
func New() *Group {
	return &Group{current: map[key.Key]*flight{}}
}

// Do waits for the flight of a key, and begins one with this work if there is
// none to join. A panic of the work is a failure with INTERNAL, whose chain has
// a [*PanicError].
//
// If ctx ends first the error is ctx's, with its cause. Another's deadline is
// [ErrLeaderDeadline], and only for a caller that has worthwhile more time.
func (g *Group) Do(ctx context.Context, k key.Key, work Work) (Landing, error) {
	if ctx.Err() != nil {
		return Landing{}, ended(ctx)
	}
	f, joined := g.join(ctx, k, work)
	landing := Landing{Joined: joined, Work: f.span}
	outlasts := joined && f.outlastedBy(ctx)
	var over <-chan struct{} // at its own deadline a caller hears of its own context
	if outlasts {
		over = f.over
	}
	select {
	case <-f.landed:
	case <-ctx.Done():
		if g.leave(f) {
			return landing, ended(ctx)
		}
	case <-over:
		// Work need not heed its context, and this caller has no time to lose.
		if g.leave(f) {
			return landing, ErrLeaderDeadline
		}
	}
	if f.outcome.outOfTime && outlasts {
		return landing, fmt.Errorf("%w: %w", ErrLeaderDeadline, f.outcome.err)
	}
	landing.Answer = f.outcome.answer
	return landing, f.outcome.err
}

// Flights returns what is under way, the oldest first.
func (g *Group) Flights() []Flight {
	g.mu.Lock()
	defer g.mu.Unlock()
	flights := make([]Flight, 0, len(g.running))
	for _, f := range g.running {
		flights = append(flights, Flight{Key: f.key, Waiters: f.waiters, StartedAt: f.startedAt})
	}
	return flights
}

// Wait returns when no work is under way any more. It is for the end of a
// process or a test, after the last Do has returned.
func (g *Group) Wait() { g.works.Wait() }

// join makes its caller a waiter.
func (g *Group) join(ctx context.Context, k key.Key, work Work) (f *flight, joined bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f, ok := g.current[k]; ok && !closed(f.over) {
		f.waiters++
		return f, true
	}
	f = &flight{
		key:       k,
		startedAt: time.Now(),
		span:      trace.SpanContextFromContext(ctx),
		landed:    make(chan struct{}),
		waiters:   1,
	}
	detached := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		f.deadline = deadline
		detached, f.cancel = context.WithDeadline(detached, deadline)
	} else {
		detached, f.cancel = context.WithCancel(detached)
	}
	f.over = detached.Done()
	g.current[k] = f
	g.running = append(g.running, f)
	g.works.Go(func() { g.fly(detached, f, work) })
	return f, false
}

// leave ends a caller's wait. It reports false, and does nothing, if the flight
// has landed: then its outcome is there for the caller to take.
func (g *Group) leave(f *flight) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if closed(f.landed) {
		return false
	}
	f.waiters--
	if f.waiters == 0 {
		f.cancel() // before anybody can join
	}
	return true
}

// fly is the goroutine of one work.
func (g *Group) fly(ctx context.Context, f *flight, work Work) {
	var out outcome
	defer func() {
		if out.answer == nil && out.err == nil { // also of work that ended its goroutine
			out.err = internal(nil)
		}
		g.land(f, out)
	}()
	out = protected(ctx, work)
}

// land hands the outcome to all who wait.
func (g *Group) land(f *flight, out outcome) {
	out.outOfTime = out.err != nil && (out.outOfTime || closed(f.over))
	g.mu.Lock()
	if g.current[f.key] == f {
		delete(g.current, f.key)
	}
	g.running = slices.DeleteFunc(g.running, func(other *flight) bool { return other == f })
	f.outcome = out
	if out.answer != nil {
		for range f.waiters {
			out.answer.Retain()
		}
	}
	close(f.landed)
	g.mu.Unlock()
	f.cancel()
	if out.answer != nil {
		out.answer.Release() // the work's reference
	}
}

// outlastedBy reports whether a caller has worthwhile more time than the flight.
func (f *flight) outlastedBy(ctx context.Context) bool {
	if f.deadline.IsZero() {
		return false
	}
	deadline, ok := ctx.Deadline()
	return !ok || deadline.Sub(f.deadline) >= worthwhile
}

// ended is why a context ended, for errors.Is with its Err as well as with its
// cause.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
