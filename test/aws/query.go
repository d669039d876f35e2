package aws

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/models"
)

// formType is the content type of requests of the query protocol.
const formType = "application/x-www-form-urlencoded"

// identifyQuery reads a request of the query protocol: a form.
func (s *Server) identifyQuery(e *exchange) error {
	form, err := url.ParseQuery(string(e.body))
	if err != nil {
		return s.breach(e, api.BadRequest("ValidationError", "no form"), models.Violation{Problem: "the body is no form"})
	}
	e.operation = form.Get("Action")
	operation, ok := e.model.Operations[e.operation]
	if !ok || form.Get("Version") != e.model.Metadata.APIVersion || e.request.Method != http.MethodPost {
		message := "Could not find operation " + e.operation + " for version " + form.Get("Version")
		return s.breach(e, api.BadRequest("InvalidAction", message), models.Violation{Problem: message})
	}
	document := map[string]any{}
	for name, values := range form {
		if name != "Action" && name != "Version" {
			document[name] = s.formValue(e.model, operation, name, values[0])
		}
	}
	e.document = document
	e.role, _ = document["RoleArn"].(string)
	e.session, _ = document["RoleSessionName"].(string)
	return s.checkInput(e)
}

// formValue has the type that the model says.
func (s *Server) formValue(m *models.Model, operation models.Operation, name, value string) any {
	input := m.Shapes[operation.Input.Shape]
	if shape := m.Shapes[input.Members[name].Shape]; shape != nil {
		switch shape.Type {
		case "integer", "long":
			return json.Number(value)
		case "boolean":
			return value == "true"
		}
	}
	return value
}
