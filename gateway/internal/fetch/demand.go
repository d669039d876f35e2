package fetch

import (
	"time"

	"github.com/postern-dev/postern/gateway/internal/answer"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// demand is how new an answer has to be for one fetch.
//
// Both clocks have a say. A driver speaks of times by the wall clock, and when
// that is set back, an answer that is kept looks newer than it is for as long;
// the monotonic clock knows better. When it is set forward, an answer looks
// older, and a driver that gets it goes on asking.
type demand struct {
	// came is when the request did.
	came time.Time
	// after is, by both clocks, when the store has to have been asked after. It is
	// never later than came. Zero: whenever, as for mounts.
	after time.Time
}

// demandOf is that of a request that comes now. One that speaks of the future,
// as after the clock was set back, is content with what is asked for from now
// on: an answer that satisfies it to the letter may not come for hours.
func demandOf(req *gatewayv1.FetchRequest, now time.Time) demand {
	d := demand{came: now}
	if req.GetFetchedAfter() != nil {
		d.after = now.Add(min(req.GetFetchedAfter().AsTime().Sub(now), 0))
	}
	return d
}

// bounded reports whether there is a demand at all.
func (d demand) bounded() bool { return !d.after.IsZero() }

// allowsKept reports whether an answer that is kept is new enough.
func (d demand) allowsKept(a *answer.Answer) bool {
	at := a.FetchedAt()
	return at.After(d.after) && at.Round(0).After(d.after)
}

// allowsJoined reports whether an answer is new enough that was waited for. One
// that was asked for since the request came is, whatever the wall clock says of
// it: so nobody waits for a third call.
func (d demand) allowsJoined(a *answer.Answer) bool {
	return !d.bounded() || !a.FetchedAt().Before(d.came) || d.allowsKept(a)
}
