package flight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/flight"
	"github.com/postern-dev/postern/gateway/internal/key"
	"github.com/postern-dev/postern/internal/rpc"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const content = "hunter2"

func keyOf(class string) key.Key {
	return key.Key{Provider: "vault", Namespace: "default", ServiceAccount: "web", SecretProviderClass: class}
}

func newAnswer() *answer.Answer {
	return answer.New(&providerv1.FetchResponse{
		Files:   []*secretv1.File{{Path: "password", Contents: []byte(content)}},
		Objects: []*secretv1.ObjectVersion{{Id: "password", Version: "1"}},
	}, time.Now())
}

func contentOf(a *answer.Answer) string { return string(a.Response().GetFiles()[0].GetContents()) }

func overwritten(a *answer.Answer) bool {
	return bytes.Equal(a.Response().GetFiles()[0].GetContents(), make([]byte, len(content)))
}

// store is work that a test ends when it likes.
type store struct {
	// heedless makes it go on when its context ends.
	heedless bool
	// ends are what the works come to, one after another.
	ends chan func() (*answer.Answer, error)
	// begun counts works.
	begun atomic.Int64

	mu       sync.Mutex
	contexts []context.Context
}

func newStore() *store { return &store{ends: make(chan func() (*answer.Answer, error), 10)} }

func (s *store) work(ctx context.Context) (*answer.Answer, error) {
	s.begun.Add(1)
	s.mu.Lock()
	s.contexts = append(s.contexts, ctx)
	s.mu.Unlock()
	done := ctx.Done()
	if s.heedless {
		done = nil
	}
	select {
	case end := <-s.ends:
		return end()
	case <-done:
		return nil, ctx.Err()
	}
}

// answers ends one work with an answer.
func (s *store) answers() *answer.Answer {
	a := newAnswer()
	s.ends <- func() (*answer.Answer, error) { return a, nil }
	return a
}

func (s *store) fails(err error) { s.ends <- func() (*answer.Answer, error) { return nil, err } }

// context is that of the nth work.
func (s *store) context(n int) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contexts[n]
}

// caller is one call of Do.
type caller struct {
	leave context.CancelCauseFunc
	done  chan struct{}

	landing flight.Landing
	err     error
}

// call calls Do and returns when it waits or is done.
func call(ctx context.Context, g *flight.Group, k key.Key, work flight.Work) *caller {
	ctx, leave := context.WithCancelCause(ctx)
	c := &caller{leave: leave, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.landing, c.err = g.Do(ctx, k, work)
	}()
	synctest.Wait()
	return c
}

// waits reports whether Do has not returned yet.
func (c *caller) waits() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// got fails the test unless Do has returned this answer.
func (c *caller) got(t *testing.T, want *answer.Answer) {
	t.Helper()
	switch {
	case c.waits():
		t.Error("Do has not returned")
	case c.err != nil:
		t.Errorf("Do: %v", c.err)
	case c.landing.Answer != want:
		t.Error("Do returned another answer")
	case contentOf(want) != content:
		t.Errorf("the content is %q", contentOf(want))
	}
}

// failed fails the test unless Do has returned this error and no answer.
func (c *caller) failed(t *testing.T, want error) {
	t.Helper()
	switch {
	case c.waits():
		t.Error("Do has not returned")
	case c.landing.Answer != nil:
		t.Error("Do returned an answer")
	case !errors.Is(c.err, want):
		t.Errorf("Do: %v, want %v", c.err, want)
	}
}

// flies fails the test unless these many wait for each flight under way.
func flies(t *testing.T, g *flight.Group, waiters ...int) {
	t.Helper()
	synctest.Wait()
	var got []int
	for _, f := range g.Flights() {
		got = append(got, f.Waiters)
	}
	if fmt.Sprint(got) != fmt.Sprint(waiters) {
		t.Errorf("waiters of the flights: %v, want %v", got, waiters)
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, s := flight.New(), newStore()
		first := call(t.Context(), g, keyOf("a"), s.work)
		second := call(t.Context(), g, keyOf("a"), s.work)
		flies(t, g, 2)
		a := s.answers()
		first.got(t, a)
		second.got(t, a)
		if first.landing.Joined || !second.landing.Joined {
			t.Errorf("joined: %v and %v, want that the second did", first.landing.Joined, second.landing.Joined)
		}
		if s.begun.Load() != 1 {
			t.Errorf("%d works for one key", s.begun.Load())
		}
		first.landing.Answer.Release()
		if overwritten(a) {
			t.Error("the answer was overwritten with a reference left")
		}
		second.landing.Answer.Release()
		if !overwritten(a) {
			t.Error("somebody holds a reference too many")
		}
		flies(t, g)
		if s.context(0).Err() == nil {
			t.Error("the context of work that has returned was not ended")
		}
		// Nothing is kept: who comes now begins anew.
		third := call(t.Context(), g, keyOf("a"), s.work)
		third.got(t, s.answers())
		if third.landing.Joined || s.begun.Load() != 2 {
			t.Errorf("after the flight: joined %v, %d works", third.landing.Joined, s.begun.Load())
		}
	})
}

