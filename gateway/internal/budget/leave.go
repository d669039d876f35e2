package budget

import (
	"time"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/internal/rpc"
)

// Leave is the permission for one call, and its place in the budget. Done or
// Cancel gives the place back; only the first call of either counts.
type Leave struct {
	provider *provider
	store    *store
	// deadline is the caller's; zero for none.
	deadline time.Time
	// unpaused says that the caller does not wait out a pause of the store.
	unpaused bool
	// settled is closed when the wait is over. It is nil for a call that had
	// none.
	settled chan struct{}

	// The provider's lock guards what is below.

	// err is why the wait was in vain.
	err error
	// number says when the call began, compared with others of the store.
	number  uint64
	begunAt time.Time
	// probe marks the one call that tries a store whose breaker is open.
	probe bool
	over  bool
}

// Done says what the call came to: nil, an [*rpc.Error] or a context's error.
func (l *Leave) Done(err error) { l.provider.finish(l, err) }

// Cancel says that no call was made.
func (l *Leave) Cancel() { l.provider.abandon(l) }

func (l *Leave) waited() bool { return l.settled != nil }

// late reports whether the caller does not wait for the end of a pause: it does
// not at all, or its deadline is not after that.
func (l *Leave) late(end time.Time) bool {
	return l.unpaused || !l.deadline.IsZero() && !l.deadline.After(end)
}

// cutShort reports whether a call that is over had only the rest of its caller's
// time, because it had waited, and used that up. That it ran out of time says
// nothing about the store then. Who makes the call keeps some time back for
// what there is to say, hence the fifth.
func (l *Leave) cutShort(now time.Time) bool {
	if !l.waited() || l.deadline.IsZero() {
		return false
	}
	return l.deadline.Sub(now) <= l.deadline.Sub(l.begunAt)/5
}

// verdict is what a call says about its store.
type verdict int

const (
	// silent is nothing.
	silent verdict = iota
	// answered says that it works. A refusal is an answer.
	answered
	// throttled says that it asks to slow down.
	throttled
	// failed says that it does not work.
	failed
)

// outcome is what a call came to, for its store.
type outcome struct {
	verdict
	// reason is the contract's word for it, and no text of the call's.
	reason     string
	retryAfter time.Duration
}

// judge tells what the end of a call says about the store. A process that died
// and a caller that left say nothing.
func judge(err error) outcome {
	if err == nil {
		return outcome{verdict: answered}
	}
	e := rpc.FromError(err)
	o := outcome{reason: e.Reason, retryAfter: e.RetryAfter}
	switch e.Reason {
	case rpc.ReasonRateLimited:
		o.verdict = throttled
	case rpc.ReasonStoreUnavailable, rpc.ReasonDeadlineExceeded:
		o.verdict = failed
	case rpc.ReasonProviderUnavailable, rpc.ReasonBudgetExhausted:
		o.verdict = silent
	default:
		o.verdict = answered
		if e.Reason == "" && e.Code == codes.Canceled {
			o.verdict = silent
		}
	}
	return o
}
