package budget_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	vault = "vault"
	// patience is the deadline of calls that have one.
	patience = time.Minute
)

// world is budgets whose pauses are the shortest that jitter makes.
type world struct {
	*budget.Budgets
	t testing.TB
}

func newWorld(t testing.TB, limits budget.Limits) world {
	t.Helper()
	return newWorldOf(t, budget.Config{Default: limits})
}

func newWorldOf(t testing.TB, cfg budget.Config) world {
	t.Helper()
	if cfg.Meter == nil {
		cfg.Meter = telemetry.Discard().Meter("test")
	}
	if cfg.Jitter == nil {
		cfg.Jitter = func() float64 { return 0 }
	}
	b, err := budget.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return world{Budgets: b, t: t}
}

// begin begins a call, which must not wait.
func (w world) begin(store string) *budget.Leave {
	w.t.Helper()
	return w.beginOf(vault, store)
}

func (w world) beginOf(provider, store string) *budget.Leave {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	began := time.Now()
	leave, err := w.Acquire(ctx, provider, store)
	if err != nil {
		w.t.Fatalf("a call of %s: %v", store, err)
	}
	if took := time.Since(began); took != 0 {
		w.t.Fatalf("a call of %s waited for %v", store, took)
	}
	return leave
}

// refused makes a call that must be refused at once.
func (w world) refused(store, reason string) {
	w.t.Helper()
	_ = w.refusal(store, reason)
}

// refusal is what such a call is told.
func (w world) refusal(store, reason string) *rpc.Error {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	began := time.Now()
	leave, err := w.Acquire(ctx, vault, store)
	if err == nil {
		leave.Cancel()
		w.t.Fatalf("a call of %s was let in, want %s", store, reason)
	}
	if took := time.Since(began); took != 0 {
		w.t.Fatalf("a call of %s was refused after %v", store, took)
	}
	return refusalOf(w.t, err, reason)
}

// refusalOf checks what a refused call was told.
func refusalOf(t testing.TB, err error, reason string) *rpc.Error {
	t.Helper()
	refusal, ok := errors.AsType[*rpc.Error](err)
	if !ok || refusal.Reason != reason {
		t.Fatalf("got %v, want %s", err, reason)
	}
	return refusal
}

// caller is one that waits.
type caller struct {
	name  string
	leave *budget.Leave
	err   error
	// took is how long it waited.
	took   time.Duration
	cancel context.CancelFunc
	done   chan struct{}
}

// queue has a caller wait, and returns once it does, or is let in.
func (w world) queue(store string) *caller {
	w.t.Helper()
	return w.queueFor(store, patience)
}

func (w world) queueFor(store string, patience time.Duration) *caller {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	c := &caller{name: store, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer cancel()
		began := time.Now()
		c.leave, c.err = w.Acquire(ctx, vault, store)
		c.took = time.Since(began)
	}()
	synctest.Wait()
	return c
}

// waits reports whether a caller still does.
func (c *caller) waits() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// letIn ends a wait that must have been worth it.
func (c *caller) letIn(t testing.TB) *budget.Leave {
	t.Helper()
	<-c.done
	if c.err != nil {
		t.Fatalf("a call of %s: %v", c.name, c.err)
	}
	return c.leave
}

// failsAtOnce ends a wait that must have ended by itself, now.
func (c *caller) failsAtOnce(t testing.TB, reason string) {
	t.Helper()
	if c.waits() {
		t.Fatalf("a call of %s waits", c.name)
	}
	_ = refusalOf(t, c.err, reason)
}

// store is the status of one store, which is zero if it is not known.
func (w world) store(name string) budget.Store {
	_, stores := w.Status(vault)
	i := slices.IndexFunc(stores, func(s budget.Store) bool { return s.Store == name })
	if i < 0 {
		return budget.Store{}
	}
	return stores[i]
}

// empty checks that nothing is under way.
func (w world) empty() {
	w.t.Helper()
	for _, name := range w.Providers() {
		used, stores := w.Status(name)
		if used.Calls != 0 || used.Queued != 0 {
			w.t.Errorf("%s: %d calls are under way and %d wait", name, used.Calls, used.Queued)
		}
		for _, s := range stores {
			if s.Calls != 0 {
				w.t.Errorf("%s: %d calls of %s are under way", name, s.Calls, s.Store)
			}
		}
	}
}

func failure(reason string) error { return &rpc.Error{Reason: reason, Message: "of another pod"} }

func numbered(i int) string { return fmt.Sprintf("store-%04d", i) }
