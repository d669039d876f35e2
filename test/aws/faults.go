package aws

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
)

// faults are what goes wrong.
//
// Invariants:
//  1. Each request takes one fault at most: the first that matches it.
//  2. What hangs waits for ended, which is closed when the faults are deleted.
type faults struct {
	mu    sync.Mutex
	list  []*control.Fault
	ended chan struct{}
}

func newFaults() *faults { return &faults{ended: make(chan struct{})} }

func (f *faults) add(fault control.Fault) error {
	kinds := []string{
		control.Throttle, control.ErrorAnswer, control.Unavailable, control.UnknownOperation,
		control.Hang, control.Close, control.Garbage, control.Latency,
	}
	switch {
	case !slices.Contains(kinds, fault.Kind):
		return fmt.Errorf("fault: unknown kind %q, want one of %v", fault.Kind, kinds)
	case fault.Kind == control.ErrorAnswer && fault.Code == "":
		return errors.New("fault: kind error needs a code")
	case fault.Item != "" && fault.Kind != control.ErrorAnswer:
		return errors.New("fault: an item's fault is of kind error")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, &fault)
	return nil
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
	close(f.ended)
	f.ended = make(chan struct{})
}

// take returns the fault of a request, or of an item of it.
func (f *faults) take(e *exchange, item string) (fault control.Fault, ended <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, candidate := range f.list {
		if candidate.Item != item || !matches(candidate, e) {
			continue
		}
		if candidate.After > 0 {
			candidate.After--
			continue
		}
		if candidate.Count == 1 {
			f.list = slices.Delete(f.list, i, i+1)
		} else if candidate.Count > 1 {
			candidate.Count--
		}
		return *candidate, f.ended, true
	}
	return control.Fault{}, nil, false
}

func matches(f *control.Fault, e *exchange) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	return is(f.Service, e.service) && is(f.Operation, e.operation) && is(f.Region, e.region) && is(f.Role, e.role)
}

// failing returns the error that an item of a batch gets.
func (f *faults) failing(e *exchange) func(string) *api.Error {
	return func(item string) *api.Error {
		fault, _, ok := f.take(e, item)
		if !ok {
			return nil
		}
		return api.BadRequest(fault.Code, fault.Message)
	}
}

// answerOf is the error that a fault answers with; nil for those that answer none.
func answerOf(f control.Fault, service string) *api.Error {
	e := &api.Error{Status: f.Status, Code: f.Code, Message: f.Message}
	fill := func(status int, code, message string) *api.Error {
		if e.Status == 0 {
			e.Status = status
		}
		if e.Code == "" {
			e.Code = code
		}
		if e.Message == "" {
			e.Message = message
		}
		return e
	}
	switch f.Kind {
	case control.Throttle:
		switch service {
		case control.STS:
			return fill(http.StatusBadRequest, "Throttling", "Rate exceeded")
		case control.PodIdentity:
			return fill(http.StatusTooManyRequests, "ThrottlingException", "Rate exceeded")
		}
		return fill(http.StatusBadRequest, "ThrottlingException", "Rate exceeded")
	case control.ErrorAnswer:
		return fill(http.StatusBadRequest, "", "an injected error")
	case control.Unavailable:
		return fill(http.StatusServiceUnavailable, "ServiceUnavailable", "Service is unable to handle request.")
	case control.UnknownOperation:
		if service == control.STS {
			return fill(http.StatusBadRequest, "InvalidAction", "Could not find operation.")
		}
		return fill(http.StatusNotFound, "UnknownOperationException", "")
	default:
		return nil
	}
}
