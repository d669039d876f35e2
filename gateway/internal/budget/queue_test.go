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

// Of one store those who came first go first.
func TestQueue_FIFO(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 1})
		leave := w.begin("a")
		var callers []*caller
		for range 20 {
			callers = append(callers, w.queue("a"))
		}
		for i, c := range callers {
			<-time.After(time.Second)
			leave.Done(nil)
			leave = c.letIn(t)
			if want := time.Duration(i+1) * time.Second; c.took != want {
				t.Fatalf("caller %d waited for %v, want %v", i, c.took, want)
			}
			if i < len(callers)-1 && !callers[i+1].waits() {
				t.Fatalf("caller %d goes with caller %d", i+1, i)
			}
		}
		leave.Done(nil)
		w.empty()
	})
}

// Stores take turns, however many wait for one of them.
func TestQueue_StoresTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Calls: 1})
		leave := w.begin("other")
		flood := []*caller{w.queue("flood"), w.queue("flood"), w.queue("flood"), w.queue("flood")}
		one, two := w.queue("one"), w.queue("two")
		late := w.queue("one")
		for i, next := range []*caller{flood[0], one, two, flood[1], late, flood[2], flood[3]} {
			leave.Done(nil)
			if next.waits() {
				t.Fatalf("caller %d of %s waits", i, next.name)
			}
			leave = next.letIn(t)
		}
		leave.Done(nil)
		w.empty()
	})
}

// Who leaves the queue frees a place in it, and does not lose a turn for others.
func TestQueue_CancelFreesPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 1, Queue: 2})
		leave := w.begin("a")
		first, second := w.queue("a"), w.queue("a")
		w.refused("a", rpc.ReasonBudgetExhausted)
		first.cancel()
		if first.waits() || !errors.Is(first.err, context.Canceled) {
			t.Fatalf("a caller that left got %v", first.err)
		}
		third := w.queue("a")
		if !third.waits() {
			t.Fatalf("there is no place: %v", third.err)
		}
		leave.Done(nil)
		if second.waits() || !third.waits() {
			t.Fatal("the second caller's turn is not next")
		}
		second.letIn(t).Done(nil)
		third.letIn(t).Done(nil)
		w.empty()
		if used, _ := w.Status(vault); used.Refused != 1 {
			t.Errorf("%d calls are counted as refused, want the one", used.Refused)
		}
	})
}

// A flood for one store does not fill the queue for the others.
func TestQueue_FloodMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Calls: 2, StoreCalls: 1, Queue: 5})
		flood, other := w.begin("flood"), w.begin("other")
		var waiting []*caller
		for range 5 {
			waiting = append(waiting, w.queue("flood"))
		}
		w.refused("flood", rpc.ReasonBudgetExhausted)

		one := w.queue("other") // 5 against 0: the last one of the flood goes
		waiting[4].failsAtOnce(t, rpc.ReasonBudgetExhausted)
		two := w.queue("other") // 4 against 1
		waiting[3].failsAtOnce(t, rpc.ReasonBudgetExhausted)
		w.refused("other", rpc.ReasonBudgetExhausted) // 3 against 2
		flood.Done(nil)
		other.Done(nil)
		for _, c := range []*caller{waiting[0], waiting[1], waiting[2], one, two} {
			c.letIn(t).Done(nil)
		}
		w.empty()
	})
}

// One end of a call may let more than one begin, past stores that may not.
func TestQueue_MoreThanOneBegins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 4})
		for _, store := range []string{"a", "x", "y"} {
			w.begin(store).Done(&rpc.Error{Reason: rpc.ReasonRateLimited})
		}
		<-time.After(time.Second)
		leaves := []*budget.Leave{w.begin("a"), w.begin("a")} // its window is 2
		for _, store := range []string{"x", "y"} {
			w.begin(store).Done(&rpc.Error{Reason: rpc.ReasonRateLimited, RetryAfter: 30 * time.Second})
		}
		callers := []*caller{w.queue("x"), w.queue("y"), w.queue("a"), w.queue("a")}
		leaves[0].Done(nil) // it is 3
		for _, c := range callers[2:] {
			if c.waits() {
				t.Error("one of two calls that may begin waits")
			}
		}
		leaves[1].Done(nil)
		for _, c := range callers {
			c.letIn(t).Done(nil)
		}
		w.empty()
	})
}

