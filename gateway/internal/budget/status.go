package budget

import (
	"slices"
	"strings"
	"time"
)

// State is how a store does.
type State int

const (
	// Closed is that of a store that is asked.
	Closed State = iota + 1
	// Open is that of one that failed time and again, and is left alone until
	// RetryAt.
	Open
	// HalfOpen is that of one that one call tries, or the next one will.
	HalfOpen
	// Throttled is that of one that asked to slow down: calls wait until
	// RetryAt.
	Throttled
)

// States are all of them.
func States() []State { return []State{Closed, Open, HalfOpen, Throttled} }

// String is the state's name in metrics.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half_open"
	case Throttled:
		return "throttled"
	default:
		return "unspecified"
	}
}

// Budget is how much of a provider's budget is used.
type Budget struct {
	// Calls are under way; there may be MaxCalls.
	Calls, MaxCalls uint32
	// Queued wait for their turn; MaxQueued may.
	Queued, MaxQueued uint32
	// MaxRate is in calls per second; 0 for no limit.
	MaxRate float64
	// Refused counts the calls that were refused so far.
	Refused uint64
}

// Store is how one store behind a provider does.
type Store struct {
	Store string
	State State
	// Calls are under way; there may be MaxCalls now.
	Calls, MaxCalls uint32
	// Failures are those since the last success, and Reason is that of the last
	// one.
	Failures uint32
	Reason   string
	// RetryAt is when it is asked again; zero where it may be asked now.
	RetryAt time.Time
}

func budgetOf(limits Limits) Budget {
	return Budget{MaxCalls: uint32(limits.Calls), MaxQueued: uint32(limits.Queue), MaxRate: limits.Rate}
}

// status is what [Budgets.Status] tells.
func (p *provider) status() (Budget, []Store) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.forgetIdle(now)
	budget := budgetOf(p.limits)
	budget.Calls, budget.Queued = uint32(p.calls), uint32(p.queued)
	budget.Refused = p.metrics.count.Load()
	stores := make([]Store, 0, len(p.stores))
	for _, s := range p.stores {
		stores = append(stores, s.status(now))
	}
	slices.SortFunc(stores, func(a, b Store) int { return strings.Compare(a.Store, b.Store) })
	return budget, stores
}

// usage is what the metrics observe.
type usage struct {
	calls, queued int
	stores        map[State]int
}

func (p *provider) usage() usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.forgetIdle(now)
	u := usage{calls: p.calls, queued: p.queued, stores: map[State]int{}}
	for _, s := range p.stores {
		u.stores[s.state(now)]++
	}
	return u
}
