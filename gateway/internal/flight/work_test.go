package flight_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/flight"
	"github.com/postern-dev/postern/internal/rpc"
)

type valueKey struct{}

// The work is the first caller's: its values, its span, its deadline.
func TestWorkContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, s := flight.New(), newStore()
		span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
		ctx, cancel := context.WithTimeout(context.WithValue(trace.ContextWithSpanContext(t.Context(), span), valueKey{}, "first"), time.Minute)
		defer cancel()
		first := call(ctx, g, keyOf("a"), s.work)
		other := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{3}, SpanID: trace.SpanID{4}})
		second := call(trace.ContextWithSpanContext(t.Context(), other), g, keyOf("a"), s.work)
		work := s.context(0)
		want, _ := ctx.Deadline()
		if deadline, ok := work.Deadline(); !ok || !deadline.Equal(want) {
			t.Errorf("the work's deadline is %v, want %v", deadline, want)
		}
		if work.Value(valueKey{}) != "first" || !trace.SpanContextFromContext(work).Equal(span) {
			t.Error("the work's context has not the first caller's values")
		}
		s.fails(errStore)
		first.failed(t, errStore)
		second.failed(t, errStore)
		if !first.landing.Work.Equal(span) || !second.landing.Work.Equal(span) {
			t.Errorf("the work's span is %v and %v, want %v", first.landing.Work, second.landing.Work, span)
		}
	})
}

func TestWorkThatBreaks(t *testing.T) {
	t.Parallel()
	tests := map[string]func() (*answer.Answer, error){
		"panic":     func() (*answer.Answer, error) { panic(content) },
		"nil panic": func() (*answer.Answer, error) { panic(error(nil)) },
		"exit":      func() (*answer.Answer, error) { runtime.Goexit(); return nil, nil },
		"nothing":   func() (*answer.Answer, error) { return nil, nil },
	}
	for name, breaks := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g, s := flight.New(), newStore()
				callers := []*caller{call(t.Context(), g, keyOf("a"), s.work), call(t.Context(), g, keyOf("a"), s.work)}
				s.ends <- breaks
				for _, c := range callers {
					if c.waits() {
						t.Fatal("Do has not returned")
					}
					e, ok := errors.AsType[*rpc.Error](c.err)
					if !ok || e.Reason != rpc.ReasonInternal || status.Code(e) != codes.Internal || c.landing.Answer != nil {
						t.Errorf("Do: %v, want INTERNAL", c.err)
					}
					checkPanic(t, c.err, strings.Contains(name, "panic"))
				}
				flies(t, g)
				next := call(t.Context(), g, keyOf("a"), s.work)
				next.got(t, s.answers())
			})
		})
	}
}

// checkPanic fails the test unless an error says where there was a panic, and
// nothing of what was thrown.
func checkPanic(t *testing.T, err error, want bool) {
	t.Helper()
	p, ok := errors.AsType[*flight.PanicError](err)
	if ok != want {
		t.Fatalf("a panic in the error's chain: %v, want %v", ok, want)
	}
	if !ok {
		return
	}
	if !strings.Contains(p.Stack, "TestWorkThatBreaks") || strings.Contains(p.Stack, "0x") {
		t.Errorf("the stack is\n%s\nwant the work's functions without arguments", p.Stack)
	}
	if text := fmt.Sprintf("%v %+v %v %+v", err, err, p, *p); strings.Contains(text, content) {
		t.Errorf("what was thrown is in the error: %s", text)
	}
}

// Work that brings an error and an answer loses the answer.
func TestAnswerWithError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, s, a := flight.New(), newStore(), newAnswer()
		s.ends <- func() (*answer.Answer, error) { return a, errStore }
		call(t.Context(), g, keyOf("a"), s.work).failed(t, errStore)
		if !overwritten(a) {
			t.Error("the answer was not released")
		}
	})
}

func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, s := flight.New(), newStore()
		s.heedless = true
		call(t.Context(), g, keyOf("a"), s.work).leave(nil)
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			g.Wait()
		}()
		synctest.Wait()
		select {
		case <-waited:
			t.Error("Wait returned before the work")
		default:
		}
		s.answers()
		<-waited
	})
}
