package aws

import (
	"context"
	"errors"

	"github.com/postern-dev/postern/providers/aws/internal/identity"
	"github.com/postern-dev/postern/providers/aws/internal/store"
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
	for _, objects := range o.objects {
		for i := range objects {
			if objects[i].failed() {
				return objects[i].err
			}
		}
	}
	return nil
}

// rejected reports whether AWS does not accept the credentials.
func (o outcome) rejected() bool {
	for _, objects := range o.objects {
		for _, one := range objects {
			if e, ok := errors.AsType[*store.Error](one.err); ok && e.Kind == store.BadCredentials {
				return true
			}
		}
	}
	return false
}

// allowsFailover reports whether another region may have what is missing here:
// because this one does not work, never because it refuses.
func (o outcome) allowsFailover() bool {
	if o.err != nil {
		return allowsFailover(o.err)
	}
	allowed := false
	for _, objects := range o.objects {
		for i := range objects {
			switch one := &objects[i]; {
			case !one.failed():
			case !allowsFailover(one.err):
				return false
			default:
				allowed = true
			}
		}
	}
	return allowed
}

func allowsFailover(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	if e, ok := errors.AsType[*store.Error](err); ok {
		return e.AllowsFailover()
	}
	e, ok := errors.AsType[*identity.Error](err)
	return ok && e.AllowsFailover()
}
