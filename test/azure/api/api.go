// Package api is what the services of the double have in common: calls, and what
// they are answered.
package api

import (
	"cmp"
	"encoding/json"
	"net/http"

	"github.com/postern-dev/postern/test/azure/control"
)

// Call is a request on its way to an answer.
type Call struct {
	// Request is what is recorded of it.
	control.Request

	HTTP *http.Request
	Body []byte
	// Violations are the rules that it breaks, or that its answer does.
	Violations []control.Violation
}

// Violate notes that the request breaks a rule.
func (c *Call) Violate(problem string) { c.violation("request", problem) }

// ViolateAnswer notes that the answer does.
func (c *Call) ViolateAnswer(problem string) { c.violation("answer", problem) }

func (c *Call) violation(side, problem string) {
	c.Violations = append(c.Violations, control.Violation{
		Service: c.Service, Operation: c.Operation, Side: side, Path: c.HTTP.Host + c.HTTP.URL.Path, Problem: problem,
	})
}

// Answer is what a call gets. Code is that of an error.
type Answer struct {
	Status          int
	Code, InnerCode string
	Header          http.Header
	ContentType     string
	Body            []byte
}

// jsonType is the content type of all of Azure's JSON.
const jsonType = "application/json; charset=utf-8"

// JSON answers a document, which can be encoded.
func JSON(status int, document any) Answer {
	body, err := json.Marshal(document)
	if err != nil {
		return Answer{Status: http.StatusInternalServerError, Code: "InternalError", ContentType: "text/plain", Body: []byte(err.Error())}
	}
	return Answer{Status: status, ContentType: jsonType, Body: body}
}

// Refusal is an error that a service answers.
type Refusal struct {
	Status          int
	Code, InnerCode string
	Message         string
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Message }

// Complete says of a fault's answer what the fault does not.
func Complete(f control.Fault, status int, code, message string) control.Fault {
	f.Status, f.Code, f.Message = cmp.Or(f.Status, status), cmp.Or(f.Code, code), cmp.Or(f.Message, message)
	return f
}
