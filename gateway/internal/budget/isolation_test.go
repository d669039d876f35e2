package budget_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/internal/rpc"
)

// A store that hangs while many ask for it delays neither another store of its
// provider nor another provider, whatever its calls come to.
func TestHangingStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{})
		var callers sync.WaitGroup
		for range 2000 {
			callers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				leave, err := w.Acquire(ctx, vault, "hangs")
				if err != nil {
					return
				}
				<-time.After(30 * time.Second)
				leave.Done(context.DeadlineExceeded)
			})
		}
		for range 45 {
			synctest.Wait()
			leaves := []*budget.Leave{w.beginOf("aws", "works")}
			for range 16 {
				leaves = append(leaves, w.begin("works"))
			}
			<-time.After(time.Second)
			for _, leave := range leaves {
				leave.Done(nil)
			}
		}
		callers.Wait()
		w.empty()
		if s := w.store("works"); s.State != budget.Closed || s.MaxCalls != 16 {
			t.Errorf("the store that works is %+v", s)
		}
	})
}

// Stores that hang, however many ask for them, leave places for those that work.
func TestHangingStores(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{})
		var callers []*caller
		for i := range 10 {
			for range 20 {
				callers = append(callers, w.queue(numbered(i)))
			}
		}
		if used, _ := w.Status(vault); used.Calls != 55 { // 3 stores with 16, 7 with 1
			t.Errorf("%d calls are under way", used.Calls)
		}
		for range 20 {
			leave := w.begin("works")
			<-time.After(time.Second)
			leave.Done(nil)
		}
		for _, c := range callers {
			c.letIn(t).Done(nil)
		}
		w.empty()
	})
}

// One call tries a store whose breaker is open, however many come.
func TestHalfOpen_ExactlyOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{})
		for range 5 {
			w.begin("a").Done(failure(rpc.ReasonStoreUnavailable))
		}
		<-time.After(500 * time.Millisecond)
		var letIn, refused atomic.Int64
		var probe *budget.Leave
		var callers sync.WaitGroup
		for range 500 {
			callers.Go(func() {
				leave, err := w.Acquire(t.Context(), vault, "a")
				if err == nil {
					letIn.Add(1)
					probe = leave
				} else if e, ok := errors.AsType[*rpc.Error](err); ok && e.Reason == rpc.ReasonStoreUnavailable {
					refused.Add(1)
				}
			})
		}
		callers.Wait()
		if letIn.Load() != 1 || refused.Load() != 499 {
			t.Fatalf("%d calls were let in and %d refused", letIn.Load(), refused.Load())
		}
		probe.Done(nil)
		w.begin("a").Done(nil)
		w.empty()
	})
}

// A call that is to try a store waits for its turn like others. If it leaves,
// another one tries.
func TestHalfOpen_ProbeWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Calls: 1})
		for range 5 {
			w.begin("bad").Done(failure(rpc.ReasonStoreUnavailable))
		}
		<-time.After(500 * time.Millisecond)
		leave := w.begin("good")
		probe := w.queue("bad")
		if !probe.waits() {
			t.Fatal("the budget has one call and there are two")
		}
		w.refused("bad", rpc.ReasonStoreUnavailable)
		probe.cancel()
		<-probe.done
		again := w.queue("bad")
		leave.Done(nil)
		again.letIn(t).Done(nil)
		if s := w.store("bad"); s.State != budget.Closed {
			t.Errorf("the store is %v", s.State)
		}
		w.empty()
	})
}

// A call that is to try a store, and has to wait for longer because of what
// another one heard, does wait.
func TestHalfOpen_ProbeIsPutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{Calls: 2, StoreCalls: 2})
		old := w.begin("bad")
		for range 5 {
			w.begin("bad").Done(failure(rpc.ReasonStoreUnavailable))
		}
		<-time.After(500 * time.Millisecond)
		good := w.begin("good")
		probe := w.queue("bad")
		old.Done(&rpc.Error{Reason: rpc.ReasonRateLimited, RetryAfter: 10 * time.Second})
		if !probe.waits() {
			t.Fatalf("the call does not wait: %v", probe.err)
		}
		if s := w.store("bad"); s.State != budget.Open {
			t.Errorf("the store is %v", s.State)
		}
		probe.letIn(t).Done(nil)
		if probe.took != 10*time.Second {
			t.Errorf("it waited for %v", probe.took)
		}
		good.Done(nil)
		w.empty()
	})
}

// limitedStore answers so many calls per second, with as many at once, and
// refuses the others.
type limitedStore struct {
	mu       sync.Mutex
	perSec   float64
	tokens   float64
	asOf     time.Time
	refusals int
	calls    int
}

func (s *limitedStore) call() error {
	<-time.After(20 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.calls++
	s.tokens = min(s.perSec, s.tokens+now.Sub(s.asOf).Seconds()*s.perSec)
	s.asOf = now
	if s.tokens < 1 {
		s.refusals++
		return &rpc.Error{Reason: rpc.ReasonRateLimited, Message: "429", RetryAfter: time.Second}
	}
	s.tokens--
	return nil
}

// 110 pods, each of an identity of its own, against a store that takes 20 calls
// a second: all are served within one call of kubelet's, and the store does not
// have to refuse much.
func TestThrottledStore(t *testing.T) {
	t.Parallel()
	const pods, perSecond = 110, 20
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{})
		s := &limitedStore{perSec: perSecond, tokens: perSecond, asOf: time.Now()}
		began := time.Now()
		var all sync.WaitGroup
		for range pods {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				for {
					leave, err := w.Acquire(ctx, vault, "limited")
					if err != nil {
						t.Errorf("a pod was not served: %v", err)
						return
					}
					err = s.call()
					leave.Done(err)
					if err == nil {
						return
					}
				}
			})
		}
		all.Wait()
		took := time.Since(began)
		t.Logf("%d pods, %d calls a second: all served after %v, %d calls were answered 429", pods, perSecond, took, s.refusals)
		if took > 20*time.Second || s.refusals > pods {
			t.Errorf("it took %v and %d calls were refused", took, s.refusals)
		}
		w.empty()
	})
}
