// Package sts exchanges the tokens of pods for access tokens, as Google's Security
// Token Service and GKE's own endpoint of it do.
package sts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/iam"
	"github.com/postern-dev/postern/test/token"
)

const (
	grantType       = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessTokenType = "urn:ietf:params:oauth:token-type:access_token"
	gkeSuffix       = ".svc.id.goog"
	gkePrefix       = "identitynamespace:"
	iamPrefix       = "//iam.googleapis.com/"
)

// Service knows the workload identity pools.
//
// Invariants:
//  1. Pools are kept with the numbers of their projects.
type Service struct {
	directory *iam.Directory
	verifier  *token.Verifier

	mu    sync.Mutex
	pools []control.Pool
}

// New returns one without pools.
func New(directory *iam.Directory, verifier *token.Verifier) *Service {
	return &Service{directory: directory, verifier: verifier}
}

// Reset forgets the pools.
func (s *Service) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pools = nil
}

// PutPool adds a pool, or replaces it.
func (s *Service) PutPool(p control.Pool) error {
	if p.Project == "" || p.ID == "" {
		return errors.New("a pool needs a project and an id")
	}
	for _, provider := range p.Providers {
		if provider.ID == "" || provider.Issuer == "" {
			return fmt.Errorf("pool %s: a provider needs an id and an issuer", p.ID)
		}
	}
	p.Project = s.directory.Number(p.Project)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pools = slices.DeleteFunc(s.pools, func(o control.Pool) bool { return o.Project == p.Project && o.ID == p.ID })
	s.pools = append(s.pools, p)
	return nil
}

// target is the provider that a request is for.
type target struct {
	pool     control.Pool
	provider control.Provider
	// audiences are those that a token may be for.
	audiences []string
}

// find returns the target of an audience.
func (s *Service) find(audience string) (target, error) {
	named := func(p control.Pool, r control.Provider) bool {
		return audience == iamPrefix+poolName(p)+"/providers/"+r.ID
	}
	if strings.HasPrefix(audience, gkePrefix) {
		named = func(p control.Pool, r control.Provider) bool {
			return strings.HasSuffix(p.ID, gkeSuffix) && audience == gkePrefix+p.ID+":"+r.ID
		}
	} else if !strings.HasPrefix(audience, iamPrefix) || !strings.Contains(audience, "/providers/") {
		return target{}, refuse("invalid_request", "Invalid value for \"audience\". This value should be the full resource name of the Identity Provider. "+
			"See https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token for the list of possible formats.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pools {
		for _, r := range p.Providers {
			if named(p, r) && !p.Disabled && !r.Disabled {
				return target{pool: p, provider: r, audiences: audiences(p, r)}, nil
			}
		}
	}
	return target{}, refuse("invalid_target", "The target service indicated by the \"audience\" parameters is invalid. "+
		"This might either be because the pool or provider is disabled or deleted or because it doesn't exist.")
}

func poolName(p control.Pool) string {
	return "projects/" + p.Project + "/locations/global/workloadIdentityPools/" + p.ID
}

// audiences are those that a provider takes.
func audiences(p control.Pool, r control.Provider) []string {
	if len(r.Audiences) > 0 {
		return r.Audiences
	}
	if strings.HasSuffix(p.ID, gkeSuffix) {
		return []string{p.ID}
	}
	name := iamPrefix + poolName(p) + "/providers/" + r.ID
	return []string{"https:" + name, name}
}

// exchange trades a subject token for an access token.
func (s *Service) exchange(ctx context.Context, f form) (raw string, issued iam.Token, err error) {
	t, err := s.find(f.Audience)
	if err != nil {
		return "", iam.Token{}, err
	}
	claims, err := s.verifier.Authenticate(ctx, f.SubjectToken)
	if err := mismatch(t, claims, err); err != nil {
		return "", iam.Token{}, err
	}
	if err := s.verifier.Current(claims); err != nil {
		return "", iam.Token{}, refuse("invalid_grant", fmt.Sprintf("ID Token issued at %d is stale to sign-in.", claims.NotBefore))
	}
	if len(t.provider.Subjects) > 0 && !slices.Contains(t.provider.Subjects, claims.Subject) {
		return "", iam.Token{}, refuse("unauthorized_client", "The given credential is rejected by the attribute condition.")
	}
	raw, issued = s.directory.Issue(principal(t, claims.Subject, strings.Fields(f.Scope)))
	return raw, issued, nil
}

// mismatch says why a token is none of the target's. Err is of its signature.
func mismatch(t target, claims token.Claims, err error) error {
	switch {
	case errors.Is(err, token.ErrMalformed):
		return refuse("invalid_request", "Unable to parse the ID Token.")
	case claims.Issuer != t.provider.Issuer:
		return refuse("invalid_grant", "The issuer in ID Token "+claims.Issuer+" does not match the expected ones.")
	case errors.Is(err, token.ErrUnreachable), errors.Is(err, token.ErrIssuer):
		return refuse("invalid_grant", "Error connecting to the given credential's issuer.")
	case err != nil:
		return refuse("invalid_grant", "Invalid ID Token signature.")
	}
	if _, ok := claims.Matches(t.audiences); !ok {
		return refuse("invalid_grant", fmt.Sprintf("The audience in ID Token %q does not match the expected audience.", claims.Audience))
	}
	return nil
}

// principal is who a subject of a pool is. GKE's have a subject of their own form,
// and the name of a service account too.
func principal(t target, subject string, scopes []string) iam.Token {
	pool, gke := "//iam.googleapis.com/"+poolName(t.pool), strings.HasSuffix(t.pool.ID, gkeSuffix)
	members := []string{"principalSet:" + pool + "/*"}
	if namespace, account, ok := strings.Cut(strings.TrimPrefix(subject, "system:serviceaccount:"), ":"); ok && gke {
		subject = "ns/" + namespace + "/sa/" + account
		members = append(members,
			"serviceAccount:"+t.pool.ID+"["+namespace+"/"+account+"]", "principalSet:"+pool+"/namespace/"+namespace)
	}
	name := "principal:" + pool + "/subject/" + subject
	return iam.Token{Principal: name, Members: append(members, name), Scopes: scopes}
}

// refusal is an error as OAuth tells it.
type refusal struct{ code, text string }

func (r *refusal) Error() string { return r.code + ": " + r.text }

func refuse(code, text string) error { return &refusal{code: code, text: text} }

func (r *refusal) answer() api.Answer {
	return api.OAuthError(http.StatusBadRequest, r.code, r.text)
}
