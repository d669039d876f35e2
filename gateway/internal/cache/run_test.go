package cache_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/cache"
)

// running runs the cache until the returned function is called.
func running(t *testing.T, c *cache.Cache) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// at waits until so long after start.
func at(start time.Time, after time.Duration) {
	<-time.After(time.Until(start.Add(after)))
	synctest.Wait()
}

func TestRun_DropsWhatIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, plenty)
		start := time.Now()
		long := put(c, "long", sized(10), time.Hour)
		stop := running(t, c)
		defer stop()
		synctest.Wait() // it waits for an hour to pass
		short := put(c, "short", sized(10), time.Minute)
		middle := put(c, "middle", sized(10), 30*time.Minute)
		// What counts is the age of the answer, not how long it has been kept.
		aged := put(c, "aged", fetched(10, start.Add(-time.Minute)), 11*time.Minute)
		for _, due := range []struct {
			after  time.Duration
			answer *answer.Answer
			left   []string
		}{
			{time.Minute, short, []string{"aged", "middle", "long"}},
			{10 * time.Minute, aged, []string{"middle", "long"}},
			{30 * time.Minute, middle, []string{"long"}},
			{time.Hour, long, nil},
		} {
			at(start, due.after-1)
			if overwritten(due.answer) {
				t.Errorf("the answer due at %s is gone before", due.after)
			}
			at(start, due.after)
			if !overwritten(due.answer) {
				t.Errorf("the answer due at %s is still there", due.after)
			}
			keeps(t, c, due.left...)
		}
		if e := c.Stats().Evictions; e != (cache.Evictions{Age: 4}) {
			t.Errorf("evictions %+v, want 4 by age", e)
		}
		put(c, "again", sized(10), time.Minute)
		at(start, time.Hour+time.Minute)
		keeps(t, c)
	})
}

// A renewed answer has its own time, longer or shorter than the one before.
func TestRun_Renewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, plenty)
		start := time.Now()
		defer running(t, c)()
		put(c, "longer", sized(10), time.Minute)
		put(c, "shorter", sized(10), time.Hour)
		synctest.Wait()
		put(c, "longer", sized(10), time.Hour)
		put(c, "shorter", sized(10), 2*time.Minute)
		at(start, 2*time.Minute-1)
		keeps(t, c, "longer", "shorter")
		at(start, 2*time.Minute)
		keeps(t, c, "longer")
		at(start, time.Hour-1)
		keeps(t, c, "longer")
		at(start, time.Hour)
		keeps(t, c)
	})
}

// An answer whose time is over is not served, even if nobody has dropped it yet.
func TestGet_Due(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, plenty)
		start := time.Now()
		put(c, "a", sized(10), time.Minute)
		at(start, time.Minute-1)
		keeps(t, c, "a")
		at(start, time.Minute)
		if _, ok := c.Get(keyOf("a")); ok {
			t.Error("an answer was served whose time is over")
		}
		running(t, c)()
	})
}

func TestRun_EndKeepsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, plenty)
		stop := running(t, c)
		a := put(c, "a", sized(10), time.Hour)
		held, _ := c.Get(keyOf("a"))
		b := put(c, "b", sized(10), time.Hour)
		stop()
		keeps(t, c)
		if !overwritten(b) || overwritten(a) {
			t.Error("at the end what nobody holds has to be overwritten, and nothing else")
		}
		held.Release()
		late := put(c, "c", sized(10), time.Hour)
		keeps(t, c)
		if !overwritten(a) || !overwritten(late) {
			t.Error("after the end a reference is left")
		}
	})
}

// The time of what is kept can be moved both ways, and what it was put with does
// not count any more.
func TestRun_Moved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, plenty)
		start := time.Now()
		put(c, "later", sized(10), time.Minute)
		put(c, "sooner", sized(10), time.Hour)
		put(c, "over", sized(10), time.Hour)
		put(c, "other", sized(10), 40*time.Minute)
		stop := running(t, c)
		defer stop()
		synctest.Wait()
		at(start, 30*time.Second)
		c.Extend(keyOf("later"), 50*time.Minute)
		c.Extend(keyOf("later"), 20*time.Minute) // is no longer
		c.Shorten(keyOf("sooner"), 10*time.Minute)
		c.Shorten(keyOf("sooner"), 20*time.Minute) // is no shorter
		c.Shorten(keyOf("over"), 0)
		c.Extend(keyOf("nothing"), time.Hour)
		c.Shorten(keyOf("nothing"), 0)
		synctest.Wait()
		if got := c.Stats().Entries; got != 3 {
			t.Errorf("%d answers are kept, want those whose time is not over", got)
		}
		for _, due := range []struct {
			after time.Duration
			left  []string
		}{
			{10*time.Minute - 1, []string{"sooner", "other", "later"}},
			{10 * time.Minute, []string{"other", "later"}},
			{40 * time.Minute, []string{"later"}},
			{50*time.Minute - 1, []string{"later"}},
			{50 * time.Minute, nil},
		} {
			at(start, due.after)
			keeps(t, c, due.left...)
		}
	})
}

// A time that is over does not begin again.
func TestExtend_Over(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, plenty)
		put(c, "a", sized(10), time.Minute)
		<-time.After(time.Minute) // nobody runs it
		c.Extend(keyOf("a"), time.Hour)
		if _, ok := c.Get(keyOf("a")); ok {
			t.Error("an answer is served whose time was over")
		}
	})
}
