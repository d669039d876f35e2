// Package control is the control API of the Google Cloud double: what can be put
// into it, what it tells, and a client.
package control

import (
	"fmt"

	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/token"
)

// Document is what POST /apply takes. Everything in it is put in this order.
type Document struct {
	Issuers         []token.Issuer   `json:"issuers,omitempty"`
	Projects        []Project        `json:"projects,omitempty"`
	ServiceAccounts []ServiceAccount `json:"serviceAccounts,omitempty"`
	Pools           []Pool           `json:"pools,omitempty"`
	Metadata        *Metadata        `json:"metadata,omitempty"`
	Bindings        []Binding        `json:"bindings,omitempty"`
	Secrets         []Secret         `json:"secrets,omitempty"`
	Parameters      []Parameter      `json:"parameters,omitempty"`
	Faults          []Fault          `json:"faults,omitempty"`
	// PageSize is the most entries of one page; 0 is the service's own, nil as it was.
	PageSize *int `json:"pageSize,omitempty"`
	// TokenLifetime is how long federated access tokens last, and those of the
	// metadata server and of keys; nil as it was.
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

// Project says which number a project has.
type Project struct {
	ID     string `json:"id"`
	Number string `json:"number"`
}

// ServiceAccount is one of Google's, not of Kubernetes.
type ServiceAccount struct {
	Email    string `json:"email"`
	Disabled bool   `json:"disabled,omitempty"`
	// Keys are names of keys to make; those it has already stay.
	Keys []string `json:"keys,omitempty"`
}

// Pool is a workload identity pool.
type Pool struct {
	// Project whose pool it is; its id or its number.
	Project string `json:"project"`
	// ID is PROJECT.svc.id.goog for GKE's own.
	ID        string     `json:"id"`
	Disabled  bool       `json:"disabled,omitempty"`
	Providers []Provider `json:"providers"`
}

// Provider says whose tokens a pool takes.
type Provider struct {
	// ID is the URL of a cluster or a membership in GKE's own pool.
	ID     string `json:"id"`
	Issuer string `json:"issuer"`
	// Audiences are the allowed ones; the provider's full name if empty.
	Audiences []string `json:"audiences,omitempty"`
	// Subjects are those that its attribute condition accepts; all if empty.
	Subjects []string `json:"subjects,omitempty"`
	Disabled bool     `json:"disabled,omitempty"`
}

// Metadata is what the metadata server tells of the node.
type Metadata struct {
	Project         string `json:"project"`
	ClusterName     string `json:"clusterName,omitempty"`
	ClusterLocation string `json:"clusterLocation,omitempty"`
	Zone            string `json:"zone,omitempty"`
	// ServiceAccount is the email of the default one; there is none if empty.
	ServiceAccount string `json:"serviceAccount,omitempty"`
	// UniverseDomain is googleapis.com if empty.
	UniverseDomain string `json:"universeDomain,omitempty"`
}

// Binding grants a role on a resource.
type Binding struct {
	// Resource is a project, a secret, a parameter or a service account:
	// "projects/-/serviceAccounts/EMAIL".
	Resource string `json:"resource"`
	// Role is one that the double knows, or any name with Permissions.
	Role        string   `json:"role"`
	Permissions []string `json:"permissions,omitempty"`
	// Members are those of IAM, as "serviceAccount:EMAIL".
	Members []string `json:"members"`
}

// Secret is a version of a secret, or what changes of it.
type Secret struct {
	// Name is the secret's, without a version.
	Name string `json:"name"`
	// Value or Data is the contents of a new version.
	Value *string `json:"value,omitempty"`
	Data  []byte  `json:"data,omitempty"`
	// Version is the one that is changed; the newest if 0.
	Version int64 `json:"version,omitempty"`
	// State is Enabled, Disabled or Destroyed.
	State string `json:"state,omitempty"`
	// Labels and Aliases are the secret's. Nil is as they were.
	Labels  map[string]string `json:"labels,omitempty"`
	Aliases map[string]int64  `json:"aliases,omitempty"`
}

// What Secret.State may be.
const (
	Enabled   = "ENABLED"
	Disabled  = "DISABLED"
	Destroyed = "DESTROYED"
)

// Parameter is a version of a parameter, or what changes of it.
type Parameter struct {
	// Name is the parameter's, without a version.
	Name string `json:"name"`
	// Format is Unformatted, JSON or YAML; it is said once.
	Format string            `json:"format,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Version is made if it is not there; "" for none.
	Version string `json:"version,omitempty"`
	// Value or Data is the contents of a new version.
	Value    *string `json:"value,omitempty"`
	Data     []byte  `json:"data,omitempty"`
	Disabled *bool   `json:"disabled,omitempty"`
}

// What Parameter.Format may be.
const (
	Unformatted = "UNFORMATTED"
	JSON        = "JSON"
	YAML        = "YAML"
)

// Fault is something that goes wrong. It is for the requests that it matches;
// an empty field matches any.
type Fault struct {
	Service   string `json:"service,omitempty"`
	Operation string `json:"operation,omitempty"`
	Host      string `json:"host,omitempty"`
	// Resource is a whole name, or its last part but for the version: "db".
	Resource  string `json:"resource,omitempty"`
	Principal string `json:"principal,omitempty"`
	// After is how many requests pass first.
	After int `json:"after,omitempty"`
	// Count is for how many requests; 0 until the faults are deleted.
	Count int `json:"count,omitempty"`
	// Kind is one of the constants below.
	Kind string `json:"kind"`
	// Code is gRPC's name of a code, as PERMISSION_DENIED, or an error of OAuth.
	Code string `json:"code,omitempty"`
	// Reason is of the ErrorInfo.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Status is HTTP's, where there is no gRPC.
	Status int `json:"status,omitempty"`
	// Latency is waited first.
	Latency Duration `json:"latency,omitzero"`
	// RetryAfter is sent in seconds: as RetryInfo or as Retry-After.
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
	// Corrupt changes the contents of a secret on the way; NoChecksum takes the
	// checksum away.
	Corrupt    = "corrupt"
	NoChecksum = "no-checksum"
)
