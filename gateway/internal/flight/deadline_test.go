package flight_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/flight"
)

func TestLeaderDeadline(t *testing.T) {
	t.Parallel()
	const short, long = time.Second, time.Minute
	tests := []struct {
		name string
		// follower is its time; 0 for as long as it takes.
		follower time.Duration
		heedless bool
		end      func(*store)
		// want is the follower's error, and at when it comes.
		want error
		at   time.Duration
	}{
		{name: "heeded, more time", follower: long, want: flight.ErrLeaderDeadline, at: short},
		{name: "heeded, all time", want: flight.ErrLeaderDeadline, at: short},
		{name: "heeded, just enough more time", follower: 2 * short, want: flight.ErrLeaderDeadline, at: short},
		{name: "heeded, a little more time", follower: 2*short - 1, want: context.DeadlineExceeded, at: short},
		{name: "not heeded, a little more time", heedless: true, follower: 2*short - 1, want: context.DeadlineExceeded, at: 2*short - 1},
		{name: "heeded, the same time", follower: short, want: context.DeadlineExceeded, at: short},
		{name: "heeded, less time", follower: short / 2, want: context.DeadlineExceeded, at: short / 2},
		{name: "not heeded, more time", heedless: true, follower: long, want: flight.ErrLeaderDeadline, at: short},
		{name: "not heeded, the same time", heedless: true, follower: short, want: context.DeadlineExceeded, at: short},
		{name: "given up before, more time", follower: long, want: flight.ErrLeaderDeadline, end: func(s *store) { s.fails(flight.OutOfTime(errStore)) }},
		{name: "given up before, a little more time", follower: 2*short - 1, want: errStore, end: func(s *store) { s.fails(flight.OutOfTime(errStore)) }},
		{name: "given up before, the same time", follower: short, want: errStore, end: func(s *store) { s.fails(flight.OutOfTime(errStore)) }},
		{name: "failed before, more time", follower: long, want: errStore, end: func(s *store) { s.fails(errStore) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g, s := flight.New(), newStore()
				s.heedless = tt.heedless
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), short)
				defer cancel()
				leader := call(ctx, g, keyOf("a"), s.work)
				ctx = t.Context()
				if tt.follower > 0 {
					ctx, cancel = context.WithTimeout(ctx, tt.follower)
					defer cancel()
				}
				follower := call(ctx, g, keyOf("a"), s.work)
				if tt.end != nil {
					tt.end(s)
				}
				<-follower.done
				if took := time.Since(start); took != tt.at {
					t.Errorf("the follower heard after %s, want %s", took, tt.at)
				}
				follower.failed(t, tt.want)
				if errors.Is(follower.err, flight.ErrLeaderDeadline) != errors.Is(tt.want, flight.ErrLeaderDeadline) {
					t.Errorf("Do: %v", follower.err)
				}
				<-leader.done
				if leader.err == nil || errors.Is(leader.err, flight.ErrLeaderDeadline) {
					t.Errorf("the leader's error is %v", leader.err)
				}
				if tt.heedless {
					s.answers()
				}
			})
		})
	}
}

var errStore = errors.New("the store does not answer")

// Work that its deadline has overtaken is no flight to join, even if it has not
// returned.
func TestJoinAfterLeaderDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, old, s := flight.New(), newStore(), newStore()
		old.heedless = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		leader := call(ctx, g, keyOf("a"), old.work)
		followers := []*caller{call(t.Context(), g, keyOf("a"), old.work), call(t.Context(), g, keyOf("a"), old.work)}
		<-leader.done
		for _, f := range followers {
			f.failed(t, flight.ErrLeaderDeadline)
		}
		again := []*caller{call(t.Context(), g, keyOf("a"), s.work), call(t.Context(), g, keyOf("a"), s.work)}
		flies(t, g, 0, 2)
		a := s.answers()
		for _, c := range again {
			c.got(t, a)
		}
		if s.begun.Load() != 1 {
			t.Errorf("those who came again made %d calls", s.begun.Load())
		}
		late := old.answers()
		synctest.Wait()
		if !overwritten(late) {
			t.Error("the answer that came too late was not released")
		}
	})
}

// A node full of pods whose deadlines differ a little, and a store that hangs:
// the end of one's time is not the beginning of another one's call.
func TestLeaderDeadline_Storm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const pods, spread = 110, 5 * time.Millisecond
		g, s := flight.New(), newStore()
		var all sync.WaitGroup
		for range pods {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var err error
				for range pods {
					if _, err = g.Do(ctx, keyOf("a"), s.work); !errors.Is(err, flight.ErrLeaderDeadline) {
						break
					}
				}
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Do: %v", err)
				}
			})
			<-time.After(spread)
		}
		all.Wait()
		if n := s.begun.Load(); n != 1 {
			t.Errorf("%d calls of a store that hangs, want 1 for all pods that came within %s", n, pods*spread)
		}
	})
}

// lingering is a context that does not end at its deadline, but a little later,
// if at all.
type lingering struct {
	context.Context //nolint:containedctx // it is one

	deadline time.Time
}

func (l lingering) Deadline() (time.Time, bool) { return l.deadline, true }

// What is over cannot be joined, even if somebody still waits for it.
func TestJoinAfterLeaderDeadline_WhileSomebodyWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, old, s := flight.New(), newStore(), newStore()
		old.heedless = true
		deadline := time.Now().Add(time.Second)
		leader := call(lingering{t.Context(), deadline}, g, keyOf("a"), old.work)
		follower := call(lingering{t.Context(), deadline}, g, keyOf("a"), old.work)
		<-time.After(time.Second)
		if !follower.waits() {
			t.Errorf("who has no more time than the flight has to wait for its outcome, got %v", follower.err)
		}
		late := call(t.Context(), g, keyOf("a"), s.work)
		flies(t, g, 2, 1)
		late.got(t, s.answers())
		a := old.answers()
		leader.got(t, a)
		follower.got(t, a)
	})
}

// Work without a deadline may have had one of its own. Then no caller has more
// time than it.
func TestOutOfTime_WithoutDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, s := flight.New(), newStore()
		callers := []*caller{call(t.Context(), g, keyOf("a"), s.work), call(t.Context(), g, keyOf("a"), s.work)}
		s.fails(flight.OutOfTime(errStore))
		for _, c := range callers {
			c.failed(t, errStore)
			if errors.Is(c.err, flight.ErrLeaderDeadline) {
				t.Errorf("Do: %v, though nobody had a deadline", c.err)
			}
		}
	})
}

// An answer that comes as the deadline passes is an answer all the same.
func TestAnswerAtTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := flight.New()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var brought *answer.Answer
		leader := call(ctx, g, keyOf("a"), func(ctx context.Context) (*answer.Answer, error) {
			<-ctx.Done()
			brought = newAnswer()
			return brought, nil
		})
		<-leader.done
		if leader.err == nil {
			leader.landing.Answer.Release()
		} else if !errors.Is(leader.err, context.DeadlineExceeded) {
			t.Errorf("Do: %v", leader.err)
		}
		g.Wait()
		if !overwritten(brought) {
			t.Error("the answer was not released")
		}
	})
}
