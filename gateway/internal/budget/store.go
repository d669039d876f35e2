package budget

import (
	"time"
)

const (
	// tolerated is how many failures in a row open a breaker.
	tolerated = 5
	// firstPause and lastPause bound the pauses of a store that fails, which
	// double each time.
	firstPause = time.Second
	lastPause  = 30 * time.Second
	// firstThrottle and lastThrottle bound those of a store that asks to slow
	// down and does not say for how long: it works, and fewer calls are made of
	// it anyway.
	firstThrottle = 250 * time.Millisecond
	lastThrottle  = 4 * time.Second
	// longestPause bounds what a store itself asks for: a mistake in it does
	// not shut a store off for hours.
	longestPause = 5 * time.Minute
)

// store is what is known of one store of a provider, whose lock guards it.
//
// Invariants:
//  1. 1 <= window <= most. A call begins only while fewer than window are under
//     way, so there are never more than most.
//  2. No call begins before retryAt.
//  3. While open is set no call begins and none waits but one, the probe, and
//     only while probing is set.
//  4. What a call comes to changes breaker and failures only if it began after
//     the breaker opened last, and the window only if it also began after the
//     window shrank last: what calls say that were under way together counts
//     once.
//  5. Nobody waits whose deadline is not after retryAt, or who does not wait out
//     pauses, before retryAt.
type store struct {
	name   string
	most   int
	jitter func() float64

	calls   int
	waiting []*Leave
	// usedAt is when it was asked for, or done with, last.
	usedAt time.Time

	window  int
	retryAt time.Time
	// throttles counts the times that the store asked to slow down since it
	// let a call through.
	throttles int

	open, probing bool
	// opens counts the times that the breaker opened since it was closed.
	opens int
	// failures are in a row, and reason is that of the last of them.
	failures int
	reason   string

	// begun counts the calls. Those whose number is not below openedAt, or
	// below shrunkAt, began after that.
	begun              uint64
	openedAt, shrunkAt uint64
}

func newStore(name string, most int, jitter func() float64) *store {
	return &store{name: name, most: most, window: most, jitter: jitter}
}

// idle reports whether nobody uses the store.
func (s *store) idle() bool { return s.calls == 0 && len(s.waiting) == 0 }

// room reports whether the next call fits into the window. A probe does even if
// calls from before hang.
func (s *store) room() bool {
	if s.open {
		return s.calls < s.most
	}
	return s.calls < s.window
}

// leftAlone reports whether a call has no business with the store, because the
// breaker is open.
func (s *store) leftAlone(l *Leave, now time.Time) bool {
	if !s.open || l.probe {
		return false
	}
	return s.probing || now.Before(s.retryAt)
}

// begin counts a call in.
func (s *store) begin(l *Leave, now time.Time) {
	s.calls++
	l.number, l.begunAt = s.begun, now
	s.begun++
}

// end counts a call out, and learns from what it came to.
func (s *store) end(l *Leave, o outcome, now time.Time) {
	s.calls--
	s.usedAt = now
	s.leave(l)
	switch o.verdict {
	case answered:
		s.onAnswer(l)
	case throttled:
		s.onThrottle(l, o, now)
	case failed:
		s.onFailure(l, o, now)
	case silent:
	}
}

// leave lets another call try, if this one was to.
func (s *store) leave(l *Leave) {
	if l.probe {
		s.probing = false
	}
}

func (s *store) onAnswer(l *Leave) {
	if l.number < s.openedAt {
		return
	}
	s.works()
	if l.number >= s.shrunkAt {
		s.throttles = 0
		s.window = min(s.window+1, s.most)
	}
}

func (s *store) onThrottle(l *Leave, o outcome, now time.Time) {
	s.pause(now, o.retryAfter)
	if l.number < s.openedAt {
		return
	}
	s.works()
	if l.number < s.shrunkAt {
		return
	}
	s.shrunkAt = s.begun
	s.throttles++
	s.window = max(1, s.window/2)
	s.pause(now, s.jittered(doubled(firstThrottle, lastThrottle, s.throttles)))
}

func (s *store) onFailure(l *Leave, o outcome, now time.Time) {
	if l.number < s.openedAt {
		return
	}
	s.failures++
	s.reason = o.reason
	if s.failures < tolerated {
		return
	}
	s.open = true
	s.opens++
	s.openedAt = s.begun
	s.pause(now, o.retryAfter)
	s.pause(now, s.jittered(doubled(firstPause, lastPause, s.opens)))
}

// works forgets failures. A breaker that closes leaves a window of one.
func (s *store) works() {
	s.failures, s.reason = 0, ""
	if s.open {
		s.open, s.opens = false, 0
		s.window = 1
	}
}

// pause keeps calls from beginning for a time.
func (s *store) pause(now time.Time, d time.Duration) {
	if until := now.Add(min(d, longestPause)); until.After(s.retryAt) {
		s.retryAt = until
	}
}

// doubled is the nth pause in a row.
func doubled(first, last time.Duration, n int) time.Duration {
	const mostDoublings = 10 // beyond last, and far from an overflow
	return min(first<<min(n-1, mostDoublings), last)
}

// jittered leaves half of a pause to chance, so that the nodes of a cluster do
// not come back together.
func (s *store) jittered(d time.Duration) time.Duration {
	return d/2 + time.Duration(s.jitter()*float64(d/2))
}

func (s *store) state(now time.Time) State {
	early := now.Before(s.retryAt)
	switch {
	case s.open && early:
		return Open
	case s.open:
		return HalfOpen
	case early:
		return Throttled
	default:
		return Closed
	}
}

func (s *store) status(now time.Time) Store {
	status := Store{
		Store: s.name, State: s.state(now),
		Calls: uint32(s.calls), MaxCalls: uint32(s.window),
		Failures: uint32(s.failures), Reason: s.reason,
	}
	switch status.State {
	case Open:
		status.MaxCalls = 0
	case HalfOpen:
		status.MaxCalls = 1
	case Closed, Throttled:
	}
	if now.Before(s.retryAt) {
		status.RetryAt = s.retryAt
	}
	return status
}
