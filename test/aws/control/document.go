// Package control is the control API of the AWS double: what can be put into it,
// what it tells, and a client.
package control

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/postern-dev/postern/test/double"
)

// Document is what POST /apply takes. Everything in it is put in this order.
type Document struct {
	Issuers      []Issuer      `json:"issuers,omitempty"`
	Roles        []Role        `json:"roles,omitempty"`
	Users        []User        `json:"users,omitempty"`
	Associations []Association `json:"associations,omitempty"`
	Secrets      []Secret      `json:"secrets,omitempty"`
	Parameters   []Parameter   `json:"parameters,omitempty"`
	Faults       []Fault       `json:"faults,omitempty"`
	// PageSize is the most entries of one page; 0 is AWS' own, nil as it was.
	PageSize *int `json:"pageSize,omitempty"`
}

// ReadDocument reads one strictly: a member that it does not know is an error.
func ReadDocument(contents []byte) (Document, error) {
	var d Document
	if err := double.Decode(contents, &d); err != nil {
		return Document{}, fmt.Errorf("read the document: %w", err)
	}
	return d, nil
}

// Issuer is an OIDC provider in IAM.
type Issuer struct {
	// URL is the issuer's, as tokens have it in iss.
	URL string `json:"url"`
	// JWKS are its keys; else they are read from JWKSURL or, by discovery, from URL.
	JWKS    json.RawMessage `json:"jwks,omitempty"`
	JWKSURL string          `json:"jwksUrl,omitempty"`
	// CAPEM are the certificates to trust it by; "" is the system's.
	CAPEM string `json:"caPem,omitempty"`
	// BearerToken is sent where the keys are read.
	BearerToken string `json:"bearerToken,omitempty"`
	// Audiences are the provider's client ids: sts.amazonaws.com if empty.
	Audiences []string `json:"audiences,omitempty"`
	// PodIdentity says that the Pod Identity agent takes its tokens.
	PodIdentity bool `json:"podIdentity,omitempty"`
}

// Role is an IAM role.
type Role struct {
	ARN string `json:"arn"`
	// Policy is its identity-based policy.
	Policy json.RawMessage `json:"policy,omitempty"`
	// Trust is its trust policy.
	Trust json.RawMessage `json:"trust,omitempty"`
	// ServiceAccounts, as namespace/name, is short for the trust policy that the
	// guides of IRSA and Pod Identity say.
	ServiceAccounts []string `json:"serviceAccounts,omitempty"`
	// MaxSessionDuration in seconds; 0 is 3600.
	MaxSessionDuration int `json:"maxSessionDuration,omitempty"`
}

// User is an IAM user with permanent keys.
type User struct {
	Name            string          `json:"name"`
	AccessKeyID     string          `json:"accessKeyId"`
	SecretAccessKey string          `json:"secretAccessKey"`
	Policy          json.RawMessage `json:"policy,omitempty"`
}

// Association is one of EKS Pod Identity.
type Association struct {
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	Role           string `json:"role"`
}

// Secret is a version of a secret, or what changes of the secret.
type Secret struct {
	Account string `json:"account,omitempty"`
	Region  string `json:"region"`
	Name    string `json:"name"`
	// String or Binary is the contents of a new version.
	String *string `json:"string,omitempty"`
	Binary []byte  `json:"binary,omitempty"`
	// VersionID of the version; made up if it is empty.
	VersionID string `json:"versionId,omitempty"`
	// Stages of the version; AWSCURRENT if nil.
	Stages []string `json:"stages,omitempty"`
	// Suffix is the six characters at the end of the ARN.
	Suffix         string            `json:"suffix,omitempty"`
	Tags           map[string]string `json:"tags,omitempty"`
	Description    string            `json:"description,omitempty"`
	KMSKeyID       string            `json:"kmsKeyId,omitempty"`
	Created        time.Time         `json:"created,omitzero"`
	Deleted        *bool             `json:"deleted,omitempty"`
	Replicas       []string          `json:"replicas,omitempty"`
	KMS            *string           `json:"kms,omitempty"`
	ResourcePolicy json.RawMessage   `json:"resourcePolicy,omitempty"`
	// Details are more members of DescribeSecret's answer.
	Details map[string]any `json:"details,omitempty"`
}

// What Secret.KMS and Parameter.KMS may be.
const (
	KMSDenied  = "denied"
	KMSFailure = "failure"
)

