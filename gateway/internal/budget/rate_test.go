package budget_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/internal/rpc"
)

func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Rate: 10, Burst: 5})
		for range 5 {
			w.begin("a").Done(nil)
		}
		var callers []*caller
		for i := range 20 { // of three stores: the rate is the provider's
			callers = append(callers, w.queue(numbered(i%3)))
		}
		for i, c := range callers {
			c.letIn(t).Done(nil)
			if want := time.Duration(i+1) * 100 * time.Millisecond; (c.took - want).Abs() > time.Millisecond {
				t.Errorf("caller %d waited for %v, want %v", i, c.took, want)
			}
		}
		w.empty()
		<-time.After(10 * time.Second) // no more than the burst is saved up
		for range 5 {
			w.begin("a").Done(nil)
		}
		if c := w.queue("a"); !c.waits() {
			t.Error("a sixth call was let in at once")
		} else {
			c.letIn(t).Cancel()
		}
	})
}

// Without a burst of its own a rate allows as many calls as in one second.
func TestRate_DefaultBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Rate: 2.5})
		for range 3 {
			w.begin("a").Done(nil)
		}
		c := w.queue("a")
		c.letIn(t).Done(nil)
		if (c.took - 400*time.Millisecond).Abs() > time.Millisecond {
			t.Errorf("it waited for %v", c.took)
		}
	})
}

// Who leaves gives its call back to the rate.
func TestRate_CancelGivesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Rate: 1, Burst: 1})
		w.begin("a").Done(nil)
		for range 100 {
			c := w.queue("a")
			c.cancel()
			<-c.done
		}
		stays := w.queue("a")
		stays.letIn(t).Done(nil)
		if (stays.took - time.Second).Abs() > time.Millisecond {
			t.Errorf("it waited for %v, want what the first call takes", stays.took)
		}
	})
}

// Calls that wait for something else take nothing from the rate.
func TestRate_OfCallsThatBegin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 1, Rate: 1, Burst: 5})
		leaves := []*budget.Leave{w.begin("a")}
		var callers []*caller
		for range 10 {
			callers = append(callers, w.queue("a"))
		}
		for i := range 4 {
			leaves = append(leaves, w.begin(numbered(i)))
		}
		for _, c := range callers {
			c.cancel()
		}
		for _, leave := range leaves {
			leave.Done(nil)
		}
	})
}

// A turn that cannot come in time, at this rate, is not waited for.
func TestRate_InVain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Rate: 0.1, Burst: 1})
		w.begin("a").Done(nil)
		var callers []*caller
		for range 6 {
			callers = append(callers, w.queue("a")) // after 10 s, 20 s, ... 60 s
		}
		for i, c := range callers[:5] {
			if !c.waits() {
				t.Fatalf("caller %d does not wait: %v", i, c.err)
			}
		}
		w.refused("a", rpc.ReasonBudgetExhausted)
		if c := w.queue("b"); !c.waits() { // another store has a turn before
			t.Errorf("a call of another store does not wait: %v", c.err)
		}
		for _, c := range callers {
			c.cancel()
			<-c.done
		}
	})
}

// A rate at which no turn comes in anybody's lifetime.
func TestRate_Tiny(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Rate: 1e-15})
		w.begin("a").Done(nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(24*time.Hour, cancel)
		if leave, err := w.Acquire(ctx, vault, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", leave, err)
		}
		w.empty()
	})
}

// A pause of a store does not use up the rate for the others.
func TestRate_PausedStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Rate: 1, Burst: 1})
		w.begin("paused").Done(&rpc.Error{Reason: rpc.ReasonRateLimited, RetryAfter: 10 * time.Second})
		paused := w.queue("paused")
		for range 9 {
			c := w.queue("works")
			c.letIn(t).Done(nil)
			if (c.took - time.Second).Abs() > time.Millisecond {
				t.Errorf("a call waited for %v, want 1s", c.took)
			}
		}
		paused.letIn(t).Done(nil)
		w.empty()
	})
}
