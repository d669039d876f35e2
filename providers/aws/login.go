package aws

import (
	"github.com/postern-dev/postern/providers/aws/internal/identity"
	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// useOf says whose credentials a fetch is made with: those of the role of the
// pod's service account, by the pod's own token, and nobody else's.
func useOf(spec *params.Spec, req *sdk.Request) (identity.Use, error) {
	use := identity.Use{
		Subject:     identity.Subject{Namespace: req.Pod.Namespace, ServiceAccount: req.Pod.ServiceAccount.Name},
		PodIdentity: spec.PodIdentity,
		AddressType: spec.AddressType,
	}
	audience := audiencePodIdentity
	if !spec.PodIdentity {
		audience = audienceSTS
		use.RoleARN = spec.RoleARN
		if use.RoleARN == "" {
			use.RoleARN = req.Pod.ServiceAccount.Annotations[roleAnnotation]
		}
		if use.RoleARN == "" {
			return identity.Use{}, roleMissing(req)
		}
	}
	token, err := req.PodToken(audience)
	if err != nil {
		return identity.Use{}, err
	}
	use.Token, use.Expiry = token.Token, token.Expiry
	return use, nil
}

func roleMissing(req *sdk.Request) error {
	return sdk.LoginFailed("An IAM role must be associated with service account %s (namespace: %s): annotate it with "+
		"%s, or set usePodIdentity: \"true\" in the SecretProviderClass and associate the role with it by EKS Pod Identity. "+
		"The provider has no role of its own to use instead. Under the upstream driver, which does not hand over annotations, "+
		"set the parameter roleArn", req.Pod.ServiceAccount.Name, req.Pod.Namespace, roleAnnotation)
}
