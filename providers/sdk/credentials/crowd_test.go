package credentials

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAcquire_ConcurrentSafe: pods come, leave, have too little time, have tokens
// that are refused and drop what they got, in no order.
func TestAcquire_ConcurrentSafe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2)) // guarded by the store's mutex
		s := &store{answer: func(_ int, one asked) answer {
			a := answer{takes: upTo(random, 20*time.Second), life: time.Minute + upTo(random, 10*time.Minute), deaf: random.IntN(5) == 0}
			switch {
			case strings.HasSuffix(one.token, "gone"):
				a.err = errRefused
			case random.IntN(4) == 0:
				a.err = errDown
			}
			return a
		}}
		crowd := &crowd{cache: cache(s, func(cfg *Config[string, *session]) { cfg.Max = 4 })}
		var pods sync.WaitGroup
		for i := range 200 {
			random := rand.New(rand.NewPCG(uint64(i), 7))
			pods.Go(func() { crowd.comeAndGo(t, random) })
		}
		pods.Wait()
		pass(DefaultLoginTimeout)
		synctest.Wait()
		if len(crowd.cache.flights) != 0 || len(crowd.cache.kept) > 4 {
			t.Errorf("%d flights are left, and %d credentials", len(crowd.cache.flights), len(crowd.cache.kept))
		}
		if logins := s.count(); logins > 2000 || crowd.got.Load() < 1000 || crowd.left.Load() < 100 || crowd.refused.Load() < 100 || crowd.dropped.Load() < 100 {
			t.Errorf("%d logins, %d credentials, %d left, %d refused, %d dropped: the test shows nothing",
				logins, crowd.got.Load(), crowd.left.Load(), crowd.refused.Load(), crowd.dropped.Load())
		}
	})
}

// crowd is many pods with few identities.
type crowd struct {
	cache *Cache[string, *session]

	got, left, refused, dropped atomic.Int64
}

// comeAndGo makes some calls, each with little patience.
func (c *crowd) comeAndGo(t *testing.T, random *rand.Rand) {
	for i := range 20 {
		pass(upTo(random, 10*time.Minute))
		identity, pod := fmt.Sprint(random.IntN(5)), fmt.Sprint(i)
		if random.IntN(4) == 0 {
			pod += "gone"
		}
		ctx, cancel := context.WithTimeout(t.Context(), upTo(random, 30*time.Second))
		got, cached, err := c.cache.Acquire(ctx, identity, token(pod))
		switch {
		case err == nil:
			c.got.Add(1)
			if got.identity != identity || !time.Now().Before(got.expires) {
				t.Errorf("a pod of %s got a credential of %s, which ends in %s", identity, got.identity, time.Until(got.expires))
			}
			if cached && random.IntN(4) == 0 {
				c.dropped.Add(1)
				c.cache.Drop(identity, got)
			}
		case errors.Is(err, errRefused):
			c.refused.Add(1)
			if !strings.HasSuffix(pod, "gone") {
				t.Error("a pod hears of a refusal that is not of its own token")
			}
		case errors.Is(err, context.DeadlineExceeded):
			c.left.Add(1)
			if ctx.Err() == nil {
				t.Error("the end of another's time is told to a pod")
			}
		case !errors.Is(err, errDown):
			t.Errorf("error %v", err)
		}
		cancel()
	}
}

func upTo(random *rand.Rand, longest time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(longest)))
}
