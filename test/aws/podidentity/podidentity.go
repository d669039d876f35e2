// Package podidentity answers as the agent of EKS Pod Identity does, and the
// service behind it.
package podidentity

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
	"github.com/postern-dev/postern/test/aws/oidc"
	"github.com/postern-dev/postern/test/token"
)

// Path of the credentials.
const Path = "/v1/credentials"

// Operation is what the agent calls.
const Operation = "AssumeRoleForPodIdentity"

const (
	// lifetime of its sessions.
	lifetime = 6 * time.Hour
	// cluster and region of the pods are in the sessions' names and tags.
	cluster = "test"
	region  = "eu-central-1"
	// maxSession is the most characters of a session's name.
	maxSession = 64
)

// Agent answers pods.
type Agent struct {
	directory *iam.Directory
	verifier  *oidc.Providers
}

// New returns an agent.
func New(directory *iam.Directory, verifier *oidc.Providers) *Agent {
	return &Agent{directory: directory, verifier: verifier}
}

// Answer is what a pod gets. It holds secrets.
type Answer struct {
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	Token           string
	AccountID       string `json:"AccountId"`
	Expiration      time.Time
}

// RequestError is a request that the agent itself refuses, without a code.
type RequestError struct{ Message string }

func (e *RequestError) Error() string { return e.Message }

// Subject returns the service account that a token says it is, unverified.
func Subject(raw string) (namespace, serviceAccount string) {
	claims, err := token.Peek(raw)
	if err != nil {
		return "", ""
	}
	namespace, serviceAccount, _ = strings.Cut(strings.TrimPrefix(claims.Subject, "system:serviceaccount:"), ":")
	return namespace, serviceAccount
}

// Credentials returns those of the role that is associated with a token's service
// account.
func (a *Agent) Credentials(ctx context.Context, raw string) (Answer, error) {
	if raw == "" {
		return Answer{}, &RequestError{"Service account token cannot be empty"}
	}
	claims, err := a.verify(ctx, raw)
	if err != nil {
		return Answer{}, err
	}
	namespace, serviceAccount := Subject(raw)
	role, ok := a.directory.Associated(namespace, serviceAccount)
	if !ok {
		return Answer{}, &api.Error{
			Status: http.StatusNotFound, Code: "ResourceNotFoundException",
			Message: "No Pod Identity association found for service account " + namespace + "/" + serviceAccount,
		}
	}
	tags := tagsOf(role, claims)
	if !a.directory.TrustsPodIdentity(role, tags) {
		return Answer{}, api.BadRequest("AccessDeniedException", "Unauthorized Exception! EKS does not have permissions to assume the associated role.")
	}
	return a.login(role, claims.Kubernetes.Pod.Name, tags)
}

// tagsOf are the tags of the session of a pod with a role of the cluster's account.
func tagsOf(role string, claims token.Claims) map[string]string {
	account, _, _ := iam.SplitRole(role)
	_, partition, _ := strings.Cut(role, ":")
	partition, _, _ = strings.Cut(partition, ":")
	return map[string]string{
		"eks-cluster-arn":            "arn:" + partition + ":eks:" + region + ":" + account + ":cluster/" + cluster,
		"eks-cluster-name":           cluster,
		"kubernetes-namespace":       claims.Kubernetes.Namespace,
		"kubernetes-service-account": claims.Kubernetes.ServiceAccount.Name,
		"kubernetes-pod-name":        claims.Kubernetes.Pod.Name,
		"kubernetes-pod-uid":         claims.Kubernetes.Pod.UID,
	}
}

func (a *Agent) verify(ctx context.Context, raw string) (token.Claims, error) {
	claims, err := token.Peek(raw)
	if err != nil {
		return token.Claims{}, &RequestError{"Service account token cannot be parsed: " + err.Error()}
	}
	if claims.Issuer != a.verifier.PodIdentityIssuer() {
		return token.Claims{}, api.BadRequest("InvalidTokenException", "Issuer does not match the cluster's.")
	}
	claims, err = a.verifier.Verify(ctx, raw, []string{iam.PodIdentityAudience})
	switch {
	case err == nil:
		return claims, nil
	case errors.Is(err, token.ErrExpired):
		return token.Claims{}, &RequestError{"Service account token failed basic claim validations: token has invalid claims: token is expired"}
	case errors.Is(err, token.ErrUnreachable):
		return token.Claims{}, &api.Error{Status: http.StatusServiceUnavailable, Code: "ServiceUnavailableException", Message: err.Error()}
	default:
		return token.Claims{}, api.BadRequest("InvalidTokenException", "Token is not valid: "+err.Error())
	}
}

func (a *Agent) login(role, pod string, tags map[string]string) (Answer, error) {
	name := "eks-" + cluster + "-" + pod + "-" + rand.Text()
	made, caller, err := a.directory.NewSession(iam.Login{
		Role: role, Session: name[:min(len(name), maxSession)], Lifetime: lifetime, Tags: tags,
	})
	if err != nil {
		return Answer{}, err
	}
	return fromCredentials(made, caller.Account), nil
}

func fromCredentials(c control.Credentials, account string) Answer {
	return Answer{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, Token: c.SessionToken,
		AccountID: account, Expiration: c.Expiration,
	}
}
