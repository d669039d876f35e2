// Package control is the control API of the Azure double: what can be put into it,
// what it tells, and a client.
package control

import (
	"fmt"
	"time"

	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/token"
)

// Document is what POST /apply takes. Everything in it is put in this order.
type Document struct {
	Issuers       []token.Issuer `json:"issuers,omitempty"`
	Tenants       []Tenant       `json:"tenants,omitempty"`
	Applications  []Application  `json:"applications,omitempty"`
	Identities    []Identity     `json:"identities,omitempty"`
	PodIdentities []PodIdentity  `json:"podIdentities,omitempty"`
	TokenProxy    *TokenProxy    `json:"tokenProxy,omitempty"`
	Vaults        []Vault        `json:"vaults,omitempty"`
	Secrets       []Secret       `json:"secrets,omitempty"`
	Keys          []Key          `json:"keys,omitempty"`
	Certificates  []Certificate  `json:"certificates,omitempty"`
	Faults        []Fault        `json:"faults,omitempty"`
	// PageSize is the most entries of one page; 0 is Azure's own, nil as it was.
	PageSize *int `json:"pageSize,omitempty"`
	// TokenLifetime is how long access tokens last; nil as it was.
	TokenLifetime *Duration `json:"tokenLifetime,omitempty"`
}

// ReadDocument reads one strictly: a member that it does not know is an error.
func ReadDocument(contents []byte) (Document, error) {
	var d Document
	if err := double.Decode(contents, &d); err != nil {
		return Document{}, fmt.Errorf("read the document: %w", err)
	}
	return d, nil
}

// Duration is a time.Duration that is written as Go writes it.
type Duration = double.Duration

// Issuer publishes keys with which the tokens of service accounts are verified.
type Issuer = token.Issuer

// Tenant is a directory at an authority.
type Tenant struct {
	ID string `json:"id"`
	// Authority is the host name of Entra, or of an ADFS; login.microsoftonline.com
	// if empty.
	Authority string `json:"authority,omitempty"`
	// Domains are its other names.
	Domains []string `json:"domains,omitempty"`
}

// Application is one in a tenant, or a user-assigned identity that is federated.
type Application struct {
	Tenant   string `json:"tenant"`
	ClientID string `json:"clientId"`
	// ObjectID is its service principal's; made up if empty.
	ObjectID             string                `json:"objectId,omitempty"`
	FederatedCredentials []FederatedCredential `json:"federatedCredentials,omitempty"`
	Secrets              []ClientSecret        `json:"secrets,omitempty"`
	// Bindings are the subjects that may use it through AKS' token proxy.
	Bindings []string `json:"bindings,omitempty"`
	// NoServicePrincipal says that the tenant has no service principal of it.
	NoServicePrincipal bool `json:"noServicePrincipal,omitempty"`
}

// FederatedCredential says whose assertions an application takes.
type FederatedCredential struct {
	Name    string `json:"name,omitempty"`
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
	// Audience is api://AzureADTokenExchange if empty.
	Audience string `json:"audience,omitempty"`
}

// ClientSecret is an application's.
type ClientSecret struct {
	Value   string    `json:"value"`
	Expires time.Time `json:"expires,omitzero"`
}

// Identity is a managed identity of the node.
type Identity struct {
	Tenant     string `json:"tenant"`
	ClientID   string `json:"clientId"`
	ObjectID   string `json:"objectId,omitempty"`
	ResourceID string `json:"resourceId,omitempty"`
	// System is the one that a request gets that names none.
	System bool `json:"system,omitempty"`
}

// PodIdentity is what NMI gives to a pod.
type PodIdentity struct {
	Namespace string `json:"namespace"`
	// Pod is any of the namespace if empty.
	Pod      string `json:"pod,omitempty"`
	Tenant   string `json:"tenant"`
	ClientID string `json:"clientId"`
}

// TokenProxy is the one of AKS' identity bindings.
type TokenProxy struct {
	// SNIName is the only server name that it takes.
	SNIName string `json:"sniName"`
	// Authority is the host in whose name it answers.
	Authority string `json:"authority,omitempty"`
	// Audience of the tokens that it takes.
	Audience string `json:"audience,omitempty"`
}

// Vault is a key vault.
type Vault struct {
	Name   string `json:"name"`
	Suffix string `json:"suffix,omitempty"`
	Tenant string `json:"tenant"`
	// Authorization is RBAC or Policy.
	Authorization string  `json:"authorization,omitempty"`
	Grants        []Grant `json:"grants,omitempty"`
	// ChallengeTenant and ChallengeResource are what its challenge says instead of
	// what is true.
	ChallengeTenant   string `json:"challengeTenant,omitempty"`
	ChallengeResource string `json:"challengeResource,omitempty"`
	// Network is Firewall, Private or "".
	Network  string `json:"network,omitempty"`
	Location string `json:"location,omitempty"`
}

