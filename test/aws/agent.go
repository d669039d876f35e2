package aws

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/models"
	"github.com/postern-dev/postern/test/aws/podidentity"
)

// serveAgent answers at the Pod Identity agent's address.
func (s *Server) serveAgent(w http.ResponseWriter, r *http.Request) {
	raw := r.Header.Get("Authorization")
	e := &exchange{service: control.PodIdentity, operation: podidentity.Operation, request: r, write: writeAgent}
	namespace, serviceAccount := podidentity.Subject(raw)
	e.role, _ = s.directory.Associated(namespace, serviceAccount)
	if r.Method != http.MethodGet || r.URL.Path != podidentity.Path {
		s.record.violation(e, "request", models.Violation{Problem: r.Method + " " + r.URL.Path + ", want GET " + podidentity.Path})
		http.NotFound(w, r)
		return
	}
	err := s.inject(w, e)
	if errors.Is(err, errAnswered) {
		return
	}
	var credentials podidentity.Answer
	if err == nil {
		credentials, err = s.agent.Credentials(r.Context(), raw)
	}
	if err == nil {
		e.accessKey = credentials.AccessKeyID
		err = s.sendCredentials(w, e, credentials)
	}
	if err != nil {
		var refused *podidentity.RequestError
		if errors.As(err, &refused) {
			err = &api.Error{Status: http.StatusBadRequest, Message: refused.Message}
		}
		s.finish(w, e, nil, err)
	}
}

func (s *Server) sendCredentials(w http.ResponseWriter, e *exchange, c podidentity.Answer) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	s.note(e, http.StatusOK, nil)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a client that is gone needs no answer
	return nil
}

// writeAgent is how the agent tells an error: as text, with the code of the
// service behind it.
func writeAgent(_ *exchange, _ api.Answer, failure *api.Error) (contentType string, body []byte, err error) {
	text := failure.Message
	if failure.Code != "" {
		fault := "client"
		if failure.Status >= http.StatusInternalServerError {
			fault = "server"
		}
		text = "[" + requestID() + "]: (" + failure.Code + "): " + text + ", fault: " + fault
	}
	return "text/plain; charset=utf-8", []byte(text + "\n"), nil
}
