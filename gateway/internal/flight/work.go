package flight

import (
	"context"
	"errors"

	"github.com/postern-dev/postern/internal/rpc"
)

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
			out = outcome{err: internal(&PanicError{Stack: rpc.PanicStack()})}
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
