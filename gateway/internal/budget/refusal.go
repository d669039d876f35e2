package budget

import (
	"fmt"
	"time"

	"github.com/postern-dev/postern/internal/rpc"
)

// leftAlone is what a call is told whose store's breaker is open.
func (p *provider) leftAlone(s *store, now time.Time) *rpc.Error {
	again, after := "one call is finding out now whether it works again", firstPause
	if now.Before(s.retryAt) {
		after = s.retryAt.Sub(now)
		again = "it is asked again in " + inWords(after)
	}
	e := p.refusal(rpc.ReasonStoreUnavailable,
		"the store %q of provider %q failed %d times in a row, most recently with %s; %s: "+
			"check the provider's log and whether the store answers",
		s.name, p.name, s.failures, s.reason, again)
	e.RetryAfter = after
	return e
}

// slowDown is what a call is told whose store is to be left alone for longer
// than the caller waits.
func (p *provider) slowDown(l *Leave, now time.Time) *rpc.Error {
	after, why := l.store.retryAt.Sub(now), ", which is later than this call's deadline"
	if l.unpaused {
		why = ""
	}
	e := p.refusal(rpc.ReasonRateLimited,
		"the store %q of provider %q asked to slow down and is asked again in %s%s: "+
			"raise the store's limit, or ask it less with --max-rate=%s=N (Helm value gateway.budgets.maxRate)",
		l.store.name, p.name, inWords(after), why, p.name)
	e.RetryAfter = after
	return e
}

// queueFull is what a call is told that would be one too many to wait.
func (p *provider) queueFull() *rpc.Error {
	return p.refusal(rpc.ReasonBudgetExhausted,
		"provider %q has %d calls under way and %d waiting, and no more may wait: look why it is slow, "+
			"or raise --max-queued, --max-calls or --max-store-calls (Helm values gateway.budgets.maxQueued, maxCalls, maxStoreCalls)",
		p.name, p.calls, p.queued)
}

// notInTime begins what a call is told whose turn does not come in time.
const notInTime = "the turn of this call does not come before its deadline, because "

// tooFast is what a call is told that the rate keeps from having a turn in time.
func (p *provider) tooFast() *rpc.Error {
	return p.refusal(rpc.ReasonBudgetExhausted,
		notInTime+"provider %q may make %v calls per second: raise --max-rate=%s=N (Helm value gateway.budgets.maxRate)",
		p.name, p.limits.Rate, p.name)
}

// tooLate is what a call is told whose time is over before its turn came, with
// what stood in its way.
func (p *provider) tooLate(s *store, now time.Time) *rpc.Error {
	switch {
	case !s.room() && s.window < s.most:
		return p.refusal(rpc.ReasonBudgetExhausted,
			notInTime+"the store %q of provider %q failed or asked to slow down lately, so that its calls are limited to %d at a time: "+
				"see the provider's log, or raise the store's limit",
			s.name, p.name, s.window)
	case !s.room():
		return p.refusal(rpc.ReasonBudgetExhausted,
			notInTime+"the store %q of provider %q has %d calls under way: look why it is slow, "+
				"or raise --max-store-calls (Helm value gateway.budgets.maxStoreCalls)",
			s.name, p.name, s.calls)
	case p.rateDelay(1, now) > 0:
		return p.tooFast()
	default:
		return p.refusal(rpc.ReasonBudgetExhausted,
			notInTime+"provider %q has %d of %d calls under way: look why it is slow, or raise --max-calls (Helm value gateway.budgets.maxCalls)",
			p.name, p.calls, p.limits.Calls)
	}
}

func (p *provider) refusal(reason, format string, args ...any) *rpc.Error {
	return &rpc.Error{
		Reason:   reason,
		Message:  fmt.Sprintf(format, args...),
		Metadata: map[string]string{rpc.MetadataProvider: p.name},
	}
}

// inWords rounds up, to what people read: nobody is told to come too early.
func inWords(d time.Duration) string {
	const step = 100 * time.Millisecond
	return (d + step - 1).Truncate(step).String()
}
