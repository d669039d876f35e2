// Package identity keeps the access tokens with which secrets are read: one for
// each identity, shared by the pods that have it, until shortly before it expires.
//
// A pod's identity is had for the pod's own token (workload identity, of GKE or of
// any federation) or for a service account's key in its Secret. The provider's own
// identity is had with Google's application default credentials: who may use it is
// the caller's to decide. For a pod's identity, nothing that the process itself may
// be allowed is used: no variable, file or metadata server is asked for credentials.
package identity

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
)

// Kind is how an identity is had.
type Kind string

// The kinds.
const (
	// WorkloadIdentity exchanges the pod's token, and may go on to a service account
	// of Google's that the pod may impersonate.
	WorkloadIdentity Kind = "workload identity"
	// ServiceAccountKey logs in with a service account's key, of the class.
	ServiceAccountKey Kind = "service account key"
	// Provider is the provider's own identity.
	Provider Kind = "provider"
)

// Subject is a service account of Kubernetes.
type Subject struct {
	Namespace, ServiceAccount string
}

func (s Subject) String() string { return s.Namespace + "/" + s.ServiceAccount }

// Use is one pod's wish for an access token.
type Use struct {
	Kind    Kind
	Subject Subject
	// Federation is where Token is exchanged.
	Federation Federation
	// Token is the pod's, of WorkloadIdentity, for one of the federation's
	// audiences. The caller has checked that it is the subject's.
	Token sdk.SecretString
	// ServiceAccount is the service account of Google's that the pod impersonates, by
	// its address or its number. Without one the pod is itself what secrets are
	// shared with.
	ServiceAccount string
	// Delegates are service accounts of Google's on the way to ServiceAccount, each
	// of which may impersonate the next.
	Delegates []string
	// Key is the key.json of a ServiceAccountKey.
	Key sdk.SecretString
}

// account is a service account's address or number: it becomes a part of a URL.
var account = regexp.MustCompile(`^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,127}@[A-Za-z0-9][A-Za-z0-9.-]{0,252}|[0-9]{1,32})$`)

// check says what is missing: without it there is nobody to log in as. Nobody gets
// what others have logged in for, either.
func (u Use) check() error {
	var problem string
	switch {
	case u.Kind != WorkloadIdentity && u.Kind != ServiceAccountKey && u.Kind != Provider:
		problem = fmt.Sprintf("there is no kind of identity %q", u.Kind)
	case u.Subject.Namespace == "" || u.Subject.ServiceAccount == "":
		problem = "no service account is given"
	case u.Kind == ServiceAccountKey && u.Key.IsZero():
		problem = "no key of a service account is given"
	case u.Kind == WorkloadIdentity:
		problem = u.checkFederated()
	}
	if problem == "" {
		return nil
	}
	return &Error{Operation: operationOf(u.Kind), Kind: Invalid, Message: problem}
}

func (u Use) checkFederated() string {
	if problem := u.Federation.problem(); problem != "" {
		return problem
	}
	switch {
	case u.Token.IsZero():
		return "no token of the pod is given"
	case u.ServiceAccount == "" && len(u.Delegates) > 0:
		return "delegates are given, and no service account that they lead to"
	case u.ServiceAccount != "" && !account.MatchString(u.ServiceAccount):
		return fmt.Sprintf("%q is not the address of a service account of Google's", u.ServiceAccount)
	}
	for _, delegate := range u.Delegates {
		if !account.MatchString(delegate) {
			return fmt.Sprintf("the delegate %q is not the address of a service account of Google's", delegate)
		}
	}
	return ""
}

// proof is what the login is made with: it must be in no message.
func (u Use) proof() sdk.SecretString {
	switch u.Kind {
	case WorkloadIdentity:
		return u.Token
	case ServiceAccountKey:
		return u.Key
	case Provider:
	}
	return sdk.SecretString{}
}

