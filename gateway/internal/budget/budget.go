// Package budget keeps a provider or a store that hangs, fails or is flooded from
// costing the others anything.
//
// Each provider has a bound on its calls, on those that wait, and if the operator
// wants on their rate. Within it each store has a window of calls, as TCP has for
// a peer, and a circuit breaker.
package budget

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// The limits of a configuration that sets none.
const (
	defaultCalls      = 64
	defaultStoreCalls = 16
	defaultQueue      = 1024
)

// Limits bound the calls of one provider. A field that is 0 means its default:
// in [Config.Providers] that is the field of [Config.Default].
type Limits struct {
	// Calls may be under way at a time. Default 64. The last quarter is for
	// stores that have none under way, so that some that hang leave room for
	// the others.
	Calls int
	// StoreCalls of these may be for one store. Default 16, and never more than
	// three quarters of Calls.
	StoreCalls int
	// Queue is how many may wait. Default 1024.
	Queue int
	// Rate is in calls per second. Default no limit.
	Rate float64
	// Burst is how many calls may follow each other at once where there is a
	// Rate. Default as many as in one second.
	Burst int
}

// Config is what Budgets need.
type Config struct {
	// Default is for each provider that is not in Providers.
	Default   Limits
	Providers map[string]Limits
	// Meter is required.
	Meter metric.Meter
	// Jitter spreads pauses: it returns random numbers in [0, 1). Default is a
	// good one; tests set others.
	Jitter func() float64
}

// Budgets decide when a call may be made. They are safe for concurrent use, and
// have no goroutine.
//
// Invariants:
//  1. Providers share nothing but mu, which is held only to look one up. What
//     concerns one provider is under that provider's own lock; see provider.
//  2. A provider that was asked for once stays: callers pass only names of
//     providers that are known.
type Budgets struct {
	fallback Limits
	limits   map[string]Limits
	jitter   func() float64
	metrics  *metrics

	mu        sync.Mutex
	providers map[string]*provider
}

// New returns budgets of which nothing is used.
func New(cfg Config) (*Budgets, error) {
	if cfg.Meter == nil {
		return nil, errors.New("budget: no meter is given")
	}
	if err := cfg.Default.check(); err != nil {
		return nil, fmt.Errorf("budget: the default limits: %w", err)
	}
	fallback := cfg.Default.or(Limits{Calls: defaultCalls, StoreCalls: defaultStoreCalls, Queue: defaultQueue})
	b := &Budgets{
		fallback:  fallback.complete(),
		limits:    make(map[string]Limits, len(cfg.Providers)),
		jitter:    cfg.Jitter,
		providers: map[string]*provider{},
	}
	for name, own := range cfg.Providers {
		if err := own.check(); err != nil {
			return nil, fmt.Errorf("budget: the limits of provider %q: %w", name, err)
		}
		b.limits[name] = own.or(fallback).complete()
	}
	if b.jitter == nil {
		b.jitter = rand.Float64
	}
	var err error
	if b.metrics, err = newMetrics(cfg.Meter, b.all); err != nil {
		return nil, fmt.Errorf("budget: create the metrics: %w", err)
	}
	return b, nil
}

// check reports a limit that makes no sense.
func (l Limits) check() error {
	switch {
	case l.Calls < 0 || l.StoreCalls < 0 || l.Queue < 0 || l.Burst < 0:
		return errors.New("a number of calls is negative")
	case !(l.Rate >= 0) || math.IsInf(l.Rate, 1):
		return fmt.Errorf("%v calls per second are no rate", l.Rate)
	default:
		return nil
	}
}

// or fills in what is not set.
func (l Limits) or(other Limits) Limits {
	return Limits{
		Calls:      cmp.Or(l.Calls, other.Calls),
		StoreCalls: cmp.Or(l.StoreCalls, other.StoreCalls),
		Queue:      cmp.Or(l.Queue, other.Queue),
		Rate:       cmp.Or(l.Rate, other.Rate),
		Burst:      cmp.Or(l.Burst, other.Burst),
	}
}

// complete sets what depends on other fields.
func (l Limits) complete() Limits {
	l.StoreCalls = min(l.StoreCalls, l.shared())
	if l.Burst == 0 {
		l.Burst = int(min(math.Ceil(l.Rate), math.MaxInt32))
	}
	return l
}

// shared is how many places any store may take. The others are for stores that
// have no call under way.
func (l Limits) shared() int { return l.Calls - l.Calls/4 }

// Acquire waits for the turn of one call of a provider that concerns a store.
// The store is any string that tells it from the provider's other stores; it
// shows in errors and in [Budgets.Status].
//
// Turns come first in, first out for each store, and stores take turns. The wait
// ends with ctx, and is not begun where it is in vain. Errors are [*rpc.Error]:
//
//	BUDGET_EXHAUSTED   too many wait, or the turn does not come in time
//	STORE_UNAVAILABLE  the store failed time and again and is left alone
//	RATE_LIMITED       the store asked to slow down for longer than ctx lasts
//
// or ctx's, if that was over before or is cancelled.
func (b *Budgets) Acquire(ctx context.Context, name, store string) (*Leave, error) {
	return b.acquire(ctx, name, store, false)
}

// AcquireUnpaused is Acquire for a call that can be made later as well: while
// the store asks to slow down it is RATE_LIMITED at once, with the rest of the
// pause in RetryAfter.
func (b *Budgets) AcquireUnpaused(ctx context.Context, name, store string) (*Leave, error) {
	return b.acquire(ctx, name, store, true)
}

func (b *Budgets) acquire(ctx context.Context, name, store string, unpaused bool) (*Leave, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := b.provider(name)
	deadline, _ := ctx.Deadline()
	leave, err := p.enter(store, &Leave{provider: p, deadline: deadline, unpaused: unpaused})
	if err == nil && leave.waited() {
		began := time.Now()
		err = p.wait(ctx, leave)
		p.metrics.waited(ctx, time.Since(began))
	}
	if err != nil {
		p.metrics.refused(ctx, err)
		return nil, err
	}
	return leave, nil
}

// Providers are the names that were asked for, sorted.
func (b *Budgets) Providers() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.providers))
}

// Status tells how much of a provider's budget is used, and how its stores do,
// sorted by name. Of a provider that was not asked for it tells the limits.
func (b *Budgets) Status(name string) (Budget, []Store) {
	b.mu.Lock()
	p, ok := b.providers[name]
	b.mu.Unlock()
	if !ok {
		return budgetOf(b.limitsOf(name)), nil
	}
	return p.status()
}

// all returns each provider that was asked for.
func (b *Budgets) all() []*provider {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.providers))
}

func (b *Budgets) limitsOf(name string) Limits {
	if own, ok := b.limits[name]; ok {
		return own
	}
	return b.fallback
}

func (b *Budgets) provider(name string) *provider {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.providers[name]
	if !ok {
		p = newProvider(name, b.limitsOf(name), b.jitter, b.metrics.of(name))
		b.providers[name] = p
	}
	return p
}
