package sdk

import (
	"context"
	"io/fs"
	"time"

	"github.com/postern-dev/postern/internal/redact"
)

// Provider fetches secrets from one kind of store.
//
// Fetch gets all objects that the request's parameters ask for: all of them,
// or an error. It is called concurrently, for pods of different identities.
// It must end when ctx ends. Its error should be an [*Error]; what it may
// contain is described there.
//
// A provider may implement more than this: [Releaser], [Runner],
// [Shutdowner], [AudienceLister], [HealthChecker].
type Provider interface {
	Fetch(ctx context.Context, req *Request) (*Response, error)
}

// Releaser is a provider that keeps something for a volume, such as leases.
//
// Release says that the volume is gone. It is idempotent, and knows nothing
// of most volumes that it is called for: that is not an error. The upstream
// protocol has no such call; there, leases end by their time to live.
type Releaser interface {
	Release(ctx context.Context, volumeID string) error
}

// Runner is a provider that works in the background, such as renewing leases.
//
// Run blocks until ctx ends, which is after the last call is drained and
// before Shutdown. An error before that ends the process.
type Runner interface {
	Run(ctx context.Context) error
}

// Shutdowner is a provider with something to do at the very end, such as
// revoking its own login. ctx bounds the time that there is for it.
type Shutdowner interface {
	Shutdown(ctx context.Context) error
}

// AudienceLister is a provider whose flags say which tokens it wants, such as those
// for the cluster that it runs in.
//
// Audiences are wanted besides the Definition's. It is called once, after the
// provider is made.
type AudienceLister interface {
	Audiences() []Audience
}

// HealthChecker is a provider that can tell whether it could serve a Fetch
// now. A provider without it is ready while it serves. The check is behind
// /readyz, not /healthz: a store that is down is no reason to restart.
type HealthChecker interface {
	Health(ctx context.Context) error
}

// Secret is the content of a secret. It prints as "[redacted]", whatever the
// verb or encoding; its Reveal method gives the bytes.
type Secret = redact.Bytes

// SecretString is a token or a password. It prints as "[redacted]", whatever
// the verb or encoding; its Reveal method gives the text.
type SecretString = redact.String

// NewSecret makes a Secret of b, which belongs to the Secret from then on.
func NewSecret(b []byte) Secret { return redact.NewBytes(b) }

// NewSecretString makes a SecretString of s.
func NewSecretString(s string) SecretString { return redact.NewString(s) }

// Request asks for all objects of one SecretProviderClass for one pod.
type Request struct {
	// VolumeID identifies the volume on this node. It is the same in each
	// Fetch for the volume, and in its Release.
	VolumeID string
	// Pod is who asks.
	Pod Pod
	// Node is where the pod runs. Empty under the upstream protocol.
	Node Node
	// SecretProviderClass is the class's name, for messages.
	SecretProviderClass string
	// Parameters are the class's. Names that the provider does not know are
	// to be ignored.
	Parameters Parameters
	// Tokens are the pod's, of the audiences that the Definition declares.
	Tokens Tokens
	// Secrets is the data of the volume's nodePublishSecretRef, if it has one.
	Secrets map[string]SecretString
	// DefaultFileMode is for files whose object sets no mode. Never 0.
	DefaultFileMode fs.FileMode
	// CurrentObjects is what the volume holds now; empty for a new one, and
	// always under the upstream protocol. Only a provider whose Definition
	// says NotModified needs to look at it.
	CurrentObjects []ObjectVersion
	// State is that of the last Response for the volume, whichever instance of
	// the provider gave it; empty for a new one, where the driver does not
	// remember it, and always under the upstream protocol.
	State Secret
}

// Holds reports whether the volume holds all of objects and nothing else.
func (r *Request) Holds(objects []ObjectVersion) bool {
	if len(objects) != len(r.CurrentObjects) {
		return false
	}
	versions := make(map[string]string, len(objects))
	for _, o := range r.CurrentObjects {
		versions[o.ID] = o.Version
	}
	for _, o := range objects {
		if version, ok := versions[o.ID]; !ok || version != o.Version {
			return false
		}
	}
	return true
}

