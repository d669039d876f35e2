package budget

import (
	"math"
	"slices"
	"time"
)

// lets reports whether the next call of a store may begin. If so it has its
// token.
func (p *provider) lets(s *store, now time.Time) bool {
	if now.Before(s.retryAt) {
		p.wakeBy(s.retryAt)
		return false
	}
	free := p.calls < p.limits.shared() || p.calls < p.limits.Calls && s.calls == 0
	return free && s.room() && p.takeToken(now)
}

// takeToken reports whether the rate has room for a call, which has it then.
func (p *provider) takeToken(now time.Time) bool {
	if p.limiter == nil || p.limiter.AllowN(now, 1) {
		return true
	}
	delay := min(p.rateDelay(1, now), time.Hour.Seconds()) // of a tiny rate it is beyond a Duration
	p.wakeBy(now.Add(time.Duration(math.Ceil(delay * float64(time.Second)))))
	return false
}

// rateDelay is in how many seconds, less than 0 for now, there are so many
// tokens.
func (p *provider) rateDelay(tokens int, now time.Time) float64 {
	if p.limiter == nil {
		return 0
	}
	return (float64(tokens) - p.limiter.TokensAt(now)) / p.limits.Rate
}

// dispatch lets those begin who can, one of each store in turn.
func (p *provider) dispatch(now time.Time) {
	p.wakeAt = time.Time{}
	for skipped := 0; skipped < len(p.turns) && p.calls < p.limits.Calls; {
		p.turn %= len(p.turns)
		s := p.turns[p.turn]
		if !p.lets(s, now) {
			skipped++
			p.turn++
			continue
		}
		skipped = 0
		l := s.waiting[0]
		p.turn++ // before the store leaves the turns, which moves it back
		p.begin(l, now)
		p.settle(l, nil)
	}
	p.arm(now)
}

// begin gives a call its place.
func (p *provider) begin(l *Leave, now time.Time) {
	p.calls++
	l.store.begin(l, now)
}

// settle ends a wait.
func (p *provider) settle(l *Leave, err error) {
	s := l.store
	at := slices.Index(s.waiting, l)
	s.waiting = slices.Delete(s.waiting, at, at+1)
	p.queued--
	if len(s.waiting) == 0 {
		at := slices.Index(p.turns, s)
		p.turns = slices.Delete(p.turns, at, at+1)
		if at < p.turn {
			p.turn--
		}
	}
	if err != nil {
		s.leave(l)
	}
	l.err = err
	close(l.settled)
}

// makeRoom refuses the last one of the store that most wait for, so that a flood
// for one store does not keep the others' calls out. It reports false if that is
// the store that room is asked for, or as good as.
func (p *provider) makeRoom(s *store) bool {
	longest := slices.MaxFunc(p.turns, func(a, b *store) int { return len(a.waiting) - len(b.waiting) })
	if len(longest.waiting) <= len(s.waiting)+1 {
		return false
	}
	p.settle(longest.waiting[len(longest.waiting)-1], p.queueFull())
	return true
}

// wakeBy has dispatch called at a time at the latest, once arm is called.
func (p *provider) wakeBy(t time.Time) {
	if p.wakeAt.IsZero() || t.Before(p.wakeAt) {
		p.wakeAt = t
	}
}

// arm sets the timer for those who wait. One that is not needed any more runs for
// nothing.
func (p *provider) arm(now time.Time) {
	switch {
	case p.wakeAt.IsZero():
	case p.timer == nil:
		p.timer = time.AfterFunc(p.wakeAt.Sub(now), p.wake)
	default:
		p.timer.Reset(p.wakeAt.Sub(now))
	}
}

// wake is what the timer calls.
func (p *provider) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dispatch(time.Now())
}
