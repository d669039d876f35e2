package azure

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-dev/postern/providers/azure/internal/identity"
	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// Keys of the Secret that nodePublishSecretRef names, in any case.
const (
	clientIDKey     = "clientid"
	clientSecretKey = "clientsecret"
)

// useOf says whose identity a fetch is made with: the class's mode, and where it
// names none, that of the pod's service account by the pod's own token, or the
// service principal of nodePublishSecretRef.
func (p *provider) useOf(spec *params.Spec, req *sdk.Request) (identity.Use, error) {
	use := identity.Use{
		Cloud: spec.Cloud, TenantID: spec.TenantID,
		Subject: identity.Subject{Namespace: req.Pod.Namespace, ServiceAccount: req.Pod.ServiceAccount.Name},
	}
	switch spec.Mode {
	case params.ModeManagedIdentity:
		use.Kind, use.ClientID = identity.ManagedIdentity, spec.UserAssignedIdentityID
		return use, p.checkNodeIdentity(params.UseVMManagedIdentity, req)
	case params.ModePodIdentity:
		use.Kind, use.PodName = identity.PodIdentity, req.Pod.Name
		return use, p.checkNodeIdentity(params.UsePodIdentity, req)
	case params.ModeIdentityBinding:
		use.Kind, use.ClientID = identity.IdentityBinding, clientIDOf(spec, req)
		if use.ClientID == "" {
			return identity.Use{}, bindingWithoutClient(req)
		}
		return withToken(use, req, audienceBinding)
	default:
		return ownIdentity(use, spec, req)
	}
}

// ownIdentity decides as the upstream provider does: clientID and a token are
// workload identity, anything else the service principal of nodePublishSecretRef.
// Only where neither is there the service account's annotation is asked, which
// upstream does not know.
func ownIdentity(use identity.Use, spec *params.Spec, req *sdk.Request) (identity.Use, error) {
	id, secret := secretOf(req, clientIDKey), secretOf(req, clientSecretKey)
	principal := !id.IsZero() || !secret.IsZero()
	_, token := req.Tokens.For(audienceExchange)
	if principal && (spec.ClientID == "" || !token) {
		if id.IsZero() || secret.IsZero() {
			return identity.Use{}, halfPrincipal(id.IsZero())
		}
		use.Kind, use.ClientID, use.Secret = identity.ServicePrincipal, strings.TrimSpace(id.Reveal()), secret
		return use, params.CheckClientID("nodePublishSecretRef."+clientIDKey, use.ClientID)
	}
	use.Kind, use.ClientID = identity.WorkloadIdentity, clientIDOf(spec, req)
	if use.ClientID == "" {
		return identity.Use{}, noIdentity(req)
	}
	return withToken(use, req, audienceExchange)
}

// clientIDOf is the application or user-assigned identity that the class names, or
// else the service account.
func clientIDOf(spec *params.Spec, req *sdk.Request) string {
	if spec.ClientID != "" {
		return spec.ClientID
	}
	return strings.TrimSpace(req.Pod.ServiceAccount.Annotations[clientAnnotation])
}

func withToken(use identity.Use, req *sdk.Request, audience string) (identity.Use, error) {
	if err := params.CheckClientID(clientAnnotation, use.ClientID); err != nil {
		return identity.Use{}, err
	}
	token, err := req.PodToken(audience)
	if err != nil {
		return identity.Use{}, err
	}
	use.Token = token.Token
	return use, nil
}

// secretOf is the value of a key, whatever its case: the exact one first, and then
// the first in the order of names, so that it is always the same.
func secretOf(req *sdk.Request, key string) sdk.SecretString {
	if value, ok := req.Secrets[key]; ok {
		return value
	}
	var names []string
	for name := range req.Secrets {
		if strings.EqualFold(name, key) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return sdk.SecretString{}
	}
	return req.Secrets[slices.Min(names)]
}

// checkNodeIdentity refuses what belongs to the node, unless the provider's
// operator lets the namespace have it.
func (p *provider) checkNodeIdentity(parameter string, req *sdk.Request) error {
	allowed := p.options.nodeIdentity
	if slices.Contains(allowed, "*") || slices.Contains(allowed, req.Pod.Namespace) {
		return nil
	}
	return sdk.AccessDenied("", "%s uses an identity that the node has and not the pod, so that it is closed: namespace %s is not among "+
		"those that may use it. Use workload identity (clientID), or have the cluster's operator add the namespace to the Helm "+
		"value provider-azure.azure.managedIdentity.namespaces (--provider-identity-namespaces)", parameter, req.Pod.Namespace)
}

func account(req *sdk.Request) string {
	return fmt.Sprintf("service account %s/%s", req.Pod.Namespace, req.Pod.ServiceAccount.Name)
}

func noIdentity(req *sdk.Request) error {
	return sdk.LoginFailed("nothing says which identity to use for %s: set clientID in the SecretProviderClass, annotate the service "+
		"account with %s, or name a Secret with the keys %s and %s by nodePublishSecretRef. Under the upstream driver, which does "+
		"not hand over annotations, set clientID", account(req), clientAnnotation, clientIDKey, clientSecretKey)
}

func bindingWithoutClient(req *sdk.Request) error {
	return sdk.InvalidParameters(sdk.FieldViolation{
		Field: params.ClientID, Description: fmt.Sprintf("clientID is required for identity binding: set it, or annotate %s with %s",
			account(req), clientAnnotation),
	})
}

func halfPrincipal(withoutID bool) error {
	missing := clientSecretKey
	if withoutID {
		missing = clientIDKey
	}
	return sdk.LoginFailed("could not find %s in the Secret of nodePublishSecretRef: a service principal needs the keys %s and %s",
		missing, clientIDKey, clientSecretKey)
}
