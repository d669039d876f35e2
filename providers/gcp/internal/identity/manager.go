package identity

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/credentials"
)

// cloudScope is all that the identity may do: what that is, is IAM's to say.
const cloudScope = "https://www.googleapis.com/auth/cloud-platform"

// Manager keeps the tokens.
//
// Its invariants:
//  1. A token serves one identity only, and is of a login with a proof of this
//     identity.
//  2. Nothing is kept of a login but in the cache, and no two logins have the same
//     number.
//  3. What a login is made with goes to the federation's address, to the IAM
//     Credentials API or to a token_uri that the operator trusts, by TLS, and follows
//     no redirect.
type Manager struct {
	cfg    Config
	client *http.Client
	cache  *credentials.Cache[key, *grant]
	logins atomic.Uint64
}

// New returns a Manager without tokens.
func New(cfg Config) *Manager {
	cfg.IAMURL = strings.TrimSuffix(cmp.Or(cfg.IAMURL, DefaultIAMURL), "/")
	m := &Manager{cfg: cfg, client: withoutRedirects(cmp.Or(cfg.HTTPClient, &http.Client{}))}
	m.cache = credentials.New(credentials.Config[key, *grant]{
		Login: m.login, Refused: refused, Passing: passing,
		Max: cfg.MaxSessions, Logger: cfg.Logger, Attrs: key.attrs,
	})
	return m
}

// Acquire returns a token of the identity: the one it has while it lasts, or else
// a new one. Who asks at the same time shares a login, and may leave alone.
func (m *Manager) Acquire(ctx context.Context, use Use) (*Token, error) {
	if err := use.check(); err != nil {
		return nil, err
	}
	g, cached, err := m.cache.Acquire(ctx, keyOf(use), use.proof())
	if err != nil {
		return nil, err
	}
	return &Token{grant: g, cached: cached}, nil
}

// Drop forgets a token that Google does not accept any more, so that the next
// Acquire logs in. A newer one of the same identity stays.
func (m *Manager) Drop(t *Token) {
	if t != nil && t.grant != nil {
		m.cache.Drop(t.grant.key, t.grant)
	}
}

// access is a token as an answer has it. expires is zero if the answer does not say.
type access struct {
	token   sdk.SecretString
	expires time.Time
}

// login gets a token. Its errors are of type *Error.
func (m *Manager) login(ctx context.Context, k key, proof sdk.SecretString) (*grant, error) {
	e := m.newExchange(ctx, k, proof)
	got, err := m.access(ctx, e, proof)
	if err != nil {
		return nil, err
	}
	return &grant{key: k, login: m.logins.Add(1), access: got.token, expires: got.expires}, nil
}

func (m *Manager) access(ctx context.Context, e *exchange, proof sdk.SecretString) (access, error) {
	switch e.key.kind {
	case ServiceAccountKey:
		return e.withKey(ctx, proof, m.cfg.TokenURIs)
	case Provider:
		return e.ownCredentials(ctx)
	case WorkloadIdentity:
	}
	federated, err := e.federate(ctx, proof)
	if err != nil || e.key.serviceAccount == "" {
		return federated, err
	}
	return e.impersonate(ctx, m.cfg.IAMURL, federated.token)
}

// refused reports whether the answer was no, to the token or to the identity.
func refused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Kind == Denied || e.Kind == TokenExpired)
}

// passing reports whether a later login may succeed.
func passing(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Kind == Throttled || e.Kind == Unavailable) || errors.Is(err, context.DeadlineExceeded)
}
