package control

import (
	"encoding/json"
	"time"
)

// Services, as calls and faults name them.
const (
	SecretManager    = "secretmanager"
	ParameterManager = "parametermanager"
	STS              = "sts"
	SecureToken      = "securetoken"
	IAMCredentials   = "iamcredentials"
	OAuth2           = "oauth2"
	MetadataServer   = "metadata"
	Proxy            = "proxy"
)

// Operations, as calls and faults name them. Those of the metadata server are its
// paths.
const (
	Access              = "access"
	Render              = "render"
	Get                 = "get"
	GetVersion          = "get-version"
	List                = "list"
	Token               = "token"
	GenerateAccessToken = "generate-access-token"
	Connect             = "connect"
)

// NameDoesNotResolve is the code of a CONNECT to a host that is not there.
const NameDoesNotResolve = "NXDOMAIN"

// Addresses are where the double listens.
type Addresses struct {
	// Proxy is for HTTPS_PROXY.
	Proxy string `json:"proxy"`
	// Control is this API's.
	Control string `json:"control"`
	// Metadata is for GCE_METADATA_HOST: it has no scheme.
	Metadata string `json:"metadata,omitempty"`
	// CAFile is for SSL_CERT_FILE.
	CAFile string `json:"caFile,omitempty"`
}

// Applied is what POST /apply made.
type Applied struct {
	ServiceAccounts []AppliedServiceAccount `json:"serviceAccounts,omitempty"`
	Secrets         []AppliedSecret         `json:"secrets,omitempty"`
	Parameters      []AppliedParameter      `json:"parameters,omitempty"`
}

// AppliedServiceAccount is a service account after POST /apply.
type AppliedServiceAccount struct {
	Email string `json:"email"`
	// Keys are those that were asked for, as files of credentials: key.json.
	Keys []json.RawMessage `json:"keys,omitempty"`
}

// AppliedSecret is a version of a secret after POST /apply.
type AppliedSecret struct {
	// Name is the version's, or the secret's if it has none, with the project's
	// number.
	Name    string `json:"name"`
	Version int64  `json:"version"`
}

// AppliedParameter is a version of a parameter after POST /apply.
type AppliedParameter struct {
	Name string `json:"name"`
	// PolicyMember is who reads the secrets that it refers to.
	PolicyMember string `json:"policyMember"`
}

// TokenRequest asks for an access token without a login.
type TokenRequest struct {
	// Principal is an email, or a principal:// identifier.
	Principal string   `json:"principal"`
	Scopes    []string `json:"scopes,omitempty"`
	// Lifetime is an hour if it is not said.
	Lifetime Duration `json:"lifetime,omitzero"`
}

// AccessToken is one of Google's.
type AccessToken struct {
	AccessToken string    `json:"accessToken"`
	Expires     time.Time `json:"expires"`
}

// Connections says which connections through the proxy are meant.
type Connections struct {
	// Host is any if empty.
	Host string `json:"host,omitempty"`
}

// Connected says how many connections there were.
type Connected struct {
	Count int `json:"count"`
}

// Call is how often something was called.
type Call struct {
	Service   string `json:"service"`
	Operation string `json:"operation"`
	Host      string `json:"host"`
	Principal string `json:"principal"`
	// Code is the error's, "" for success.
	Code  string `json:"code"`
	Count int    `json:"count"`
}

// Request is one that was answered.
type Request struct {
	Service   string `json:"service"`
	Operation string `json:"operation"`
	Host      string `json:"host"`
	// Resource is what was asked for, as the client named it; at the token services
	// the audience or the service account.
	Resource string `json:"resource"`
	// Version is the full name of the version that was answered.
	Version   string `json:"version"`
	Principal string `json:"principal"`
	Code      string `json:"code"`
	Reason    string `json:"reason"`
	// Status is HTTP's; 200 of gRPC.
	Status int `json:"status"`
	// Connection numbers the connections through the proxy.
	Connection int `json:"connection"`
}

// Violation is a breach of Google's protocols.
type Violation struct {
	Service   string `json:"service"`
	Operation string `json:"operation"`
	Path      string `json:"path"`
	Problem   string `json:"problem"`
}
