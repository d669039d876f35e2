package store

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/postern-dev/postern/providers/sdk"
)

const (
	// timeToCall is left of a deadline for the request itself: a call does not
	// wait for its turn any longer.
	timeToCall = 500 * time.Millisecond
	// turnCheck is how often a call that waits sees whether it is its turn.
	turnCheck = 50 * time.Millisecond
	// slowestPace is how long the adaptive retryer waits between requests at most.
	slowestPace = 2 * time.Second
)

// newRetryer returns one that learns how much a service takes. It does not wait
// itself: that is done with an eye on the deadline.
func newRetryer() aws.Retryer {
	return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) { o.FailOnNoAttemptTokens = true })
}

// errNoTime is a wait that would outlast the deadline.
var errNoTime = errors.New("there is no time left to try again")

// errPaced is a request that was not made, because the service has throttled
// those before it.
var errPaced = errors.New("requests are held back since the service throttles them, and there is no time left to wait")

// attempts are those of one call: the retryer of its client, which all calls
// share, inside this call's deadline. It gives up at once rather than wait for
// longer than there is time, so that the caller learns what the service said and
// when to come back.
type attempts struct {
	aws.RetryerV2
	// deadline is zero if there is none.
	deadline time.Time
	// delay is the latest wait between two attempts, made or not.
	delay time.Duration
	// last is what the latest attempt failed with.
	last error
}

var _ aws.RetryerV2 = (*attempts)(nil)

func newAttempts(ctx context.Context) *attempts {
	deadline, _ := ctx.Deadline()
	return &attempts{deadline: deadline}
}

// of makes a the retryer of a call whose client has another.
func (a *attempts) of(client aws.Retryer) aws.Retryer {
	a.RetryerV2, _ = client.(aws.RetryerV2) // an AdaptiveMode, or what the SDK has put around it
	return a
}

// GetAttemptToken waits for the call's turn.
func (a *attempts) GetAttemptToken(ctx context.Context) (func(error) error, error) {
	for {
		release, err := a.RetryerV2.GetAttemptToken(ctx)
		if err == nil {
			return release, nil
		}
		if !a.deadline.IsZero() && time.Until(a.deadline) < turnCheck+timeToCall {
			a.delay = max(a.delay, slowestPace)
			return nil, errors.Join(errPaced, a.last)
		}
		select {
		case <-time.After(turnCheck):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// RetryDelay says how long to wait, or that it cannot.
func (a *attempts) RetryDelay(attempt int, failure error) (time.Duration, error) {
	a.last = failure
	delay, err := a.RetryerV2.RetryDelay(attempt, failure)
	if err != nil {
		return 0, err
	}
	a.delay = max(delay, retryAfter(failure))
	tooLong := a.delay > retry.DefaultMaxBackoff
	if tooLong || (!a.deadline.IsZero() && time.Until(a.deadline) <= a.delay) {
		return 0, errors.Join(errNoTime, failure)
	}
	return a.delay, nil
}

// retryAfter is when to try again, if an answer says so.
func retryAfter(err error) time.Duration {
	answer, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok || answer.Response == nil || answer.Response.Response == nil {
		return 0
	}
	header := answer.Response.Header
	if ms, err := strconv.Atoi(header.Get("X-Amz-Retry-After")); err == nil && ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	return sdk.RetryAfter(header)
}
