// Package identity keeps the access tokens with which vaults are read: one for
// each identity, shared by the pods that have it, until shortly before it expires.
//
// A pod's identity is had for the pod's own token (workload identity, identity
// binding) or for a client secret of its class (service principal). Managed
// identity and AAD Pod Identity are the node's: who may use them is the caller's
// to decide. What the process itself may be allowed is never used: no variable or
// file is asked for credentials.
package identity

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/postern-dev/postern/providers/azure/internal/logkey"
	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// Kind is how an identity is had.
type Kind string

// The kinds.
const (
	// WorkloadIdentity exchanges the pod's token at Entra.
	WorkloadIdentity Kind = "workload identity"
	// ServicePrincipal logs in at Entra with a client secret.
	ServicePrincipal Kind = "service principal"
	// ManagedIdentity is an identity of the node's virtual machine.
	ManagedIdentity Kind = "managed identity"
	// PodIdentity asks the NMI of AAD Pod Identity, which is deprecated.
	PodIdentity Kind = "AAD Pod Identity"
	// IdentityBinding exchanges the pod's token at the token proxy of AKS.
	IdentityBinding Kind = "identity binding"
)

// Subject is a service account.
type Subject struct {
	Namespace, ServiceAccount string
}

func (s Subject) String() string { return s.Namespace + "/" + s.ServiceAccount }

// Use is one pod's wish for an access token.
type Use struct {
	Kind  Kind
	Cloud params.Cloud
	// TenantID is where the client is, "adfs" for ADFS. An identity of the node has
	// the tenant of its virtual machine.
	TenantID string
	// ClientID is the application's or the user-assigned identity's. With
	// ManagedIdentity, none is the identity that the system has assigned.
	ClientID string
	Subject  Subject
	// PodName is the pod's, by which PodIdentity tells pods.
	PodName string
	// Token is the pod's, of WorkloadIdentity and IdentityBinding, for the audience
	// of the kind. The caller has checked that it is the subject's.
	Token sdk.SecretString
	// Secret is the client secret of a ServicePrincipal.
	Secret sdk.SecretString
}

// check says what is missing: without it there is nobody to log in as. Nobody gets
// what others have logged in for, either.
func (u Use) check() error {
	ofPod := u.Kind == WorkloadIdentity || u.Kind == IdentityBinding
	client := ofPod || u.Kind == ServicePrincipal
	var problem string
	switch {
	case operationOf(u.Kind) == "":
		problem = fmt.Sprintf("there is no kind of identity %q", u.Kind)
	case u.Subject.Namespace == "" || u.Subject.ServiceAccount == "":
		problem = "no service account is given"
	case u.Cloud.AuthorityHost == "" || u.Cloud.VaultScope == "":
		problem = "no cloud is given"
	case client && u.TenantID == "":
		problem = "no tenant is given"
	case client && u.ClientID == "":
		problem = "no client ID is given"
	case ofPod && u.Token.IsZero():
		problem = "no token of the pod is given"
	case u.Kind == ServicePrincipal && u.Secret.IsZero():
		problem = "no client secret is given"
	case u.Kind == PodIdentity && u.PodName == "":
		problem = "no pod is given"
	default:
		return nil
	}
	return &Error{Operation: operationOf(u.Kind), Kind: Invalid, Message: problem}
}

// proof is what the login is made with: it must be in no message.
func (u Use) proof() sdk.SecretString {
	switch u.Kind {
	case WorkloadIdentity, IdentityBinding:
		return u.Token
	case ServicePrincipal:
		return u.Secret
	case ManagedIdentity, PodIdentity:
	}
	return sdk.SecretString{}
}

// key is all that decides on what a token may do. Nothing is shared between two
// keys.
type key struct {
	kind           Kind
	cloud          params.Cloud
	tenant, client string
	subject        Subject
	pod            string
	// secret is the digest of a client secret: who has another one has to log in.
	secret [sha256.Size]byte
}

func keyOf(u Use) key {
	k := key{kind: u.Kind, cloud: u.Cloud, subject: u.Subject}
	switch u.Kind {
	case ServicePrincipal:
		k.tenant, k.client, k.secret = u.TenantID, u.ClientID, sha256.Sum256([]byte(u.Secret.Reveal()))
	case WorkloadIdentity, IdentityBinding:
		k.tenant, k.client = u.TenantID, u.ClientID
	case ManagedIdentity:
		k.client = u.ClientID
	case PodIdentity:
		k.pod = u.PodName
	}
	return k
}

func (k key) String() string {
	switch k.kind {
	case ServicePrincipal:
		return fmt.Sprintf("service principal %s of tenant %s", k.client, k.tenant)
	case ManagedIdentity:
		if k.client == "" {
			return "the node's system-assigned managed identity"
		}
		return "the node's user-assigned managed identity " + k.client
	case PodIdentity:
		return fmt.Sprintf("pod %s/%s by AAD Pod Identity", k.subject.Namespace, k.pod)
	case WorkloadIdentity, IdentityBinding:
	}
	return fmt.Sprintf("client %s of tenant %s by %s of service account %s", k.client, k.tenant, k.kind, k.subject)
}

// attrs are for log records.
func (k key) attrs() []slog.Attr {
	return []slog.Attr{
		slog.String(logkey.Identity, string(k.kind)), slog.String(logkey.Tenant, k.tenant),
		slog.String(logkey.Client, k.client), slog.String(logkey.Namespace, k.subject.Namespace),
		slog.String(logkey.ServiceAccount, k.subject.ServiceAccount),
	}
}

// DefaultNMIEndpoint is where AAD Pod Identity answers on the network of the node.
const DefaultNMIEndpoint = "http://localhost:2579/host/token/"

// Config is what a Manager needs.
type Config struct {
	// ClientOptions are how Entra is reached. Cloud, Retry and Logging are the
	// Manager's own; redirects are not followed.
	ClientOptions azcore.ClientOptions
	// LocalHTTPClient makes requests to the node: through no proxy. Nil: one of its
	// own.
	LocalHTTPClient *http.Client
	// IMDSEndpoint stands in for the instance metadata service, which has the same
	// address everywhere; "": that one. It is for tests and for simulators.
	IMDSEndpoint string
	// NMIEndpoint is where AAD Pod Identity answers; "": DefaultNMIEndpoint.
	NMIEndpoint string
	// TokenProxy is that of AKS, for identity binding.
	TokenProxy TokenProxy
	// MaxSessions bounds the tokens kept, the one not used for longest goes; zero:
	// the default of package credentials.
	MaxSessions int
	Logger      *slog.Logger
}
