package flight_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/flight"
	"github.com/postern-dev/postern/gateway/internal/key"
)

// A storm: one work, and every caller holds the answer for itself.
func TestThousandCallers(t *testing.T) {
	t.Parallel()
	const callers = 1000
	synctest.Test(t, func(t *testing.T) {
		g, s := flight.New(), newStore()
		release := make(chan struct{})
		var joined, served atomic.Int64
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				landing, err := g.Do(t.Context(), keyOf("a"), s.work)
				if err != nil {
					t.Errorf("Do: %v", err)
					return
				}
				defer landing.Answer.Release()
				if landing.Joined {
					joined.Add(1)
				}
				<-release
				if contentOf(landing.Answer) == content {
					served.Add(1)
				}
			})
		}
		flies(t, g, callers)
		a := s.answers()
		synctest.Wait()
		close(release)
		all.Wait()
		if s.begun.Load() != 1 || joined.Load() != callers-1 || served.Load() != callers {
			t.Errorf("%d works, %d joined, %d served", s.begun.Load(), joined.Load(), served.Load())
		}
		if !overwritten(a) {
			t.Error("all have released the answer and it is there")
		}
	})
}

// Callers come, leave, have too little time and get answers, in no order.
func TestDo_ConcurrentSafe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := flight.New()
		s := newCrowdStore()
		var callers sync.WaitGroup
		for i := range 500 {
			random := rand.New(rand.NewPCG(uint64(i), 7))
			callers.Go(func() { comeAndGo(t, g, s, random) })
		}
		callers.Wait()
		g.Wait()
		flies(t, g)
		for _, a := range s.brought {
			if !overwritten(a) {
				t.Fatal("a reference was left of an answer")
			}
		}
		if len(s.brought) < 100 || s.refused == 0 || s.outlasted.Load() == 0 {
			t.Errorf("%d answers, %d works that ended without one, %d callers that had more time: the test shows nothing",
				len(s.brought), s.refused, s.outlasted.Load())
		}
	})
}

// comeAndGo makes some calls as long as it has patience.
func comeAndGo(t *testing.T, g *flight.Group, s *crowdStore, random *rand.Rand) {
	for range 20 {
		<-time.After(upTo(random, 50*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), upTo(random, 20*time.Second))
		k := keyOf(fmt.Sprint(random.IntN(5)))
		landing, err := g.Do(ctx, k, s.workOf(k))
		switch {
		case err == nil:
			if contentOf(landing.Answer) != content {
				t.Error("a caller got an answer that is overwritten")
			}
			<-time.After(upTo(random, time.Second))
			landing.Answer.Release()
		case errors.Is(err, flight.ErrLeaderDeadline):
			s.outlasted.Add(1)
			if !landing.Joined {
				t.Errorf("who began the flight got %v", err)
			}
		case !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("Do: %v", err)
		}
		cancel()
	}
}

func upTo(random *rand.Rand, longest time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(longest)))
}

// crowdStore is work for many keys that takes some time.
type crowdStore struct {
	mu      sync.Mutex
	live    map[key.Key]context.Context
	brought []*answer.Answer
	refused int
	random  *rand.Rand

	outlasted atomic.Int64
}

func newCrowdStore() *crowdStore {
	return &crowdStore{live: map[key.Key]context.Context{}, random: rand.New(rand.NewPCG(1, 2))}
}

func (s *crowdStore) workOf(k key.Key) flight.Work {
	return func(ctx context.Context) (*answer.Answer, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if before := s.live[k]; before != nil && before.Err() == nil {
			return nil, errors.New("two works of one key at once")
		}
		s.live[k] = ctx
		took := time.After(upTo(s.random, 15*time.Second))
		s.mu.Unlock()
		select {
		case <-took:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if s.live[k] == ctx {
			delete(s.live, k)
		}
		if s.random.IntN(2) == 0 && ctx.Err() != nil { // some work brings its answer even then
			s.refused++
			return nil, ctx.Err()
		}
		a := newAnswer()
		s.brought = append(s.brought, a)
		return a, nil
	}
}

// BenchmarkDo is a flight that nobody joins, with work that costs nothing.
func BenchmarkDo(b *testing.B) {
	g, k, a := flight.New(), keyOf("a"), newAnswer()
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	work := func(context.Context) (*answer.Answer, error) { return a.Retain(), nil }
	b.ReportAllocs()
	for b.Loop() {
		landing, err := g.Do(ctx, k, work)
		if err != nil {
			b.Fatal(err)
		}
		landing.Answer.Release()
	}
}

// BenchmarkStorm is 110 callers, a node full of pods, who wait for one work.
func BenchmarkStorm(b *testing.B) {
	const pods = 110
	g, k, a := flight.New(), keyOf("a"), newAnswer()
	b.ReportAllocs()
	for b.Loop() {
		here := make(chan struct{})
		work := func(context.Context) (*answer.Answer, error) {
			<-here
			return a.Retain(), nil
		}
		var callers sync.WaitGroup
		for range pods {
			callers.Go(func() {
				landing, err := g.Do(b.Context(), k, work)
				if err != nil {
					b.Error(err)
					return
				}
				landing.Answer.Release()
			})
		}
		for waiting(g) < pods {
			runtime.Gosched()
		}
		close(here)
		callers.Wait()
	}
}

func waiting(g *flight.Group) int {
	n := 0
	for _, f := range g.Flights() {
		n += f.Waiters
	}
	return n
}
