package aws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
	"github.com/postern-dev/postern/test/aws/models"
	"github.com/postern-dev/postern/test/aws/sigv4"
	"github.com/postern-dev/postern/test/aws/sts"
)

// maxRequest is more than any request may have.
const maxRequest = 1 << 20

// exchange is a request on its way to an answer.
type exchange struct {
	service, operation, region string
	// role, session and accessKey say who asks; unverified at first.
	role, session, accessKey string
	// items are the ids that are asked for.
	items []string

	request *http.Request
	body    []byte
	// document is the body, decoded.
	document any
	model    *models.Model
	write    writer
}

// serveAWS answers at the endpoint of all services.
func (s *Server) serveAWS(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "read the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	e, err := s.identify(r, body)
	if err == nil {
		err = s.inject(w, e)
	}
	if errors.Is(err, errAnswered) {
		return
	}
	var answer api.Answer
	if err == nil {
		answer, err = s.answer(r.Context(), e)
	}
	s.finish(w, e, answer, err)
}

// identify tells what is asked for, and checks it against the service's model.
func (s *Server) identify(r *http.Request, body []byte) (*exchange, error) {
	e := &exchange{request: r, body: body, write: writeJSON}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		return e, s.identifyJSON(e, target)
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), formType) {
		e.service, e.model, e.write = control.STS, s.models[control.STS], writeXML
		return e, s.identifyQuery(e)
	}
	return e, s.breach(e, &api.Error{Status: http.StatusNotFound, Code: "UnknownOperationException"},
		models.Violation{Problem: "neither X-Amz-Target nor a form with an Action: " + r.Method + " " + r.URL.Path})
}

// breach records violations of a request and returns what it is answered.
func (s *Server) breach(e *exchange, answer *api.Error, found ...models.Violation) error {
	s.record.violation(e, "request", found...)
	return answer
}

// jsonType is the content type of requests and answers of the JSON protocol.
const jsonType = "application/x-amz-json-1.1"

func (s *Server) identifyJSON(e *exchange, target string) error {
	prefix, operation, _ := strings.Cut(target, ".")
	for service, model := range s.models {
		if model.Metadata.TargetPrefix == prefix {
			e.service, e.model = service, model
		}
	}
	e.operation = operation
	if e.model == nil || e.model.Operations[operation].Name == "" {
		return s.breach(e, &api.Error{Status: http.StatusNotFound, Code: "UnknownOperationException"},
			models.Violation{Problem: "the double does not serve " + target})
	}
	if signature, err := sigv4.Parse(e.request); err == nil {
		caller := s.directory.Whose(signature.AccessKey)
		e.region, e.accessKey, e.role, e.session = signature.Region, signature.AccessKey, caller.Principal, caller.Session
	}
	if got := e.request.Header.Get("Content-Type"); got != jsonType || e.request.Method != http.MethodPost || e.request.URL.Path != "/" {
		return s.breach(e, api.BadRequest("SerializationException", ""),
			models.Violation{Problem: fmt.Sprintf("%s %s of %q, want POST / of %s", e.request.Method, e.request.URL.Path, got, jsonType)})
	}
	decoder := json.NewDecoder(bytes.NewReader(e.body))
	decoder.UseNumber()
	if err := decoder.Decode(&e.document); err != nil {
		return s.breach(e, api.BadRequest("SerializationException", "no JSON"), models.Violation{Problem: err.Error()})
	}
	return s.checkInput(e)
}

// checkInput checks the decoded request, and notes what it asks for.
func (s *Server) checkInput(e *exchange) error {
	if found := e.model.CheckInput(e.operation, e.document); len(found) != 0 {
		return s.breach(e, api.BadRequest("ValidationException", validation(found)), found...)
	}
	e.items = itemsOf(e.document)
	return nil
}

// validation is AWS' message for what breaks its model.
func validation(found []models.Violation) string {
	texts := make([]string, len(found))
	for i, v := range found {
		texts[i] = "Value at '" + v.Path + "' failed to satisfy constraint: " + v.Problem
	}
	plural := ""
	if len(found) > 1 {
		plural = "s"
	}
	return fmt.Sprintf("%d validation error%s detected: %s", len(found), plural, strings.Join(texts, "; "))
}

// itemsOf are the ids in a request that has been checked.
func itemsOf(document any) (items []string) {
	members, _ := document.(map[string]any)
	for _, name := range []string{"SecretId", "Name", "SecretIdList", "Names"} {
		switch value := members[name].(type) {
		case string:
			items = append(items, value)
		case []any:
			for _, element := range value {
				if id, ok := element.(string); ok {
					items = append(items, id)
				}
			}
		}
	}
	return items
}

// answer verifies who asks, and has the service answer.
func (s *Server) answer(ctx context.Context, e *exchange) (api.Answer, error) {
	input, err := json.Marshal(e.document)
	if err != nil {
		return nil, err
	}
	if e.service == control.STS {
		var in sts.Input
		if err := json.Unmarshal(input, &in); err != nil {
			return nil, err
		}
		return s.sts.Assume(ctx, in)
	}
	caller, err := s.authenticate(e)
	if err != nil {
		return nil, err
	}
	call := api.Call{Operation: e.operation, Region: e.region, Caller: caller, Input: input, Failing: s.failing(e)}
	if e.service == control.SSM {
		return s.params.Serve(call)
	}
	return s.secrets.Serve(call)
}

// authenticate verifies the signature and returns whose it is.
func (s *Server) authenticate(e *exchange) (iam.Caller, error) {
	signature, err := sigv4.Parse(e.request)
	if err != nil {
		return iam.Caller{}, unauthenticated(err)
	}
	secret, caller, err := s.directory.Lookup(signature.AccessKey, signature.Token)
	if err != nil {
		return iam.Caller{}, unauthenticated(err)
	}
	if want := e.model.Metadata.EndpointName; signature.Service != want {
		return iam.Caller{}, api.BadRequest("InvalidSignatureException", "Credential should be scoped to correct service: '"+want+"'.")
	}
	if err := signature.Verify(e.request, e.body, secret, s.cfg.Now()); err != nil {
		return iam.Caller{}, unauthenticated(err)
	}
	return caller, nil
}

// unauthenticated is AWS' answer to a request whose sender it does not know.
func unauthenticated(err error) error {
	_, text, _ := strings.Cut(err.Error(), ": ")
	switch {
	case errors.Is(err, sigv4.ErrMissing):
		return api.BadRequest("MissingAuthenticationTokenException", err.Error())
	case errors.Is(err, sigv4.ErrIncomplete):
		return api.BadRequest("IncompleteSignatureException", text)
	case errors.Is(err, sigv4.ErrDate):
		return api.BadRequest("InvalidSignatureException", text)
	case errors.Is(err, sigv4.ErrMismatch):
		return api.BadRequest("InvalidSignatureException", err.Error())
	case errors.Is(err, iam.ErrUnknownKey):
		return api.BadRequest("UnrecognizedClientException", err.Error())
	case errors.Is(err, iam.ErrExpired):
		return api.BadRequest("ExpiredTokenException", err.Error())
	default:
		return err
	}
}
