package store

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
)

// says is a status with details.
func says(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	st, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func retryIn(d time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}

// firstFail answers the first requests with an error, and lets the others pass.
func firstFail(n int, err error) func(context.Context, arrival) error {
	var came atomic.Int64
	return func(context.Context, arrival) error {
		if came.Add(1) <= int64(n) {
			return err
		}
		return nil
	}
}

// hang does not answer the first requests at all, also when it could tell that nobody
// waits any more.
func hang(t *testing.T, n int) func(context.Context, arrival) error {
	gone := make(chan struct{})
	t.Cleanup(func() { close(gone) })
	var came atomic.Int64
	return func(context.Context, arrival) error {
		if came.Add(1) <= int64(n) {
			<-gone
		}
		return nil
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	throttled := says(codes.ResourceExhausted, "Quota exceeded")
	for name, tt := range map[string]struct {
		times    int
		err      error         // nil: no answer at all
		deadline time.Duration // zero: a minute
		requests int
		failed   string        // zero: it does not fail
		after    time.Duration // when to try again, if that is certain
		took     time.Duration // at least, and a fifth more at most
	}{
		"throttled once":            {times: 1, err: throttled, requests: 2, took: firstDelay},
		"throttled twice":           {times: 2, err: throttled, requests: 3, took: 4 * firstDelay},
		"throttled for ever":        {times: 9, err: throttled, requests: 3, failed: "throttled", took: 4 * firstDelay},
		"unavailable":               {times: 2, err: says(codes.Unavailable, "try again"), requests: 3, took: 4 * firstDelay},
		"unavailable for ever":      {times: 9, err: says(codes.Unavailable, "try again"), requests: 3, failed: "unavailable", took: 4 * firstDelay},
		"internal":                  {times: 1, err: says(codes.Internal, "oops"), requests: 2, took: firstDelay},
		"aborted":                   {times: 1, err: says(codes.Aborted, "oops"), requests: 2, took: firstDelay},
		"no answer":                 {times: 1, requests: 2, took: tryTimeout + firstDelay},
		"no answer for ever":        {times: 9, requests: 3, failed: "unavailable", took: 3*tryTimeout + 4*firstDelay},
		"told when":                 {times: 1, err: says(codes.ResourceExhausted, "slower", retryIn(4*time.Second)), requests: 2, took: 4 * time.Second},
		"told when, unavailable":    {times: 1, err: says(codes.Unavailable, "later", retryIn(4*time.Second)), requests: 2, took: 4 * time.Second},
		"told a long time":          {times: 9, err: says(codes.ResourceExhausted, "slower", retryIn(time.Minute)), requests: 1, failed: "throttled", after: time.Minute},
		"told more than is waited":  {times: 9, err: says(codes.ResourceExhausted, "slower", retryIn(20*time.Second)), requests: 1, failed: "throttled", after: 20 * time.Second},
		"told nonsense":             {times: 1, err: says(codes.ResourceExhausted, "slower", retryIn(-time.Minute)), requests: 2, took: firstDelay},
		"told for ever":             {times: 9, err: says(codes.ResourceExhausted, "slower", retryIn(1e9*time.Second)), requests: 1, failed: "throttled", after: maxRetryAfter},
		"told longer than there is": {times: 9, err: says(codes.ResourceExhausted, "slower", retryIn(4*time.Second)), deadline: 4 * time.Second, requests: 1, failed: "throttled", after: 4 * time.Second},
		"told, and there is time":   {times: 1, err: says(codes.ResourceExhausted, "slower", retryIn(4*time.Second)), deadline: 5 * time.Second, requests: 2, took: 4 * time.Second},
		"no time":                   {times: 9, err: throttled, deadline: 600 * time.Millisecond, requests: 1, failed: "throttled"},
		"time for two":              {times: 9, err: throttled, deadline: 2 * time.Second, requests: 2, failed: "throttled", took: firstDelay},
		"denied":                    {times: 9, err: says(codes.PermissionDenied, "no"), requests: 1, failed: "denied"},
		"bad credentials":           {times: 9, err: says(codes.Unauthenticated, "no"), requests: 1, failed: "bad credentials"},
		"not found":                 {times: 9, err: says(codes.NotFound, "no"), requests: 1, failed: "not found"},
		"disabled":                  {times: 9, err: says(codes.FailedPrecondition, "no"), requests: 1, failed: "disabled"},
		"invalid":                   {times: 9, err: says(codes.InvalidArgument, "no"), requests: 1, failed: "invalid"},
	} {
		for kind, ref := range map[params.Kind]Ref{params.Secret: refTo("web", "1"), params.Parameter: refToParameter("", "conf", "v1")} {
			t.Run(name+" "+string(kind), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					m := some()
					m.script = firstFail(tt.times, tt.err)
					if tt.err == nil {
						m.script = hang(t, tt.times)
					}
					w := newWorld(t, m, Config{})
					ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(tt.deadline, time.Minute))
					defer cancel()
					start := time.Now()
					answers, err := w.store.Read(ctx, as("web"), []Ref{ref})
					if err != nil {
						t.Fatal(err)
					}
					if took := time.Since(start); took < tt.took || took > tt.took*6/5+time.Millisecond {
						t.Errorf("took %s, want %s", took, tt.took)
					}
					if n := len(w.arrivals()); n != tt.requests {
						t.Errorf("%d requests, want %d", n, tt.requests)
					}
					if tt.failed == "" {
						if answers[0].Err != nil {
							t.Error(answers[0].Err)
						}
						return
					}
					e := asError(t, answers[0].Err)
					if e.Kind.String() != tt.failed || tt.err == nil && !strings.HasPrefix(e.Message, "there was no answer within 10s: ") {
						t.Errorf("error is %v", e)
					}
					if tt.after != 0 && e.RetryAfter != tt.after || (e.Kind == Throttled) != (e.RetryAfter != 0) {
						t.Errorf("to be tried again after %s, want %s", e.RetryAfter, tt.after)
					}
				})
			})
		}
	}
}

// TestCancelledWhileWaiting: a wait for the next try ends with the call.
func TestCancelledWhileWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := some()
		m.script = firstFail(9, says(codes.ResourceExhausted, "slower", retryIn(4*time.Second)))
		w := newWorld(t, m, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := w.store.Read(ctx, as("web"), []Ref{refTo("web", "1")})
		if took := time.Since(start); !errors.Is(err, context.Canceled) || took != time.Second {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

// TestDeadline: a call that gets no answer ends with its time.
func TestDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := some()
		m.script = hang(t, 9)
		w := newWorld(t, m, Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := w.store.Read(ctx, as("web"), []Ref{refTo("web", "1")})
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != 3*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

// TestRetriesAreLogged: with what fails, and nothing secret.
func TestRetriesAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := some()
		m.script = firstFail(1, says(codes.Unavailable, "try again"))
		var log logged
		w := newWorld(t, m, Config{Logger: log.logger()})
		w.read(t, as("web"), refTo("web", "1"))
		if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, accessVersion) ||
			!strings.Contains(text, "attempt=2") || strings.Contains(text, "canary") {
			t.Errorf("the log is %q", text)
		}
	})
}
