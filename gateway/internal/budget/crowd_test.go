package budget_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/internal/rpc"
)

// crowd makes calls at random, and checks that there are never too many.
type crowd struct {
	world
	limits budget.Limits

	mu     sync.Mutex
	calls  int
	stores map[string]int

	made, refused, left atomic.Int64
}

func (c *crowd) count(store string, change int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls += change
	c.stores[store] += change
	if c.calls > c.limits.Calls || c.stores[store] > c.limits.StoreCalls {
		c.t.Errorf("%d calls are under way, %d of them of %s", c.calls, c.stores[store], store)
	}
}

func (c *crowd) comeAndGo(random *rand.Rand) {
	upTo := func(longest time.Duration) time.Duration { return time.Duration(random.Int64N(int64(longest))) }
	for range 30 {
		<-time.After(upTo(2 * time.Second))
		ctx, cancel := context.WithTimeout(c.t.Context(), upTo(3*time.Second))
		if random.IntN(4) == 0 {
			time.AfterFunc(upTo(time.Second), cancel)
		}
		store := numbered(random.IntN(5))
		leave, err := c.Acquire(ctx, vault, store)
		_, isRefusal := errors.AsType[*rpc.Error](err)
		switch {
		case err == nil:
			c.made.Add(1)
			c.count(store, 1)
			<-time.After(upTo(200 * time.Millisecond))
			c.count(store, -1)
			end := outcomes()[random.IntN(len(outcomes()))]
			leave.Done(end)
			leave.Cancel()
		case isRefusal:
			c.refused.Add(1)
		case ctx.Err() != nil:
			c.left.Add(1)
		default:
			c.t.Errorf("Acquire: %v", err)
		}
		cancel()
	}
}

func outcomes() []error {
	return []error{
		nil, nil, nil, nil, context.Canceled, context.DeadlineExceeded,
		failure(rpc.ReasonStoreUnavailable), failure(rpc.ReasonStoreUnavailable), failure(rpc.ReasonProviderUnavailable),
		&rpc.Error{Reason: rpc.ReasonRateLimited, RetryAfter: 100 * time.Millisecond},
	}
}

// Whatever callers do and calls come to, there are never more calls than there
// may be, and in the end every place is free.
func TestAcquire_ConcurrentSafe(t *testing.T) {
	t.Parallel()
	for _, limits := range []budget.Limits{
		{Calls: 1, StoreCalls: 1, Queue: 3},
		{Calls: 8, StoreCalls: 3, Queue: 20},
		{Calls: 20, StoreCalls: 5, Queue: 100, Rate: 30, Burst: 3},
		{Calls: 64, StoreCalls: 16, Queue: 1024},
	} {
		t.Run(fmt.Sprint(limits), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := &crowd{world: newWorld(t, limits), limits: limits, stores: map[string]int{}}
				var callers sync.WaitGroup
				for i := range 100 {
					random := rand.New(rand.NewPCG(uint64(i), 1))
					callers.Go(func() { c.comeAndGo(random) })
				}
				callers.Wait()
				if c.made.Load() < 100 || c.refused.Load() < 100 || c.left.Load() < 10 {
					t.Errorf("%d calls were made, %d refused, %d left: the test shows nothing", c.made.Load(), c.refused.Load(), c.left.Load())
				}
				c.empty()
				<-time.After(11 * time.Minute) // all is forgotten
				c.full(limits)
			})
		})
	}
}

// full checks that as many calls can be made as there may be.
func (c *crowd) full(limits budget.Limits) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Hour)
	defer cancel()
	var leaves []*budget.Leave
	for i := range limits.Calls {
		leave, err := c.Acquire(ctx, vault, numbered(i))
		if err != nil {
			c.t.Fatalf("call %d: %v", i, err)
		}
		leaves = append(leaves, leave)
	}
	for _, leave := range leaves {
		leave.Done(nil)
	}
	c.empty()
}