// Pod is the pod that a volume belongs to. All but annotations is set.
type Pod struct {
	Namespace      string
	Name           string
	UID            string
	ServiceAccount ServiceAccount
}

// ServiceAccount is a pod's own.
type ServiceAccount struct {
	Name string
	// Annotations are those that the Definition asked for, where they exist.
	// Nil under the upstream protocol.
	Annotations map[string]string
}

// Node is where a pod runs.
type Node struct {
	Name string
	// Labels are those that the Definition asked for, where they exist.
	Labels map[string]string
}

// Token is a service account token of the pod, made by kubelet.
type Token struct {
	Audience string
	Token    SecretString
	// Expiry is zero where it is not known.
	Expiry time.Time
}

// Tokens are a pod's tokens, at most one for each audience.
type Tokens []Token

// For returns the token for an audience, if there is one.
func (t Tokens) For(audience string) (Token, bool) {
	for _, token := range t {
		if token.Audience == audience {
			return token, true
		}
	}
	return Token{}, false
}

// Response is what the store holds for a request.
type Response struct {
	// NotModified says that the store holds what the request's CurrentObjects
	// say. Files and Objects are then empty. Only for a provider whose
	// Definition says NotModified.
	NotModified bool
	// Files are the volume's, at least one; see [ValidateFiles].
	Files []File
	// Objects are the versions of what Files were made of, at least one.
	Objects []ObjectVersion
	// Sharing says who else may be served the same answer.
	Sharing Sharing
	// FreshFor is how long the answer may be served again. Zero: not at all.
	FreshFor time.Duration
	// RefreshAfter is when to fetch again, if that is sooner than the volume's
	// interval says or the volume has none. Zero: as that says.
	RefreshAfter time.Duration
	// Leases are credentials that live and die with the volume. Only for a
	// provider whose Definition says Leases.
	Leases []Lease
	// State is what this process, or one that comes after it, needs to know to
	// go on with the volume's credentials: it comes back with the next Request.
	// It must hold neither tokens nor contents, and be at most [MaxStateBytes].
	// Only with SharingNone or SharingPod.
	State Secret
}

// File is one file of a volume.
type File struct {
	// Path is relative to the volume; see [ValidateFiles].
	Path string
	// Mode is the permission bits, at most 0777. Zero: the request's
	// DefaultFileMode.
	Mode     fs.FileMode
	Contents Secret
}

// ObjectVersion says which version of an object a volume holds.
type ObjectVersion struct {
	// ID names the object and is unique within the volume.
	ID string
	// Version changes if and only if what the object puts into the volume
	// changes. It is shown to users: it must not reveal the content, so a
	// plain hash of it will not do.
	Version string
}

// Lease is a credential that lives and dies with the volume it was issued for.
type Lease struct {
	// ObjectID is the object's that it belongs to.
	ObjectID string
	// Duration is how long it is valid, from when it was issued or renewed.
	Duration time.Duration
	// Renewable says whether the provider can prolong it.
	Renewable bool
}

// Sharing says who else may be served the same answer.
type Sharing int

const (
	// SharingNone is nobody but this pod, and not twice: the safe answer of a
	// provider that says nothing.
	SharingNone Sharing = iota
	// SharingPod is nobody but this pod.
	SharingPod
	// SharingServiceAccount is every pod of this service account that uses
	// this SecretProviderClass.
	SharingServiceAccount
	// SharingNamespace is every pod of the namespace that uses this
	// SecretProviderClass.
	SharingNamespace
)

// String returns the name that logs show.
func (s Sharing) String() string {
	switch s {
	case SharingNone:
		return "none"
	case SharingPod:
		return "pod"
	case SharingServiceAccount:
		return "service account"
	case SharingNamespace:
		return "namespace"
	default:
		return "invalid"
	}
}
