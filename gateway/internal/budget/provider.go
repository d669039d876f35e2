package budget

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/postern-dev/postern/internal/rpc"
)

const (
	// maxStores bounds the stores that are remembered of one provider: who may
	// write SecretProviderClasses can name as many as they like.
	maxStores = 1024
	// storeMemory is how long a store is remembered that nobody asks for. It is
	// longer than any pause.
	storeMemory = 10 * time.Minute
)

// provider is the budget of one provider: who may call, and who waits.
//
// Invariants:
//  1. calls is the sum of the stores' calls and at most limits.Calls. Those
//     beyond limits.shared are of stores that had none under way.
//  2. queued is the sum of the stores' waiting and at most limits.Queue. A store
//     is in turns, once, as long as somebody waits for it.
//  3. Whenever mu is free, nobody waits who could begin, unless the timer is
//     due: whatever makes room calls dispatch.
//  4. A Leave that was let in has one place, until its first Done or Cancel.
//  5. Only a call that begins takes a token from the rate: who waits has none, and
//     so none to give back.
//  6. There are at most maxStores stores, or as many as are in use if that is
//     more; what is in use is bounded by 1 and 2.
//  7. mu is never held over a wait.
type provider struct {
	name    string
	limits  Limits
	jitter  func() float64
	metrics *providerMetrics

	mu     sync.Mutex
	stores map[string]*store
	calls  int
	queued int
	// turns are the stores that are waited for. It is the turn of that with the
	// index turn.
	turns []*store
	turn  int

	// limiter is nil for no limit.
	limiter *rate.Limiter
	// wakeAt is when somebody may begin though nothing else happens, zero for
	// never; the timer is for that.
	wakeAt time.Time
	timer  *time.Timer
}

func newProvider(name string, limits Limits, jitter func() float64, m *providerMetrics) *provider {
	p := &provider{name: name, limits: limits, jitter: jitter, metrics: m, stores: map[string]*store{}}
	if limits.Rate > 0 {
		p.limiter = rate.NewLimiter(rate.Limit(limits.Rate), limits.Burst)
	}
	return p
}

// enter lets a call begin, or has it wait: then its settled is to be waited for.
func (p *provider) enter(name string, l *Leave) (*Leave, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	s := p.store(name, now)
	l.store = s
	if err := p.inVain(l, now); err != nil {
		return nil, err
	}
	l.probe = s.open
	if len(s.waiting) == 0 && p.lets(s, now) {
		s.probing = s.probing || l.probe
		p.begin(l, now)
		return l, nil
	}
	if p.queued >= p.limits.Queue && !p.makeRoom(s) {
		return nil, p.queueFull()
	}
	s.probing = s.probing || l.probe
	l.settled = make(chan struct{})
	if len(s.waiting) == 0 {
		p.turns = append(p.turns, s)
	}
	s.waiting = append(s.waiting, l)
	p.queued++
	p.arm(now)
	return l, nil
}

// wait waits for the turn of a call.
func (p *provider) wait(ctx context.Context, l *Leave) error {
	select {
	case <-l.settled:
		return l.err
	case <-ctx.Done():
		return p.withdraw(l, ctx.Err())
	}
}

// withdraw ends a wait for a caller whose context is over, unless it has just
// ended otherwise.
func (p *provider) withdraw(l *Leave, cause error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-l.settled:
		return l.err
	default:
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		cause = p.tooLate(l.store, time.Now())
	}
	p.settle(l, cause)
	return cause
}

// finish takes a call's place back, and learns from what it came to.
func (p *provider) finish(l *Leave, err error) {
	o := judge(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if o.reason == rpc.ReasonDeadlineExceeded && l.cutShort(now) {
		o.verdict = silent
	}
	p.end(l, o, now)
}

// abandon takes back the place of a call that was not made.
func (p *provider) abandon(l *Leave) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(l, outcome{}, time.Now())
}

func (p *provider) end(l *Leave, o outcome, now time.Time) {
	if l.over {
		return
	}
	l.over = true
	p.calls--
	l.store.end(l, o, now)
	p.refuseVain(l.store, now)
	p.dispatch(now)
}

// inVain is why a call need not wait for its turn.
func (p *provider) inVain(l *Leave, now time.Time) error {
	s := l.store
	switch {
	case s.leftAlone(l, now):
		return p.leftAlone(s, now)
	case now.Before(s.retryAt) && l.late(s.retryAt):
		return p.slowDown(l, now)
	case !l.deadline.IsZero() && p.rateDelay(len(s.waiting)+1, now) > l.deadline.Sub(now).Seconds(): // those before it go first
		return p.tooFast()
	default:
		return nil
	}
}

// refuseVain ends the waits that have become vain.
func (p *provider) refuseVain(s *store, now time.Time) {
	if !now.Before(s.retryAt) {
		return
	}
	for _, l := range slices.Clone(s.waiting) {
		switch {
		case s.leftAlone(l, now):
			p.settle(l, p.leftAlone(s, now))
		case l.late(s.retryAt):
			p.settle(l, p.slowDown(l, now))
		}
	}
}

// store returns the store of a name, which is in use from now.
func (p *provider) store(name string, now time.Time) *store {
	s, ok := p.stores[name]
	if !ok {
		p.forgetIdle(now)
		p.forgetLongestIdle()
		s = newStore(name, p.limits.StoreCalls, p.jitter)
		p.stores[name] = s
	}
	s.usedAt = now
	return s
}

// forgetIdle forgets the stores that nobody has asked for in a long time.
func (p *provider) forgetIdle(now time.Time) {
	for name, s := range p.stores {
		if s.idle() && now.Sub(s.usedAt) >= storeMemory {
			delete(p.stores, name)
		}
	}
}

// forgetLongestIdle makes room for another store.
func (p *provider) forgetLongestIdle() {
	if len(p.stores) < maxStores {
		return
	}
	var longest *store
	for _, s := range p.stores {
		if s.idle() && (longest == nil || s.usedAt.Before(longest.usedAt)) {
			longest = s
		}
	}
	if longest != nil {
		delete(p.stores, longest.name)
	}
}
