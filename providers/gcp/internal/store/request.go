package store

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/postern-dev/postern/providers/sdk"
)

const (
	// maxTries is how often a request is made at most, and maxCorrupted how often if
	// the answers are not right.
	maxTries     = 3
	maxCorrupted = 2
	// tryTimeout is how long one answer may take. The services answer in some tens of
	// milliseconds.
	tryTimeout = 10 * time.Second
	// firstDelay is before the second try, and three times as long before the third,
	// both up to a fifth longer by chance.
	firstDelay = 500 * time.Millisecond
	// longestDelay is how long a try waits for its turn at most. When Google asks for
	// more, whoever asked is told so.
	longestDelay = 5 * time.Second
	// timeToCall is left of a deadline for the request itself.
	timeToCall = 500 * time.Millisecond
)

// The IAM permissions of what is asked for.
const (
	accessVersion   = "secretmanager.versions.access"
	getVersion      = "secretmanager.versions.get"
	listSecrets     = "secretmanager.secrets.list"
	renderParameter = "parametermanager.parameterVersions.render"
)

// The keys of log records, which are those of all of Postern.
const (
	keyAttempt   = "attempt"
	keyDuration  = "duration"
	keyIdentity  = "identity"
	keyOperation = "operation"
	keyReason    = "reason"
)

// request is one question to one endpoint.
type request struct {
	endpoint   *endpoint
	as         As
	permission string
	resource   string
	// routing is what the endpoint finds the resource by, without having to read the
	// request: https://google.aip.dev/4222
	routing string
	logger  *slog.Logger
}

// ask says what a request is, to an endpoint that the caller has entered.
func (s *Store) ask(e *endpoint, as As, permission, resource string) *request {
	field := "name"
	if permission == listSecrets {
		field = "parent"
	}
	return &request{
		endpoint: e, as: as, permission: permission, resource: resource,
		routing: field + "=" + url.QueryEscape(resource), logger: s.logger,
	}
}

// exchange makes a request once and checks the answer.
type exchange func(ctx context.Context, e *endpoint, credentials grpc.CallOption) error

// repeat makes a request, and makes it again while that may help and there is time.
func (r *request) repeat(ctx context.Context, do exchange) *Error {
	for made := 1; ; made++ {
		failure := r.once(ctx, do)
		if failure == nil {
			return nil
		}
		delay, again := delayAfter(ctx, failure, made)
		if !again {
			return failure
		}
		r.logger.DebugContext(ctx, "a request to Google Cloud is made again", slog.String(keyOperation, r.permission),
			slog.Int(keyAttempt, made+1), slog.String(keyReason, failure.Kind.String()), slog.Duration(keyDuration, delay))
		if failure.Kind == Unavailable {
			// A connection that could not be made is made now, and not when gRPC has
			// waited long enough, which may be minutes.
			r.endpoint.conn.ResetConnectBackoff()
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return failure
		}
	}
}

// once makes a request.
func (r *request) once(ctx context.Context, do exchange) *Error {
	try, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	try = metadata.AppendToOutgoingContext(try, "x-goog-request-params", r.routing)
	l := &login{PerRPCCredentials: r.as.Credentials}
	err := do(try, r.endpoint, grpc.PerRPCCredentials(l))
	if err == nil {
		return nil
	}
	failure := r.failed(l, err)
	if failure.Code == codes.DeadlineExceeded && try.Err() != nil && ctx.Err() == nil {
		failure.Message = fmt.Sprintf("there was no answer within %s: %s", tryTimeout, failure.Message)
	}
	return failure
}

// delayAfter says how long to wait after a request was made so many times, and whether
// to make it again at all. Whoever is throttled and is not told for how long learns it
// from the failure.
func delayAfter(ctx context.Context, failure *Error, made int) (time.Duration, bool) {
	switch failure.Kind {
	case Corrupted:
		return 0, made < maxCorrupted && ctx.Err() == nil
	case Throttled, Unavailable:
	default:
		return 0, false
	}
	delay := failure.RetryAfter
	if delay == 0 {
		delay = firstDelay
		for range made - 1 {
			delay *= 3
		}
		delay += rand.N(delay / 5) //nolint:gosec // chance spreads requests, and keeps nothing secret
	}
	if failure.Kind == Throttled {
		failure.RetryAfter = delay
	}
	deadline, limited := ctx.Deadline()
	inTime := !limited || time.Until(deadline) >= delay+timeToCall
	return delay, made < maxTries && delay <= longestDelay && inTime && ctx.Err() == nil
}

// login is the credentials of one request. It remembers what they gave, for errors
// that must not repeat it.
//
// gRPC asks it from the goroutine of the request alone.
type login struct {
	credentials.PerRPCCredentials
	tokens []sdk.SecretString
	// err is why there are none.
	err error
}

// GetRequestMetadata returns the headers of a request.
func (l *login) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	headers, err := l.PerRPCCredentials.GetRequestMetadata(ctx, uri...)
	if err != nil {
		l.err = err
		return nil, err
	}
	for _, header := range headers {
		if token := strings.TrimPrefix(header, "Bearer "); token != "" {
			l.tokens = append(l.tokens, sdk.NewSecretString(token))
		}
	}
	return headers, nil
}

// RequireTransportSecurity says that tokens go over TLS alone, whatever credentials
// think of that.
func (l *login) RequireTransportSecurity() bool { return true }