// A turn that comes while its caller leaves is not lost.
func TestQueue_TurnComesWhileLeaving(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 1})
		for range 100 {
			leave := w.begin("a")
			c := w.queue("a")
			c.cancel()
			leave.Done(nil)
			if <-c.done; c.err == nil {
				c.leave.Cancel()
			} else if !errors.Is(c.err, context.Canceled) {
				t.Errorf("a caller that left got %v", c.err)
			}
		}
		w.empty()
	})
}

// A turn that does not come in time.
func TestQueue_Deadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 1})
		leave := w.begin("a")
		c := w.queueFor("a", 3*time.Second)
		<-c.done
		_ = refusalOf(t, c.err, rpc.ReasonBudgetExhausted)
		if c.took != 3*time.Second {
			t.Errorf("it waited for %v", c.took)
		}
		leave.Done(nil)
		w.empty()
		w.begin("a").Done(nil)
	})
}

// A context that is over before, and one without a deadline.
func TestAcquire_Context(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 1})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if leave, err := w.Acquire(ctx, vault, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", leave, err)
		}
		past, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		if leave, err := w.Acquire(past, vault, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, %v", leave, err)
		}
		if names := w.Providers(); len(names) != 0 {
			t.Errorf("calls that were over are known: %v", names)
		}
		endless, leave := t.Context(), w.begin("a")
		leave.Done(&rpc.Error{Reason: rpc.ReasonRateLimited, RetryAfter: 4 * time.Minute})
		began := time.Now()
		again, err := w.Acquire(endless, vault, "a")
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 4*time.Minute {
			t.Errorf("it waited for %v", took)
		}
		again.Done(nil)
	})
}

// A place is given back once.
func TestLeave_Twice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 1})
		first := w.begin("a")
		first.Done(nil)
		second := w.begin("a")
		first.Done(failure(rpc.ReasonRateLimited))
		first.Cancel()
		if s := w.store("a"); s.Calls != 1 || s.State != budget.Closed {
			t.Errorf("the store is %+v", s)
		}
		second.Done(nil)
		w.empty()
	})
}

// Waiting calls are told at once when the store's breaker opens.
func TestQueue_StoreFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 5})
		var leaves []*budget.Leave
		for range 5 {
			leaves = append(leaves, w.begin("bad"))
		}
		var callers []*caller
		for range 10 {
			callers = append(callers, w.queue("bad"))
		}
		for i, leave := range leaves {
			leave.Done(failure(rpc.ReasonStoreUnavailable))
			synctest.Wait()
			if i < 4 { // their places go to those who wait
				callers[i].letIn(t)
			}
		}
		for _, c := range callers[4:] {
			c.failsAtOnce(t, rpc.ReasonStoreUnavailable)
		}
		for _, c := range callers[:4] {
			c.letIn(t).Cancel()
		}
		w.empty()
	})
}

// Waiting calls go on waiting when the store asks to slow down, but for those
// that have no time for that.
func TestQueue_Throttled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 1})
		leave := w.begin("a")
		long, short, longer := w.queueFor("a", 8*time.Second), w.queueFor("a", 6*time.Second), w.queueFor("a", 20*time.Second)
		<-time.After(time.Second)
		leave.Done(&rpc.Error{Reason: rpc.ReasonRateLimited, RetryAfter: 5 * time.Second})
		short.failsAtOnce(t, rpc.ReasonRateLimited)
		if !long.waits() || !longer.waits() {
			t.Fatal("a call that has the time does not wait")
		}
		leave = long.letIn(t)
		if long.took != 6*time.Second {
			t.Errorf("it waited for %v, want what the store asked for", long.took)
		}
		if !longer.waits() {
			t.Error("more than one call was let in")
		}
		leave.Done(nil)
		longer.letIn(t).Done(nil)
		w.empty()
	})
}

