package keyvault

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// crowd counts how many requests there are at a time.
type crowd struct{ now, most atomic.Int64 }

// hold keeps a request for a second.
func (c *crowd) hold(ctx context.Context, _ request) {
	now := c.now.Add(1)
	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
	}
	defer c.now.Add(-1)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
}

// TestConcurrency has several calls, of several identities and types, read from one
// vault at the same time.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	for concurrency, want := range map[int]int64{0: defaultConcurrency, 3: 3} {
		synctest.Test(t, func(t *testing.T) {
			objects, refs := manySecrets(20)
			refs = append(refs, Ref{Type: params.Key, Name: "k"}, Ref{Type: params.Secret, Name: "h", History: 9})
			var c crowd
			m := &memoryVault{
				objects: append(objects, current(params.Key, "k"), aged(params.Secret, "h", 1, 2, 3, 4, 5, 6, 7, 8, 9)), hold: c.hold,
			}
			s := m.store(func(cfg *Config) { cfg.Concurrency = concurrency })
			var running sync.WaitGroup
			for _, identity := range []string{"web", "batch", "web"} {
				running.Go(func() {
					answers, err := s.Read(t.Context(), as(identity), refs)
					if err != nil {
						t.Error(err)
					}
					for _, answer := range answers {
						if answer.Err != nil {
							t.Error(answer.Err)
						}
					}
				})
			}
			running.Go(func() {
				if _, err := s.List(t.Context(), as("other"), params.Secret, &params.Select{Pattern: "*", Limit: 100}); err != nil {
					t.Error(err)
				}
			})
			running.Wait()
			if got := c.most.Load(); got != want {
				t.Errorf("%d requests at a time, want %d", got, want)
			}
			if len(s.limits.byURL) != 0 {
				t.Error("a limit is kept that nobody needs")
			}
		})
	}
}

// TestVaultsDoNotWaitForEachOther has one vault hang.
func TestVaultsDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		objects, refs := manySecrets(20)
		m := &memoryVault{objects: objects, hold: func(ctx context.Context, r request) {
			if r.host != "kv.vault.azure.net" {
				<-ctx.Done()
			}
		}}
		s := m.store()
		ctx, cancel := context.WithCancel(t.Context())
		hanging := as("web")
		hanging.URL = "https://hangs.vault.azure.net/"
		var running sync.WaitGroup
		running.Go(func() { _, _ = s.Read(ctx, hanging, refs) })
		synctest.Wait()
		one(t, s, as("web"), refs[0])
		cancel()
		running.Wait()
	})
}

// TestSmallCallsGetTheirTurn has a call of one object come while one of very many is
// being served.
func TestSmallCallsGetTheirTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		objects, refs := manySecrets(99)
		var c crowd
		m := &memoryVault{objects: objects, hold: c.hold}
		s := m.store()
		one(t, s, as("web"), refs[0]) // for the challenge
		var running sync.WaitGroup
		running.Go(func() { _, _ = s.Read(t.Context(), as("web"), refs) })
		synctest.Wait()
		start := time.Now()
		one(t, s, as("web"), refs[0])
		// The requests that are under way, those that wait already, and its own.
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("took %s", took)
		}
		running.Wait()
	})
}

func TestCancellation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		objects, refs := manySecrets(30)
		refs = append(refs, Ref{Type: params.Secret, Name: "s00", History: 3})
		m := &memoryVault{objects: objects, hold: func(ctx context.Context, r request) {
			if r.token != "" {
				<-ctx.Done()
			}
		}}
		s := m.store()
		ctx, cancel := context.WithCancelCause(t.Context())
		var running sync.WaitGroup
		for _, identity := range []string{"web", "batch"} { // the second waits for turns
			running.Go(func() {
				answers, err := s.Read(ctx, as(identity), refs)
				if !errors.Is(err, context.Canceled) || answers != nil {
					t.Errorf("%v, %d answers", err, len(answers))
				}
			})
		}
		synctest.Wait()
		before := len(m.requests)
		cancel(nil)
		running.Wait()
		if after := len(m.requests); after != before {
			t.Errorf("%d requests were made after the end", after-before)
		}
		m.hold = nil
		one(t, s, as("web"), refs[0]) // all turns are free again
		if len(s.limits.byURL) != 0 {
			t.Error("a limit is kept that nobody needs")
		}
	})
}

func TestEndedBeforeItBegan(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := &memoryVault{}
	s := m.store()
	if _, err := s.Read(ctx, as("web"), []Ref{secret("a")}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := m.operations(); got != "" {
		t.Errorf("requests: %s", got)
	}
}
