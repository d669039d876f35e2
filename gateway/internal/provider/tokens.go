package provider

import (
	"fmt"
	"slices"

	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// DeclaredTokens picks from a request the tokens of the declared audiences, in
// the order of their declaration and each once. The error is an [*rpc.Error]: a
// token that has to be there is missing, or nothing says which.
func DeclaredTokens(audiences []*providerv1.Audience, req *gatewayv1.FetchRequest) ([]*secretv1.Token, error) {
	var tokens []*secretv1.Token
	for _, declared := range audiences {
		audience := audienceOf(declared, req.GetParameters())
		if audience == "" {
			if declared.GetOptional() {
				continue
			}
			return nil, parameterMissing(declared.GetParameter())
		}
		i := slices.IndexFunc(req.GetTokens(), func(t *secretv1.Token) bool {
			return t.GetAudience() == audience && t.GetToken() != ""
		})
		switch {
		case i < 0 && declared.GetOptional():
		case i < 0:
			return nil, tokenMissing(audience)
		case !slices.Contains(tokens, req.GetTokens()[i]):
			tokens = append(tokens, req.GetTokens()[i])
		}
	}
	return tokens, nil
}

// audienceOf resolves a declaration. A parameter that is empty counts as not
// set, so that a template which renders to nothing gets the default.
func audienceOf(declared *providerv1.Audience, parameters map[string]string) string {
	switch source := declared.GetSource().(type) {
	case *providerv1.Audience_Value:
		return source.Value
	case *providerv1.Audience_Parameter:
		if audience := parameters[source.Parameter]; audience != "" {
			return audience
		}
	}
	return declared.GetParameterDefault()
}

func parameterMissing(parameter string) error {
	return &rpc.Error{
		Reason:  rpc.ReasonInvalidParameters,
		Message: fmt.Sprintf("parameter %q is not set: it has to name the audience of the token that the provider logs in with", parameter),
		FieldViolations: []rpc.FieldViolation{{
			Field:       "parameters." + parameter,
			Description: "is required: it names the audience of the token",
		}},
	}
}

func tokenMissing(audience string) error {
	return &rpc.Error{
		Reason: rpc.ReasonTokenMissing,
		Message: fmt.Sprintf("kubelet sent no token for audience %q: add it to spec.tokenRequests of the CSIDriver "+
			"secrets-store.csi.k8s.io (Helm value driver.tokenRequests); pods get it with their next republish", audience),
		Metadata: map[string]string{"audience": audience},
	}
}