// A call that comes just when a pause ends does not overtake those who wait.
func TestQueue_NoOvertaking(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{StoreCalls: 1})
		for i := range 100 { // sometimes it comes before the timer, and sometimes after it
			store := numbered(i)
			w.begin(store).Done(&rpc.Error{Reason: rpc.ReasonRateLimited, RetryAfter: time.Second})
			first := w.queue(store)
			<-time.After(time.Second)
			second := w.queue(store)
			leave := first.letIn(t)
			if !second.waits() {
				t.Fatal("the second call overtook the first")
			}
			leave.Done(nil)
			second.letIn(t).Done(nil)
		}
	})
}

// That a call ran out of time which had only the rest of its caller's says
// nothing about the store.
func TestLeave_CutShort(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		// took is how long the call took, of the 10 s that were left.
		took time.Duration
		want uint32
	}{
		"its caller's time is over":          {10 * time.Second, 0},
		"but for what is kept back":          {9 * time.Second, 0},
		"the store gave up long before":      {5 * time.Second, 1},
		"the store did not take long at all": {0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, budget.Limits{StoreCalls: 1})
				leave := w.begin("a")
				c := w.queueFor("a", 30*time.Second)
				<-time.After(20 * time.Second)
				leave.Done(nil)
				leave = c.letIn(t)
				<-time.After(tt.took)
				leave.Done(failure(rpc.ReasonDeadlineExceeded))
				if got := w.store("a").Failures; got != tt.want {
					t.Errorf("%d failures are counted, want %d", got, tt.want)
				}
			})
		})
	}
}

// A call that did not wait had all the time that its caller gave it.
func TestLeave_NotCutShort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{})
		leave := w.begin("a")
		<-time.After(patience)
		leave.Done(failure(rpc.ReasonDeadlineExceeded))
		if got := w.store("a").Failures; got != 1 {
			t.Errorf("%d failures are counted", got)
		}
	})
}

// A call that does not wait out pauses is refused while there is one, as soon as
// it begins, and waits for its turn otherwise.
func TestAcquireUnpaused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Calls: 4, StoreCalls: 1})
		refused := func(err error) {
			t.Helper()
			refusal := refusalOf(t, err, rpc.ReasonRateLimited)
			if refusal.RetryAfter != 10*time.Second {
				t.Errorf("it may come again in %v", refusal.RetryAfter)
			}
			const want = `the store "a" of provider "vault" asked to slow down and is asked again in 10s: ` +
				"raise the store's limit, or ask it less with --max-rate=vault=N (Helm value gateway.budgets.maxRate)"
			if refusal.Message != want {
				t.Errorf("got %q, want %q", refusal.Message, want)
			}
		}
		first := w.begin("a")
		waiting := make(chan error, 1)
		go func() {
			_, err := w.AcquireUnpaused(t.Context(), vault, "a")
			waiting <- err
		}()
		synctest.Wait()
		patient := w.queue("a")
		if len(waiting) > 0 {
			t.Fatalf("it does not wait for its turn: %v", <-waiting)
		}
		first.Done(&rpc.Error{Reason: rpc.ReasonRateLimited, RetryAfter: 10 * time.Second})
		refused(<-waiting)
		_, err := w.AcquireUnpaused(t.Context(), vault, "a")
		refused(err)
		patient.letIn(t).Done(nil)
		if patient.took != 10*time.Second {
			t.Errorf("the patient call waited for %v", patient.took)
		}
		leave, err := w.AcquireUnpaused(t.Context(), vault, "a")
		if err != nil {
			t.Fatalf("after the pause: %v", err)
		}
		leave.Done(nil)
		w.empty()
	})
}
