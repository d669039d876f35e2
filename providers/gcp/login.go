package gcp

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-dev/postern/providers/gcp/internal/identity"
	"github.com/postern-dev/postern/providers/gcp/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// keyFile is the key of the Secret that nodePublishSecretRef names.
const keyFile = "key.json"

// useOf says whose identity a fetch is made with, in the upstream provider's order:
// the provider's own, the key of nodePublishSecretRef, or that of the pod's service
// account by the pod's own token.
func (p *provider) useOf(ctx context.Context, spec *params.Spec, req *sdk.Request) (identity.Use, error) {
	use := identity.Use{Subject: identity.Subject{Namespace: req.Pod.Namespace, ServiceAccount: req.Pod.ServiceAccount.Name}}
	key := req.Secrets[keyFile]
	switch {
	case p.options.allowSecret && !key.IsZero() && spec.Auth != params.AuthDefault:
		return use, sdk.InvalidParameters(sdk.FieldViolation{
			Field: params.ParameterAuth, Description: "attempting to set both nodePublishSecretRef and auth: leave one of them out",
		})
	case spec.Auth == params.ProviderADC:
		use.Kind = identity.Provider
		return use, p.checkOwn(req)
	case p.options.allowSecret && !key.IsZero():
		use.Kind, use.Key = identity.ServiceAccountKey, key
		return use, nil
	default:
		return p.workloadIdentity(ctx, use, req)
	}
}

// workloadIdentity is the pod's own.
func (p *provider) workloadIdentity(ctx context.Context, use identity.Use, req *sdk.Request) (identity.Use, error) {
	if len(p.federation.known) == 0 {
		return use, noAudience()
	}
	token, err := p.podToken(req)
	if err != nil {
		return use, err
	}
	use.Kind, use.Token = identity.WorkloadIdentity, token.Token
	use.ServiceAccount = strings.TrimSpace(req.Pod.ServiceAccount.Annotations[accountAnnotation])
	if use.Delegates, err = delegates(req); err != nil {
		return use, err
	}
	use.Federation, err = p.federation.find(ctx)
	return use, err
}

// podToken is the pod's for one of the audiences, the first that there is.
func (p *provider) podToken(req *sdk.Request) (sdk.Token, error) {
	for _, audience := range p.federation.known {
		if _, ok := req.Tokens.For(audience); ok {
			return req.PodToken(audience)
		}
	}
	return sdk.Token{}, sdk.TokenMissing(p.federation.known[0])
}

// delegates are service accounts on the way to that of the annotation, as JSON.
func delegates(req *sdk.Request) ([]string, error) {
	text := req.Pod.ServiceAccount.Annotations[delegatesAnnotation]
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var all []string
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, sdk.LoginFailed("annotation %s of %s is no JSON array of service accounts, such as [\"a@project.iam.gserviceaccount.com\"]",
			delegatesAnnotation, account(req))
	}
	return all, nil
}

// checkOwn refuses what belongs to the provider, unless its operator lets the
// namespace have it.
func (p *provider) checkOwn(req *sdk.Request) error {
	allowed := p.options.own
	if slices.Contains(allowed, "*") || slices.Contains(allowed, req.Pod.Namespace) {
		return nil
	}
	return sdk.AccessDenied("", "auth: provider-adc uses the provider's identity, which all pods of the cluster would share, so that it is "+
		"closed: namespace %s is not among those that may use it. Leave auth out, which is the pod's own identity, or have the cluster's "+
		"operator add the namespace to the Helm value provider-gcp.gcp.providerIdentity.namespaces (--provider-identity-namespaces)",
		req.Pod.Namespace)
}

func account(req *sdk.Request) string {
	return fmt.Sprintf("service account %s/%s", req.Pod.Namespace, req.Pod.ServiceAccount.Name)
}

// noAudience says that nobody has told the provider for what pods' tokens are to be.
func noAudience() error {
	return &sdk.Error{
		Reason: sdk.ReasonTokenMissing,
		Message: "no workload identity pool is known, so that kubelet is asked for no token: set the Helm value provider-gcp.gcp.project to " +
			"the project of the GKE cluster, or on other clusters provider-gcp.gcp.workloadIdentity.audience (--project, --workload-identity-audience)",
	}
}
