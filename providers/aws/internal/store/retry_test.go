package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// firstAnswers answers the first requests of a kind, and lets the others pass.
func firstAnswers(n int, answer *reply) func(request) *reply {
	return func(request) *reply {
		if n--; n >= 0 {
			return answer
		}
		return nil
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	throttled := &reply{status: 400, code: "ThrottlingException", message: "Rate exceeded"}
	for name, tt := range map[string]struct {
		times    int
		answer   *reply
		deadline time.Duration // zero: none
		requests int
		// failed says that it fails, and how.
		failed string
		after  time.Duration // when to try again, if that is certain
		took   time.Duration // at least
	}{
		"throttled once":            {times: 1, answer: throttled, requests: 2},
		"throttled twice":           {times: 2, answer: throttled, requests: 3},
		"throttled for ever":        {times: 9, answer: throttled, requests: 3, failed: "throttled"},
		"broken twice":              {times: 2, answer: &reply{status: 500, code: "InternalServiceError"}, requests: 3},
		"broken for ever":           {times: 9, answer: &reply{status: 500, code: "InternalServiceError"}, requests: 3, failed: "unavailable"},
		"lost once":                 {times: 1, answer: &reply{err: errors.New("connection reset by peer")}, requests: 2},
		"denied":                    {times: 9, answer: failure("AccessDeniedException", "no"), requests: 1, failed: "denied"},
		"told when":                 {times: 1, answer: &reply{status: 429, code: "ThrottlingException", header: retryIn(9)}, requests: 2, took: 9 * time.Second},
		"told when, in ms":          {times: 1, answer: &reply{status: 429, code: "ThrottlingException", header: http.Header{"X-Amz-Retry-After": {"9000"}}}, requests: 2, took: 9 * time.Second},
		"told when, by date":        {times: 1, answer: &reply{status: 503, code: "ServiceUnavailable", header: http.Header{"Retry-After": {"Sat, 01 Jan 2000 00:00:09 GMT"}}}, requests: 2, took: 9 * time.Second},
		"told a long time":          {times: 9, answer: &reply{status: 429, code: "ThrottlingException", header: retryIn(60)}, requests: 1, failed: "throttled", after: time.Minute},
		"told longer than there is": {times: 9, answer: &reply{status: 429, code: "ThrottlingException", header: retryIn(9)}, deadline: 8 * time.Second, requests: 1, failed: "throttled", after: 9 * time.Second},
		"told, and there is time":   {times: 1, answer: &reply{status: 429, code: "ThrottlingException", header: retryIn(7)}, deadline: 30 * time.Second, requests: 2, took: 7 * time.Second},
		"no time":                   {times: 9, answer: throttled, deadline: time.Nanosecond, requests: 1, failed: "throttled"},
		"broken and no time":        {times: 9, answer: &reply{status: 503, code: "ServiceUnavailable"}, deadline: time.Nanosecond, requests: 1, failed: "unavailable"},
	} {
		for _, ref := range []Ref{secretRef("a"), parameterRef("a")} {
			t.Run(fmt.Sprint(name, " ", ref.Service), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					m := &memoryAWS{secrets: []*memorySecret{current("a")}, parameters: []*memoryParameter{parameter("a", "v")}}
					m.script = firstAnswers(tt.times, tt.answer)
					ctx := t.Context()
					if tt.deadline != 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, tt.deadline)
						defer cancel()
					}
					start := time.Now()
					answers, err := m.store().Read(ctx, as("web"), []Ref{ref})
					if err != nil {
						t.Fatal(err)
					}
					e, failed := errors.AsType[*Error](answers[0].Err)
					if len(m.requests) != tt.requests || failed != (tt.failed != "") || (failed && e.Kind.String() != tt.failed) {
						t.Errorf("%d requests, error %v", len(m.requests), answers[0].Err)
					}
					if took := time.Since(start); took < tt.took || (tt.deadline != 0 && took > tt.deadline) {
						t.Errorf("took %s, want at least %s", took, tt.took)
					}
					if failed && (tt.after != 0 && e.RetryAfter != tt.after || e.Kind == Throttled && e.RetryAfter == 0) {
						t.Errorf("to be tried again after %s, want %s", e.RetryAfter, tt.after)
					}
				})
			})
		}
	}
}