// Member is the identity as IAM's policies name it, to say what a role is to be
// given to. It is empty for the provider's own, which is not known here.
func (u Use) Member() string {
	switch {
	case u.Kind == WorkloadIdentity && u.ServiceAccount != "":
		return serviceAccountMember(u.ServiceAccount)
	case u.Kind == WorkloadIdentity:
		return u.Federation.Member(u.Subject)
	case u.Kind == ServiceAccountKey:
		if k, err := parseKey(u.Key); err == nil {
			return serviceAccountMember(k.Email)
		}
	}
	return ""
}

func serviceAccountMember(address string) string { return "serviceAccount:" + address }

// key is all that decides on what a token may do. Nothing is shared between two
// keys.
type key struct {
	kind    Kind
	subject Subject
	// audience and tokenURL are where a pod's token is exchanged. What that token
	// may be for changes nothing.
	audience, tokenURL string
	serviceAccount     string
	// delegates are joined by delegateSeparator: their order matters.
	delegates string
	// secret is the digest of a service account's key: who has another one has to
	// log in.
	secret [sha256.Size]byte
}

// delegateSeparator is in no address.
const delegateSeparator = " "

func keyOf(u Use) key {
	k := key{kind: u.Kind, subject: u.Subject}
	switch u.Kind {
	case WorkloadIdentity:
		k.audience, k.tokenURL = u.Federation.Audience, u.Federation.TokenURL
		k.serviceAccount, k.delegates = u.ServiceAccount, strings.Join(u.Delegates, delegateSeparator)
	case ServiceAccountKey:
		k.secret = sha256.Sum256([]byte(u.Key.Reveal()))
	case Provider:
	}
	return k
}

// federation is where the key's tokens are exchanged.
func (k key) federation() Federation { return Federation{Audience: k.audience, TokenURL: k.tokenURL} }

// chain is the delegates.
func (k key) chain() []string { return strings.Fields(k.delegates) }

func (k key) String() string {
	switch k.kind {
	case ServiceAccountKey:
		return "the service account key of " + k.subject.String()
	case Provider:
		return "the provider's own identity"
	case WorkloadIdentity:
	}
	if k.serviceAccount == "" {
		return k.federation().Member(k.subject)
	}
	through := ""
	if k.delegates != "" {
		through = ", through " + strings.Join(k.chain(), " and ")
	}
	return fmt.Sprintf("service account %s by workload identity of %s%s", k.serviceAccount, k.subject, through)
}

// Keys of log records.
const (
	logIdentity             = "identity"
	logNamespace            = "namespace"
	logServiceAccount       = "service_account"
	logGoogleServiceAccount = "google_service_account"
	logAudience             = "audience"
)

// attrs are for log records.
func (k key) attrs() []slog.Attr {
	return []slog.Attr{
		slog.String(logIdentity, string(k.kind)), slog.String(logNamespace, k.subject.Namespace),
		slog.String(logServiceAccount, k.subject.ServiceAccount), slog.String(logAudience, k.audience),
		slog.String(logGoogleServiceAccount, k.serviceAccount),
	}
}

// Defaults of Config.
const (
	DefaultIAMURL = "https://iamcredentials.googleapis.com"
	// DefaultTokenURI is where a service account's key is used.
	DefaultTokenURI = "https://oauth2.googleapis.com/token" //nolint:gosec // an address
)

// Config is what a Manager needs.
type Config struct {
	// HTTPClient reaches Google. Redirects are not followed. Nil: one of its own.
	HTTPClient *http.Client
	// IAMURL is the IAM Service Account Credentials API; "": DefaultIAMURL.
	IAMURL string
	// TokenURIs are further addresses, beside DefaultTokenURI, where a class's key
	// may be used. They are the operator's to trust.
	TokenURIs []string
	// MaxSessions bounds the tokens kept, the one not used for longest goes; zero:
	// the default of package credentials.
	MaxSessions int
	Logger      *slog.Logger
}
