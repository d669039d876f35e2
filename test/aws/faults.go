package aws

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/double"
)

// newFaults returns none yet.
func newFaults() *double.Faults[control.Fault] {
	return double.NewFaults(func(f *control.Fault) double.Limits { return double.Limits{After: &f.After, Count: &f.Count} })
}

func (s *Server) addFault(fault control.Fault) error {
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
	s.faults.Add(fault)
	return nil
}

// matches tells whether a fault is for a request, or for an item of it.
func matches(f *control.Fault, e *exchange, item string) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	return f.Item == item && is(f.Service, e.service) && is(f.Operation, e.operation) && is(f.Region, e.region) && is(f.Role, e.role)
}

// failing returns the error that an item of a batch gets.
func (s *Server) failing(e *exchange) func(string) *api.Error {
	return func(item string) *api.Error {
		fault, _, ok := s.faults.Take(func(f *control.Fault) bool { return matches(f, e, item) })
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
