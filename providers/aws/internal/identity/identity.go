// Package identity keeps the credentials of the pods' roles: one set for each
// identity, shared by the pods that have it, until shortly before it expires.
//
// Credentials are had for a pod's token and for nothing else: of AWS' STS (IAM
// roles for service accounts) or of the node's EKS Pod Identity agent. What the
// process itself may be allowed is never used: no variable, file or metadata
// service is asked for credentials.
package identity

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// Subject is a service account.
type Subject struct {
	Namespace, ServiceAccount string
}

// Use is one pod's wish for credentials.
type Use struct {
	Subject Subject
	// PodIdentity asks the node's agent, and not STS.
	PodIdentity bool
	// AddressType is how the agent is reached.
	AddressType params.AddressType
	// RoleARN is the role to assume, and Region that of the STS to ask. The agent
	// needs neither.
	RoleARN, Region string
	// Token is the pod's, for the audience of the mode. The caller has checked
	// that it is the subject's.
	Token sdk.SecretString
	// Expiry is the token's, zero if it is not known.
	Expiry time.Time
}

// check says what is missing: without it there is nobody to log in as. Nobody gets
// what others have logged in for, either.
func (u Use) check() error {
	kind, problem := Invalid, ""
	switch {
	case u.Subject.Namespace == "" || u.Subject.ServiceAccount == "":
		problem = "no service account is given"
	case u.Token.IsZero():
		problem = "no token of the pod is given"
	case !u.Expiry.IsZero() && !time.Now().Before(u.Expiry):
		kind, problem = TokenExpired, "the pod's token has expired at "+u.Expiry.UTC().Format(time.RFC3339)
	case u.PodIdentity:
	case u.RoleARN == "":
		problem = "no role is given"
	case u.Region == "":
		problem = "no region is given"
	}
	if problem == "" {
		return nil
	}
	return &Error{Operation: u.operation(), Kind: kind, Message: problem}
}

func (u Use) operation() string {
	if u.PodIdentity {
		return OperationPodIdentity
	}
	return OperationAssumeRole
}

// key is all that decides on what credentials may do. Nothing is shared between
// two keys.
type key struct {
	podIdentity               bool
	addressType               params.AddressType
	role, region              string
	namespace, serviceAccount string
}

func keyOf(u Use) key {
	k := key{podIdentity: u.PodIdentity, namespace: u.Subject.Namespace, serviceAccount: u.Subject.ServiceAccount}
	if u.PodIdentity {
		k.addressType = u.AddressType
	} else {
		k.role, k.region = u.RoleARN, u.Region
	}
	return k
}

// use is a wish for credentials of the identity, by a token of a pod that has it.
func (k key) use(token sdk.SecretString) Use {
	return Use{
		Subject:     Subject{Namespace: k.namespace, ServiceAccount: k.serviceAccount},
		PodIdentity: k.podIdentity, AddressType: k.addressType, RoleARN: k.role, Region: k.region, Token: token,
	}
}

func (k key) String() string {
	who := fmt.Sprintf("service account %s/%s", k.namespace, k.serviceAccount)
	if k.podIdentity {
		return who + " by EKS Pod Identity"
	}
	return fmt.Sprintf("role %s of %s in %s", k.role, who, k.region)
}

// Config is what a Manager needs.
type Config struct {
	// AWS is how STS is reached. Its credentials are not used.
	AWS aws.Config
	// AgentHTTPClient makes requests to the agent, which is on the node itself:
	// through no proxy. Nil: one of its own.
	AgentHTTPClient *http.Client
	// AgentEndpoints are where the agent answers.
	AgentEndpoints AgentEndpoints
	// AgentTimeout bounds one request to the agent; zero: DefaultAgentTimeout.
	AgentTimeout time.Duration
	// MaxSessions bounds the identities kept, the one not used for longest goes;
	// zero: credentials.DefaultMax.
	MaxSessions int
	Logger      *slog.Logger
}

// source gives credentials for a token. Its errors are of type *Error.
type source interface {
	credentials(ctx context.Context, use Use) (aws.Credentials, error)
}
