package keyvault

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/postern-dev/postern/providers/azure/internal/logkey"
	"github.com/postern-dev/postern/providers/azure/internal/retryafter"
)

const (
	// tries is how often a request is made at most.
	tries = 3
	// tryTimeout is how long one answer may take: a lost packet is not to cost the
	// whole mount. Vaults answer in some tens of milliseconds.
	tryTimeout = 10 * time.Second
	// firstDelay is before the second try, and three times as long before the third,
	// both a little shorter or longer by chance.
	firstDelay = 800 * time.Millisecond
	// longestJitter is by how much longer such a delay can be, in tenths.
	longestJitter = 13
	// longestDelay is how long a try waits for its turn at most. When the vault asks
	// for more, whoever asked is told so.
	longestDelay = 5 * time.Second
	// timeToCall is left of a deadline for the request itself.
	timeToCall = 500 * time.Millisecond
)

// attempts are those of one request, inside its deadline. They end at once rather
// than wait for longer than there is time, so that the caller learns what the vault
// said and when to come back.
//
// The SDK's retry policy asks them, from the goroutine of the request alone.
type attempts struct {
	did    operation
	logger *slog.Logger
	// deadline is zero if there is none.
	deadline time.Time
	made     int
	// delay is the latest wait between two attempts, made or not.
	delay time.Duration
	// status and token are of the latest attempt: the answer's, 0 if there was none,
	// and the header that carried the token.
	status int
	token  string
}

type attemptsKey struct{}

func newAttempts(ctx context.Context, logger *slog.Logger, did operation) *attempts {
	deadline, _ := ctx.Deadline()
	return &attempts{deadline: deadline, logger: logger, did: did}
}

// context has the SDK make the request as the attempts want it.
func (a *attempts) context(ctx context.Context) context.Context {
	ctx = context.WithValue(ctx, attemptsKey{}, a)
	return policy.WithRetryOptions(ctx, policy.RetryOptions{
		MaxRetries: tries - 1, TryTimeout: tryTimeout, RetryDelay: firstDelay, MaxRetryDelay: longestDelay,
		ShouldRetry: func(resp *http.Response, err error) bool { return a.again(ctx, resp, err) },
	})
}

// attemptsOf returns those of a request that was made with their context.
func attemptsOf(ctx context.Context) *attempts {
	a, _ := ctx.Value(attemptsKey{}).(*attempts)
	return a
}

// again reports whether to try again after an answer, or after there was none.
func (a *attempts) again(ctx context.Context, resp *http.Response, err error) bool {
	a.made++
	if !passing(resp, err) {
		return false
	}
	a.delay = retryAfter(resp)
	if a.delay == 0 {
		// The policy's own, at its longest: one, three times the first delay.
		a.delay = min((1<<a.made-1)*firstDelay*longestJitter/10, longestDelay)
	}
	if a.made == tries || a.delay > longestDelay || (!a.deadline.IsZero() && time.Until(a.deadline) < a.delay+timeToCall) {
		return false
	}
	a.logger.DebugContext(ctx, "a request to the vault is made again", slog.String(logkey.Operation, a.did.String()),
		slog.Int(logkey.Attempt, a.made+1), slog.Int(logkey.Status, a.status), slog.Duration(logkey.Duration, a.delay))
	return true
}

// passing reports whether the next try may have more success.
func passing(resp *http.Response, err error) bool {
	if err == nil {
		return slices.Contains([]int{
			http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
		}, resp.StatusCode)
	}
	if _, sent := errors.AsType[*transportError](err); !sent {
		return false
	}
	_, refused := refusedByProxy(err)
	return !refused && !unknownHost(err) && !untrusted(err)
}

// unknownHost reports whether a name does not exist.
func unknownHost(err error) bool {
	lookup, ok := errors.AsType[*net.DNSError](err)
	return ok && lookup.IsNotFound
}

// untrusted reports whether TLS failed for the certificate's sake.
func untrusted(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// refusedByProxy returns what a proxy answers that does not connect. Of its answer
// net/http gives the status' text alone.
func refusedByProxy(err error) (string, bool) {
	sending, ok := errors.AsType[*url.Error](err)
	if !ok {
		return "", false
	}
	text := sending.Err.Error()
	for status := http.StatusMultipleChoices; status < 600; status++ {
		if text == http.StatusText(status) {
			return text, true
		}
	}
	return "", false
}

// retryAfter is when to try again, if there is an answer and it says so.
func retryAfter(resp *http.Response) time.Duration {
	if resp == nil {
		return 0
	}
	return retryafter.Of(resp.Header)
}