// Parameter is a version of a parameter, or what changes of the parameter.
type Parameter struct {
	Account string `json:"account,omitempty"`
	Region  string `json:"region"`
	Name    string `json:"name"`
	// Value is the contents of a new version.
	Value *string `json:"value,omitempty"`
	// Type is String, StringList or SecureString; String if empty.
	Type string `json:"type,omitempty"`
	// Labels of the version.
	Labels []string `json:"labels,omitempty"`
	// Version that Labels are for, without Value; 0 is the latest.
	Version     int64             `json:"version,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Description string            `json:"description,omitempty"`
	KeyID       string            `json:"keyId,omitempty"`
	DataType    string            `json:"dataType,omitempty"`
	KMS         *string           `json:"kms,omitempty"`
}

// Fault is something that goes wrong. It is for the requests that it matches;
// an empty field matches any.
type Fault struct {
	Service   string `json:"service,omitempty"`
	Operation string `json:"operation,omitempty"`
	Region    string `json:"region,omitempty"`
	Role      string `json:"role,omitempty"`
	// Item makes it an entry of BatchGetSecretValue's Errors.
	Item string `json:"item,omitempty"`
	// After is how many requests pass first.
	After int `json:"after,omitempty"`
	// Count is for how many requests; 0 until the faults are deleted.
	Count int `json:"count,omitempty"`
	// Kind is one of the constants below.
	Kind    string `json:"kind"`
	Status  int    `json:"status,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// Latency is waited first.
	Latency Duration `json:"latency,omitzero"`
	// RetryAfter is sent in seconds.
	RetryAfter int `json:"retryAfter,omitempty"`
}

// Kinds of faults.
const (
	Throttle         = double.Throttle
	ErrorAnswer      = double.ErrorAnswer
	Unavailable      = double.Unavailable
	UnknownOperation = "unknown-operation"
	Hang             = double.Hang
	Close            = double.Close
	Garbage          = double.Garbage
	Latency          = double.Latency
)

// Duration is a time.Duration that is written as Go writes it.
type Duration = double.Duration

// Services, as calls and faults name them.
const (
	SecretsManager = "secretsmanager"
	SSM            = "ssm"
	STS            = "sts"
	PodIdentity    = "podidentity"
)

// Addresses are where the double listens.
type Addresses struct {
	// Endpoint is AWS' own, for all services and regions.
	Endpoint string `json:"endpoint"`
	// Control is this API's.
	Control string `json:"control"`
	// PodIdentity and PodIdentity6 are the agent's, with its path.
	PodIdentity  string `json:"podIdentity,omitempty"`
	PodIdentity6 string `json:"podIdentity6,omitempty"`
}

// Applied is what POST /apply made.
type Applied struct {
	Secrets    []AppliedSecret    `json:"secrets,omitempty"`
	Parameters []AppliedParameter `json:"parameters,omitempty"`
}

// AppliedSecret is a secret after POST /apply.
type AppliedSecret struct {
	Region    string `json:"region"`
	Name      string `json:"name"`
	ARN       string `json:"arn"`
	VersionID string `json:"versionId,omitempty"`
}

// AppliedParameter is a parameter after POST /apply.
type AppliedParameter struct {
	Region  string `json:"region"`
	Name    string `json:"name"`
	ARN     string `json:"arn"`
	Version int64  `json:"version"`
}

// Login asks for credentials of a role without a token.
type Login struct {
	Role     string   `json:"role"`
	Session  string   `json:"session,omitempty"`
	Lifetime Duration `json:"lifetime,omitzero"`
}

// Credentials are those of a session.
type Credentials struct {
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey"`
	SessionToken    string    `json:"sessionToken"`
	Expiration      time.Time `json:"expiration"`
}

// Call is how often something was called.
type Call struct {
	Service   string `json:"service"`
	Operation string `json:"operation"`
	Region    string `json:"region"`
	// Role is the ARN of the caller's role, or of its user.
	Role string `json:"role"`
	// Code is the error's, "" for success.
	Code  string `json:"code"`
	Count int    `json:"count"`
	// Items is how many secrets or parameters were asked for in all.
	Items int `json:"items"`
}

// Request is one that was answered.
type Request struct {
	Service     string   `json:"service"`
	Operation   string   `json:"operation"`
	Region      string   `json:"region"`
	Role        string   `json:"role"`
	Session     string   `json:"session"`
	AccessKeyID string   `json:"accessKeyId"`
	Items       []string `json:"items"`
	Code        string   `json:"code"`
	Status      int      `json:"status"`
}

// Violation is a breach of AWS' service model, or of its protocol.
type Violation struct {
	Service   string `json:"service"`
	Operation string `json:"operation"`
	// Side is "request" or "answer".
	Side    string `json:"side"`
	Path    string `json:"path"`
	Problem string `json:"problem"`
}
