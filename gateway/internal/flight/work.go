package flight

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/postern-dev/postern/internal/rpc"
)

// maxFrames bounds the stack of a panic.
const maxFrames = 32

// OutOfTime marks the failure of a work that gave up for lack of time, as work
// does a little before its deadline so that its callers hear why. Callers get
// err as it is, but those that have a good deal more time get
// [ErrLeaderDeadline]. Failures that more time would not change, such as those
// after a timeout that is the work's own, are not to be marked: all who wait
// would make the work fail again, one after another.
func OutOfTime(err error) error { return &outOfTimeError{err: err} }

// outOfTimeError marks the error in it.
type outOfTimeError struct{ err error }

func (e *outOfTimeError) Error() string { return e.err.Error() }

func (e *outOfTimeError) Unwrap() error { return e.err }

// PanicError is the cause of the failure of a work that panicked. What was
// thrown is not in it: that may hold a request.
type PanicError struct {
	// Stack has the functions and lines of the work, without arguments.
	Stack string
}

// Error implements error.
func (e *PanicError) Error() string { return "the work of a fetch panicked" }

// protected runs work, so that a panic of it is an outcome like others.
func protected(ctx context.Context, work Work) (out outcome) {
	defer func() {
		if recover() != nil {
			out = outcome{err: internal(&PanicError{Stack: stack()})}
		}
	}()
	brought, err := work(ctx)
	if err == nil {
		return outcome{answer: brought}
	}
	if brought != nil {
		brought.Release()
	}
	if marked, ok := errors.AsType[*outOfTimeError](err); ok {
		return outcome{err: marked.err, outOfTime: true}
	}
	return outcome{err: err}
}

// internal is the failure of work that brought neither an answer nor an error.
func internal(cause error) error {
	return &rpc.Error{
		Reason:  rpc.ReasonInternal,
		Message: "the gateway failed during the fetch, which is a defect of it: please report it",
		Err:     cause,
	}
}

// stack returns the functions and lines of a panic's goroutine. Unlike
// debug.Stack it has no arguments.
func stack() string {
	pcs := make([]uintptr, maxFrames)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var b strings.Builder
	for {
		frame, more := frames.Next()
		fmt.Fprintf(&b, "%s %s:%d\n", frame.Function, frame.File, frame.Line)
		if !more {
			return strings.TrimSuffix(b.String(), "\n")
		}
	}
}
