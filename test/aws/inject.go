package aws

import (
	"net/http"
	"time"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/double"
)

// inject does what a fault wants with a request. Nil: there is none, or it has
// only waited.
func (s *Server) inject(w http.ResponseWriter, e *exchange) error {
	fault, ended, ok := s.faults.Take(func(f *control.Fault) bool { return matches(f, e, "") })
	if !ok {
		return nil
	}
	note := func(status int, kind string) { s.note(e, status, &api.Error{Code: kind}) }
	if (double.Injection{Kind: fault.Kind, Latency: time.Duration(fault.Latency), Ended: ended, Note: note}).Do(w, e.request) {
		return errAnswered
	}
	if fault.Kind == control.Latency {
		return nil
	}
	return &injectedError{answer: answerOf(fault, e.service), retryAfter: fault.RetryAfter}
}
