package schedule

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs a loop until the test ends.
func run(t *testing.T) *Loop {
	t.Helper()
	l := New()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := run(t)
		begun := time.Now()
		var at []time.Duration
		l.Set("a", time.Minute, func(context.Context) time.Duration {
			at = append(at, time.Since(begun))
			if len(at) == 3 {
				return 0
			}
			return 10 * time.Second
		})
		<-time.After(3 * time.Hour)
		synctest.Wait()
		if len(at) != 3 || at[0] != time.Minute || at[1] != 70*time.Second || at[2] != 80*time.Second {
			t.Errorf("ran at %v", at)
		}
	})
}

func TestLoopReplaceAndRemove(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := run(t)
		var old, removed, replaced atomic.Int32
		count := func(n *atomic.Int32) Task {
			return func(context.Context) time.Duration { n.Add(1); return 0 }
		}
		l.Set("a", time.Minute, count(&old))
		l.Set("b", time.Minute, count(&removed))
		l.Set("a", time.Second, count(&replaced))
		l.Remove("b")
		<-time.After(time.Hour)
		synctest.Wait()
		if old.Load() != 0 || removed.Load() != 0 || replaced.Load() != 1 {
			t.Errorf("ran: old %d, removed %d, replaced %d", old.Load(), removed.Load(), replaced.Load())
		}
	})
}

// TestLoopReplaceRunning: a task that is replaced while it runs does not come
// back.
func TestLoopReplaceRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := run(t)
		var first, second atomic.Int32
		l.Set("a", 0, func(context.Context) time.Duration {
			first.Add(1)
			<-time.After(time.Minute)
			return time.Second
		})
		synctest.Wait()
		l.Set("a", time.Hour, func(context.Context) time.Duration { second.Add(1); return 0 })
		<-time.After(2 * time.Hour)
		synctest.Wait()
		if first.Load() != 1 || second.Load() != 1 {
			t.Errorf("ran %d and %d times, want once each", first.Load(), second.Load())
		}
	})
}

func TestLoopBoundsConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := run(t)
		var running, most atomic.Int32
		for i := range 20 {
			l.Set(i, 0, func(context.Context) time.Duration {
				if n := running.Add(1); n > most.Load() {
					most.Store(n)
				}
				<-time.After(time.Second)
				running.Add(-1)
				return 0
			})
		}
		<-time.After(time.Minute)
		if most.Load() != concurrency {
			t.Errorf("%d at a time, want %d", most.Load(), concurrency)
		}
	})
}

func TestTwoThirds(t *testing.T) {
	t.Parallel()
	for range 1000 {
		if at := TwoThirds(time.Hour); at > 40*time.Minute || at < 36*time.Minute {
			t.Fatalf("TwoThirds(1h) = %v", at)
		}
	}
	if at := TwoThirds(0); at != time.Second {
		t.Errorf("TwoThirds(0) = %v, want a second at least", at)
	}
}