// What Vault.Authorization and Vault.Network may be.
const (
	RBAC     = "rbac"
	Policy   = "policy"
	Firewall = "firewall"
	Private  = "private"
)

// Grant says what a client may do in a vault.
type Grant struct {
	// ClientID is anybody's if empty.
	ClientID string `json:"clientId,omitempty"`
	// Operations are those of Fault, as "secrets/get", or "*".
	Operations []string `json:"operations"`
	// Objects are the names that it is for; all if empty.
	Objects []string `json:"objects,omitempty"`
}

// Version says which version of an object, and what its attributes are.
type Version struct {
	Vault string `json:"vault"`
	Name  string `json:"name"`
	// Version is 32 hex digits; made up for a new one, the newest else.
	Version   string            `json:"version,omitempty"`
	Tags      map[string]string `json:"tags,omitempty"`
	Enabled   *bool             `json:"enabled,omitempty"`
	NotBefore time.Time         `json:"notBefore,omitzero"`
	Expires   time.Time         `json:"expires,omitzero"`
	Created   time.Time         `json:"created,omitzero"`
	// Deleted is of the object: it can be recovered.
	Deleted *bool `json:"deleted,omitempty"`
}

// Secret is a version of a secret, or what changes of it.
type Secret struct {
	Version

	// Value is the contents of a new version.
	Value       *string `json:"value,omitempty"`
	ContentType *string `json:"contentType,omitempty"`
	// Managed and KID say that a certificate manages it.
	Managed bool   `json:"managed,omitempty"`
	KID     string `json:"kid,omitempty"`
}

// Key is a version of a key, or what changes of it.
type Key struct {
	Version

	// Kty is RSA, RSA-HSM, EC, EC-HSM, oct or oct-HSM.
	Kty   string `json:"kty,omitempty"`
	Size  int    `json:"size,omitempty"`
	Curve string `json:"curve,omitempty"`
	// PEM is a key to take the public part of.
	PEM string `json:"pem,omitempty"`
}

// Certificate is a version of a certificate, or what changes of it.
type Certificate struct {
	Version

	// PEM is a private key and a chain; else one is made up.
	PEM      string   `json:"pem,omitempty"`
	Subject  string   `json:"subject,omitempty"`
	DNSNames []string `json:"dnsNames,omitempty"`
	KeyType  string   `json:"keyType,omitempty"`
	// ContentType of its secret is PKCS12 or PEM.
	ContentType string `json:"contentType,omitempty"`
	// PFX are the bytes of the secret; else they are made with Encryption.
	PFX        []byte `json:"pfx,omitempty"`
	Encryption string `json:"encryption,omitempty"`
	// SecretValue and SecretContentType replace what its secret has.
	SecretValue       *string `json:"secretValue,omitempty"`
	SecretContentType *string `json:"secretContentType,omitempty"`
}

// What Certificate.ContentType and Certificate.Encryption may be.
const (
	PKCS12 = "application/x-pkcs12"
	PEM    = "application/x-pem-file"
	Legacy = "legacy"
	Modern = "modern"
)

// Fault is something that goes wrong. It is for the requests that it matches;
// an empty field matches any.
type Fault struct {
	Service   string `json:"service,omitempty"`
	Operation string `json:"operation,omitempty"`
	Vault     string `json:"vault,omitempty"`
	Object    string `json:"object,omitempty"`
	ClientID  string `json:"clientId,omitempty"`
	// Bearer is for requests with a bearer only, so not for the challenge.
	Bearer bool `json:"bearer,omitempty"`
	// After is how many requests pass first.
	After int `json:"after,omitempty"`
	// Count is for how many requests; 0 until the faults are deleted.
	Count int `json:"count,omitempty"`
	// Kind is one of the constants below.
	Kind      string `json:"kind"`
	Status    int    `json:"status,omitempty"`
	Code      string `json:"code,omitempty"`
	InnerCode string `json:"innerCode,omitempty"`
	Message   string `json:"message,omitempty"`
	// Latency is waited first.
	Latency Duration `json:"latency,omitzero"`
	// RetryAfter is sent in seconds.
	RetryAfter int `json:"retryAfter,omitempty"`
}

// Kinds of faults.
const (
	Throttle    = double.Throttle
	ErrorAnswer = double.ErrorAnswer
	Unavailable = double.Unavailable
	Hang        = double.Hang
	Close       = double.Close
	Garbage     = double.Garbage
	Latency     = double.Latency
	Unresolved  = "unresolved"
)
