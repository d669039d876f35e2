package refresh_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/driver/internal/refresh"
)

// runs notes what a schedule starts.
type runs struct {
	// hold, if set, keeps each run until it can be read from or ctx ends.
	hold chan struct{}
	// before is called at the beginning of each run, if set.
	before func(volumeID string)

	mu      sync.Mutex
	started []string
	now     map[string]int
	most    int // at once
}

func (r *runs) refresh(ctx context.Context, volumeID string) {
	r.mu.Lock()
	r.started = append(r.started, volumeID)
	if r.now == nil {
		r.now = make(map[string]int)
	}
	r.now[volumeID]++
	if r.now[volumeID] > 1 {
		panic("two refreshes of " + volumeID)
	}
	running := 0
	for _, n := range r.now {
		running += n
	}
	r.most = max(r.most, running)
	before, hold := r.before, r.hold
	r.mu.Unlock()
	if before != nil {
		before(volumeID)
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			<-time.After(time.Second) // what is to be tidied up
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now[volumeID]--
}

func (r *runs) become(before func(volumeID string), hold chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before, r.hold = before, hold
}

func (r *runs) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.started)
}

// start runs a schedule until the test ends.
func start(t *testing.T, r *runs) *refresh.Schedule {
	t.Helper()
	s, err := refresh.NewSchedule(r.refresh)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func want(t *testing.T, r *runs, count int, when string) {
	t.Helper()
	synctest.Wait()
	if got := r.count(); got != count {
		t.Fatalf("%s: %d refreshes, want %d", when, got, count)
	}
}

func TestSchedule_StartsWhatIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runs{}
		s := start(t, r)
		s.Set("a", "vault", time.Now().Add(time.Minute))
		s.Set("b", "vault", time.Now().Add(2*time.Minute))
		s.Set("never", "vault", time.Time{})
		<-time.After(time.Minute - 1)
		want(t, r, 0, "before it is due")
		<-time.After(1)
		want(t, r, 1, "when it is due")
		s.Set("b", "vault", time.Now().Add(time.Hour)) // later than before
		<-time.After(30 * time.Minute)
		want(t, r, 1, "after it was put off")
		s.Set("b", "vault", time.Now()) // sooner
		want(t, r, 2, "when it was put to now")
		<-time.After(24 * time.Hour)
		want(t, r, 2, "a day later")
	})
}

func TestSchedule_Remove(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runs{}
		s := start(t, r)
		s.Set("a", "vault", time.Now().Add(time.Minute))
		s.Remove("a")
		s.Remove("unknown")
		<-time.After(time.Hour)
		want(t, r, 0, "after it was removed")
		s.Set("a", "vault", time.Now())
		want(t, r, 1, "after it came back")
	})
}

// A volume that is due, or comes back, while its refresh runs waits for its end.
func TestSchedule_OneRefreshAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runs{hold: make(chan struct{})}
		s := start(t, r)
		s.Set("a", "vault", time.Now())
		want(t, r, 1, "at first")
		s.Set("a", "vault", time.Now())
		<-time.After(time.Hour)
		want(t, r, 1, "while it runs")
		s.Remove("a")
		s.Set("a", "aws", time.Now())
		<-time.After(time.Hour)
		want(t, r, 1, "while that of the removed one runs")
		r.hold <- struct{}{}
		want(t, r, 2, "after it ended")
		s.Remove("a")
		r.hold <- struct{}{}
		<-time.After(time.Hour)
		want(t, r, 2, "after it was removed while it ran")
	})
}

// One provider that hangs has so many refreshes and no more, and keeps nobody
// else's waiting.
func TestSchedule_Groups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, volumes = 16, 50
		r := &runs{hold: make(chan struct{})}
		s := start(t, r)
		for i := range volumes {
			s.Set(fmt.Sprintf("slow-%d", i), "slow", time.Now())
		}
		want(t, r, limit, "while the provider hangs")
		s.Set("other", "other", time.Now())
		want(t, r, limit+1, "another provider's")
		for range volumes + 1 {
			r.hold <- struct{}{}
		}
		want(t, r, volumes+1, "after all ended")
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.most > limit+1 {
			t.Errorf("%d at once", r.most)
		}
	})
}

// A refresh says itself when it is due again.
func TestSchedule_SetDuringRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runs{}
		s := start(t, r)
		r.become(func(volumeID string) { s.Set(volumeID, "vault", time.Now().Add(time.Minute)) }, nil)
		s.Set("a", "vault", time.Now())
		<-time.After(10*time.Minute + time.Second)
		want(t, r, 11, "after ten minutes")
	})
}

// The provider of a volume that was found mounted is known after its first
// refresh only.
func TestSchedule_GroupChangesDuringRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 16
		r := &runs{}
		s := start(t, r)
		r.become(func(volumeID string) { s.Set(volumeID, "slow", time.Now().Add(time.Minute)) }, nil)
		for i := range limit {
			s.Set(fmt.Sprint(i), "", time.Now())
		}
		want(t, r, limit, "at first")
		r.become(nil, make(chan struct{}))
		<-time.After(time.Minute)
		want(t, r, 2*limit, "a minute later")
		s.Set("adopted", "", time.Now())
		want(t, r, 2*limit+1, "one whose provider is not known")
		s.Set("more", "slow", time.Now())
		want(t, r, 2*limit+1, "one more of the slow provider")
	})
}

func TestSchedule_EndsWithItsRefreshes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runs{hold: make(chan struct{})}
		s, err := refresh.NewSchedule(r.refresh)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		s.Set("early", "vault", time.Now())
		want(t, r, 0, "before Run")
		go func() { ended <- s.Run(ctx) }()
		want(t, r, 1, "after Run")
		s.Set("late", "vault", time.Now().Add(time.Minute))
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if r.now["early"] != 0 {
			t.Error("Run ended before its refresh did")
		}
		<-time.After(time.Hour)
		want(t, r, 1, "after the end")
	})
}

func TestNewSchedule_NeedsSomethingToStart(t *testing.T) {
	t.Parallel()
	if _, err := refresh.NewSchedule(nil); err == nil {
		t.Error("no error")
	}
}
