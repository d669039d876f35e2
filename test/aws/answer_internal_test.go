package aws

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
)

// Errors of our own making are checked as the answers are: with the operation's
// list and the shape of each.
func TestErrorsThatAreNotAWSAreViolations(t *testing.T) {
	t.Parallel()
	for code, want := range map[string][]control.Violation{
		"ResourceNotFoundException": nil,
		"ThrottlingException":       nil,
		"ParameterNotFound": {{
			Service: "secretsmanager", Operation: "GetSecretValue", Side: "answer",
			Problem: "operation GetSecretValue has no error ParameterNotFound",
		}},
	} {
		s, err := assemble(Config{})
		if err != nil {
			t.Fatal(err)
		}
		e := &exchange{service: control.SecretsManager, operation: "GetSecretValue", model: s.models[control.SecretsManager]}
		s.checkAnswer(e, nil, &api.Error{Status: http.StatusBadRequest, Code: code, Message: "m"})
		if diff := cmp.Diff(want, s.record.Violations()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", code, diff)
		}
	}
}
