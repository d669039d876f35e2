package control

import "time"

// Services, as calls and faults name them.
const (
	Entra        = "entra"
	Secrets      = "secrets"
	Keys         = "keys"
	Certificates = "certificates"
	IMDS         = "imds"
	NMI          = "nmi"
	TokenProxied = "tokenproxy"
	Proxy        = "proxy"
)

// Operations, as calls and faults name them.
const (
	Token                = "token"
	OpenIDConfiguration  = "openid-configuration"
	InstanceDiscovery    = "instance-discovery"
	Get                  = "get"
	List                 = "list"
	ListVersions         = "list-versions"
	Connect              = "connect"
	NameDoesNotResolve   = "NXDOMAIN"
	ChallengeNotAnswered = "Unauthorized"
)

// Addresses are where the double listens.
type Addresses struct {
	// Proxy is for HTTPS_PROXY.
	Proxy string `json:"proxy"`
	// Control is this API's.
	Control string `json:"control"`
	// IMDS stands in for http://169.254.169.254.
	IMDS string `json:"imds,omitempty"`
	// NMI is for --nmi-endpoint, with its path.
	NMI string `json:"nmi,omitempty"`
	// TokenProxy is AKS' token proxy.
	TokenProxy string `json:"tokenProxy,omitempty"`
	// CAFile is for SSL_CERT_FILE.
	CAFile string `json:"caFile,omitempty"`
}

// Applied is what POST /apply made.
type Applied struct {
	Secrets      []AppliedObject      `json:"secrets,omitempty"`
	Keys         []AppliedKey         `json:"keys,omitempty"`
	Certificates []AppliedCertificate `json:"certificates,omitempty"`
}

// AppliedObject is a version of an object after POST /apply.
type AppliedObject struct {
	Vault   string `json:"vault"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// ID is its URL.
	ID string `json:"id"`
}

// AppliedKey is a key after POST /apply.
type AppliedKey struct {
	AppliedObject

	Key JSONWebKey `json:"key"`
}

// JSONWebKey is the public part of a key, in unpadded base64 for URLs.
type JSONWebKey struct {
	Kty string `json:"kty"`
	Crv string `json:"crv,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
}

// AppliedCertificate is a certificate after POST /apply. It holds a secret.
type AppliedCertificate struct {
	AppliedObject

	// CER is the leaf's DER.
	CER []byte `json:"cer"`
	// ChainPEM is the chain, leaf first.
	ChainPEM string `json:"chainPem"`
	// SecretValue is its secret's.
	SecretValue string `json:"secretValue"`
}

// TokenRequest asks for an access token without a login.
type TokenRequest struct {
	Tenant   string `json:"tenant"`
	ClientID string `json:"clientId"`
	// Resource is https://vault.azure.net if empty.
	Resource string   `json:"resource,omitempty"`
	Lifetime Duration `json:"lifetime,omitzero"`
}

// AccessToken is one of Entra's.
type AccessToken struct {
	AccessToken string    `json:"accessToken"`
	Expires     time.Time `json:"expires"`
}

// Call is how often something was called.
type Call struct {
	Service   string `json:"service"`
	Operation string `json:"operation"`
	Vault     string `json:"vault"`
	ClientID  string `json:"clientId"`
	// Code is the error's, "" for success.
	Code  string `json:"code"`
	Count int    `json:"count"`
	// Items is how many of them asked for an object by its name.
	Items int `json:"items"`
}

// Request is one that was answered.
type Request struct {
	Service   string `json:"service"`
	Operation string `json:"operation"`
	Host      string `json:"host"`
	Vault     string `json:"vault"`
	Object    string `json:"object"`
	Version   string `json:"version"`
	Tenant    string `json:"tenant"`
	ClientID  string `json:"clientId"`
	Code      string `json:"code"`
	InnerCode string `json:"innerCode"`
	Status    int    `json:"status"`
}

// Violation is a breach of Azure's protocols.
type Violation struct {
	Service   string `json:"service"`
	Operation string `json:"operation"`
	// Side is "request" or "answer".
	Side    string `json:"side"`
	Path    string `json:"path"`
	Problem string `json:"problem"`
}