// TestPacing: what the service throttles slows all identities of the region down,
// and no other region or service. Who has no time to wait is told so at once.
func TestPacing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		throttling := true
		m := &memoryAWS{secrets: []*memorySecret{current("a")}, parameters: []*memoryParameter{parameter("a", "v")}}
		m.script = func(r request) *reply {
			if throttling && r.region == home && r.operation == "GetSecretValue" {
				return failure("ThrottlingException", "Rate exceeded")
			}
			return nil
		}
		s := m.store()
		if e, ok := errors.AsType[*Error](read(t, s, as("web"), secretRef("a"))[0].Err); !ok || e.Kind != Throttled {
			t.Fatalf("error is %v", e)
		}
		throttling = false
		paced := func(region Region, ref Ref, within time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			answers, err := s.Read(ctx, region, []Ref{ref})
			if err != nil {
				t.Fatalf("%v: the deadline is not kept", err)
			}
			return answers[0].Err
		}
		for _, free := range []error{
			paced(inRegion("us-east-2", "web"), secretRef("a"), 10*time.Millisecond),
			paced(as("web"), parameterRef("a"), 10*time.Millisecond),
		} {
			if free != nil {
				t.Errorf("throttling elsewhere holds a request back: %v", free)
			}
		}
		m.operations()
		start := time.Now()
		e, ok := errors.AsType[*Error](paced(as("db"), secretRef("a"), time.Second))
		if !ok || e.Kind != Throttled || e.RetryAfter != slowestPace || e.AllowsFailover() || e.Code != "" || !strings.Contains(e.Message, "held back") {
			t.Errorf("error is %v", e)
		}
		if took := time.Since(start); took > time.Second-timeToCall || m.operations() != "" {
			t.Errorf("gave up after %s", took)
		}
		if err := paced(as("db"), secretRef("a"), 10*time.Second); err != nil {
			t.Errorf("with time to wait: %v", err)
		}
	})
}

// TestPacedRetry: the error says what the service said before.
func TestPacedRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		a := newAttempts(ctx)
		a.of(heldBack{})
		said := errors.New("what it said")
		if _, err := a.RetryDelay(1, said); err != nil {
			t.Fatal(err)
		}
		if _, err := a.GetAttemptToken(ctx); !errors.Is(err, errPaced) || !errors.Is(err, said) || ctx.Err() != nil {
			t.Errorf("error is %v", err)
		}
		a.deadline = time.Time{}
		if _, err := a.GetAttemptToken(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errPaced) {
			t.Errorf("error of a call that has ended is %v", err)
		}
	})
}

// heldBack is a retryer that never lets anything pass.
type heldBack struct{ aws.RetryerV2 }

func (heldBack) GetAttemptToken(context.Context) (func(error) error, error) {
	return nil, errors.New("no token")
}

func (heldBack) RetryDelay(int, error) (time.Duration, error) { return 0, nil }

// TestMaxAttempts: AWS_MAX_ATTEMPTS, which is in the configuration, holds.
func TestMaxAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memoryAWS{script: func(request) *reply { return &reply{status: 503, code: "ServiceUnavailable"} }}
		s := New(Config{AWS: aws.Config{HTTPClient: &http.Client{Transport: m}, RetryMaxAttempts: 5}})
		read(t, s, as("web"), secretRef("a"))
		read(t, s, as("web"), parameterRef("a"))
		if got, want := m.operations(), "GetParameters:5 GetSecretValue:5"; got != want {
			t.Errorf("requests are %q, want %q", got, want)
		}
	})
}
