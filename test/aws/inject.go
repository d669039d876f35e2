package aws

import (
	"net/http"
	"time"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
)

// inject does what a fault wants with a request. Nil: there is none, or it has
// only waited.
func (s *Server) inject(w http.ResponseWriter, e *exchange) error {
	fault, ended, ok := s.faults.take(e, "")
	if !ok {
		return nil
	}
	if fault.Latency > 0 {
		timer := time.NewTimer(time.Duration(fault.Latency))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ended:
		case <-e.request.Context().Done():
		}
	}
	switch fault.Kind {
	case control.Latency:
		return nil
	case control.Hang:
		s.note(e, 0, &api.Error{Code: control.Hang})
		select {
		case <-ended:
		case <-e.request.Context().Done():
		}
		hangUp(w)
		return errAnswered
	case control.Close:
		s.note(e, 0, &api.Error{Code: control.Close})
		hangUp(w)
		return errAnswered
	case control.Garbage:
		s.note(e, http.StatusOK, &api.Error{Code: control.Garbage})
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<html>a proxy's page")) // a client that is gone needs no answer
		return errAnswered
	default:
		return &injectedError{answer: answerOf(fault, e.service), retryAfter: fault.RetryAfter}
	}
}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = connection.Close()
	}
}