func TestDo_KeysDoNotShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := flight.New()
		var callers []*caller
		var stores []*store
		for i := range 3 {
			s := newStore()
			stores = append(stores, s)
			callers = append(callers, call(t.Context(), g, keyOf(fmt.Sprint(i)), s.work))
			<-time.After(time.Second)
		}
		flights := g.Flights()
		if len(flights) != 3 {
			t.Fatalf("%d flights for 3 keys", len(flights))
		}
		for i, f := range flights {
			if f.Key != keyOf(fmt.Sprint(i)) || !f.StartedAt.Equal(time.Now().Add(time.Duration(i-3)*time.Second)) {
				t.Errorf("flight %d is of %s, from %v: want the oldest first", i, f.Key.SecretProviderClass, f.StartedAt)
			}
		}
		a := stores[1].answers()
		callers[1].got(t, a)
		if !callers[0].waits() || !callers[2].waits() {
			t.Error("a caller got what another key's work brought")
		}
		stores[0].answers()
		stores[2].answers()
	})
}

func TestDo_SharesFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, s := flight.New(), newStore()
		first := call(t.Context(), g, keyOf("a"), s.work)
		second := call(t.Context(), g, keyOf("a"), s.work)
		denied := &rpc.Error{Reason: rpc.ReasonAccessDenied}
		s.fails(denied)
		first.failed(t, denied)
		second.failed(t, denied)
		if first.err != second.err || first.err != error(denied) { //nolint:errorlint // asks whether it is not wrapped
			t.Errorf("the failures are %v and %v, want the work's as it is", first.err, second.err)
		}
	})
}

func TestCancelOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, s := flight.New(), newStore()
		first := call(t.Context(), g, keyOf("a"), s.work)
		second := call(t.Context(), g, keyOf("a"), s.work)
		gone := errors.New("the pod is gone")
		second.leave(gone)
		second.failed(t, gone)
		second.failed(t, context.Canceled)
		flies(t, g, 1)
		if !first.waits() {
			t.Fatalf("one left and the other does not wait any more: %v", first.err)
		}
		a := s.answers()
		first.got(t, a)
		first.landing.Answer.Release()
		if !overwritten(a) {
			t.Error("who left has a reference")
		}
	})
}

func TestLeaderCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, s := flight.New(), newStore()
		leader := call(t.Context(), g, keyOf("a"), s.work)
		follower := call(t.Context(), g, keyOf("a"), s.work)
		leader.leave(nil)
		leader.failed(t, context.Canceled)
		if err := s.context(0).Err(); err != nil || !follower.waits() {
			t.Fatalf("the leader left and the work's context ended: %v", err)
		}
		// The flight can be joined still.
		late := call(t.Context(), g, keyOf("a"), s.work)
		flies(t, g, 2)
		a := s.answers()
		follower.got(t, a)
		late.got(t, a)
		if !late.landing.Joined || s.begun.Load() != 1 {
			t.Errorf("joined %v, %d works, want that the late one joins", late.landing.Joined, s.begun.Load())
		}
	})
}

func TestCancelLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, s := flight.New(), newStore()
		leader := call(t.Context(), g, keyOf("a"), s.work)
		follower := call(t.Context(), g, keyOf("a"), s.work)
		leader.leave(nil)
		synctest.Wait()
		if s.context(0).Err() != nil {
			t.Error("the work was cancelled while one waits")
		}
		follower.leave(nil)
		follower.failed(t, context.Canceled)
		if err := s.context(0).Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("nobody waits and the work's context is %v", err)
		}
		flies(t, g)
		g.Wait()
	})
}

// Who comes after the last has left, before the cancelled work has returned, has
// nothing to do with that work.
func TestJoinAfterCancelLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, old, s := flight.New(), newStore(), newStore()
		old.heedless = true
		first := call(t.Context(), g, keyOf("a"), old.work)
		first.leave(nil)
		first.failed(t, context.Canceled)
		second := call(t.Context(), g, keyOf("a"), s.work)
		flies(t, g, 0, 1)
		if second.landing.Joined || s.begun.Load() != 1 {
			t.Fatalf("the late one waits for work that was cancelled")
		}
		unwanted := old.answers()
		synctest.Wait()
		if !overwritten(unwanted) {
			t.Error("an answer that nobody takes was not released")
		}
		flies(t, g, 1)
		// The old work's end does not hide the new flight.
		third := call(t.Context(), g, keyOf("a"), s.work)
		a := s.answers()
		second.got(t, a)
		third.got(t, a)
		if !third.landing.Joined {
			t.Error("the new flight could not be joined when the old work had returned")
		}
	})
}

// A caller whose context has ended begins nothing.
func TestDo_Ended(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, s := flight.New(), newStore()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		call(ctx, g, keyOf("a"), s.work).failed(t, context.Canceled)
		if s.begun.Load() != 0 {
			t.Error("work was begun for a caller that has left")
		}
	})
}
