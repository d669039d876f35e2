package fetch

import (
	"errors"

	"github.com/postern-dev/postern/internal/rpc"
)

// hurriedError marks the failure of a flight that a refresh began, and whose
// store asks to slow down. A mount that joined it asks again, with its own
// patience.
type hurriedError struct{ err error }

func (e *hurriedError) Error() string { return e.err.Error() }

func (e *hurriedError) Unwrap() error { return e.err }

func isHurried(err error) bool {
	_, ok := errors.AsType[*hurriedError](err)
	return ok
}

// isThrottled reports whether a call failed because its store asks to slow down.
func isThrottled(err error) bool {
	return err != nil && rpc.FromError(err).Reason == rpc.ReasonRateLimited
}
