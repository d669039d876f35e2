package gcp

import (
	"errors"

	"github.com/postern-dev/postern/providers/gcp/internal/store"
)

var (
	// errUntold is that versions cannot be told without reading.
	errUntold = errors.New("the versions cannot be told")
	// errNoneSelected is a selection that matches nothing.
	errNoneSelected = errors.New("nothing matches")
)

// tooManyError is a selection that matches more than it may.
type tooManyError struct{ limit int }

func (e *tooManyError) Error() string { return "too many match" }

// missing reports whether a failure is that there is no such object.
func missing(err error) bool {
	e, ok := errors.AsType[*store.Error](err)
	return errors.Is(err, errNoneSelected) || ok && e.Kind == store.NotFound
}

// failed reports whether one object is not there and has to be.
func (one *found) failed() bool {
	return one.err != nil && (!one.object.Optional || !missing(one.err))
}

// failure is the first, in the order of the class; nil if all is there.
func (o outcome) failure() error {
	if o.err != nil {
		return o.err
	}
	for i := range o.objects {
		if o.objects[i].failed() {
			return o.objects[i].err
		}
	}
	return nil
}

// rejected reports whether Google does not accept the token.
func (o outcome) rejected() bool {
	for _, one := range o.objects {
		if e, ok := errors.AsType[*store.Error](one.err); ok && e.Kind == store.BadCredentials {
			return true
		}
	}
	return false
}
