package identity

import (
	"cmp"
	"fmt"
	"strings"
)

// fix says what to do about a refusal, by Entra's number; "" if that does not tell.
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
func (e *exchange) fix(number int) string {
	k := e.key
	if k.kind.ofNode() {
		return e.nodeFix()
	}
	switch number {
	case 70021, 70025, 700211, 700212, 700213:
		return e.federation()
	case 700016, 700038:
		return fmt.Sprintf("Check that %s is the client ID of an application or of a user-assigned managed identity, and that it "+
			"is in tenant %s", k.client, k.tenant)
	case 90002, 900021, 900023:
		return fmt.Sprintf("Check the tenant ID %s, and that cloud %s is the tenant's", k.tenant, k.cloud.Name)
	case 700024:
		return "kubelet sends another token with its next call. If this does not pass, check the node's clock"
	case 50027, 50013, 700027, 50166, 501661:
		return fmt.Sprintf("Check that the issuer %s serves its discovery document and its keys to the internet, and that they "+
			"are the keys with which the cluster signs", e.issuer())
	case 7000215:
		return fmt.Sprintf("Check the client secret of application %s in the Secret that nodePublishSecretRef names: it is the "+
			"secret's value, not its ID", k.client)
	case 7000222:
		return fmt.Sprintf("Make a new client secret for application %s and put it into the Secret that nodePublishSecretRef names",
			k.client)
	case 7000112, 7000229, 500011, 500014:
		return fmt.Sprintf("Check that application %s is enabled and has a service principal in tenant %s, and that cloud %s is right",
			k.client, k.tenant, k.cloud.Name)
	case 53003:
		return fmt.Sprintf("A Conditional Access policy of tenant %s keeps %s out: see the sign-in logs of service principals", k.tenant, k.client)
	case 65001, 650052:
		return fmt.Sprintf("An administrator of tenant %s has to grant application %s what it asks for", k.tenant, k.client)
	}
	if k.kind == IdentityBinding && number == 0 {
		return e.bindingFix()
	}
	return ""
}

// nodeFix says what to do if the node gives no token.
func (e *exchange) nodeFix() string {
	switch {
	case e.key.kind == PodIdentity && e.last.status == 0:
		return "The NMI answers on the network of the node only: give the provider's pods hostNetwork or --nmi-endpoint, or " +
			"better move to workload identity"
	case e.key.kind == PodIdentity:
		return "Check that an AzureIdentityBinding selects the pod. AAD Pod Identity is deprecated: move to workload identity"
	case e.key.kind != ManagedIdentity:
		return ""
	case e.last.status == 0:
		return "Check that network policies, or AKS' restriction of the instance metadata service, let the provider's pods reach it"
	case e.key.client != "":
		return fmt.Sprintf("Assign the identity with client ID %s to the virtual machine or scale set of the node", e.key.client)
	default:
		return "Enable the system-assigned identity of the node's virtual machine or scale set, or name one with userAssignedIdentityID"
	}
}

// federation says what has to be registered for the pod's token.
func (e *exchange) federation() string {
	switch e.key.kind {
	case ServicePrincipal:
		return ""
	case IdentityBinding:
		return e.bindingFix()
	case WorkloadIdentity, ManagedIdentity, PodIdentity:
	}
	return fmt.Sprintf("Add a federated identity credential to client %s in tenant %s with exactly this: issuer %s, "+
		"subject system:serviceaccount:%s:%s, audience %s", e.key.client, e.key.tenant, e.issuer(),
		e.key.subject.Namespace, e.key.subject.ServiceAccount, e.claim(strings.Join(claimsOf(e.proof).Audience, ",")))
}

func (e *exchange) issuer() string { return e.claim(claimsOf(e.proof).Issuer) }

// claim is one of the pod's token, for messages. A token that is no JWT has none.
func (e *exchange) claim(value string) string {
	return cmp.Or(said(value, e.proof, maxIDs), "(not known)")
}

// bindingFix says what the token proxy wants: it has federated identity credentials
// of its own.
func (e *exchange) bindingFix() string {
	return fmt.Sprintf("Check that the cluster has an identity binding of client %[1]s, and that a ClusterRole lets service account %[2]s "+
		"use it: verb use-managed-identity, API group cid.wi.aks.azure.com, resource %[1]s", e.key.client, e.key.subject)
}
