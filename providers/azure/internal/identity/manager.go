package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/credentials"
)

// Manager keeps the tokens.
//
// Its invariants:
//  1. A token serves one identity only, and is of a login with a proof of this
//     identity.
//  2. A login has a credential of the SDK of its own, which goes with it: nothing
//     is kept but in the cache, and no two logins have the same number.
//  3. What a login is made with goes to the cloud's authority, to the token proxy
//     or to the node alone, in the case of the first two by TLS, and follows no
//     redirect.
type Manager struct {
	cfg    Config
	cache  *credentials.Cache[key, *grant]
	logins atomic.Uint64
}

// New returns a Manager without tokens.
func New(cfg Config) *Manager {
	if cfg.NMIEndpoint == "" {
		cfg.NMIEndpoint = DefaultNMIEndpoint
	}
	if cfg.LocalHTTPClient == nil {
		cfg.LocalHTTPClient = &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	}
	if cfg.ClientOptions.Transport == nil {
		cfg.ClientOptions.Transport = &http.Client{}
	}
	cfg.LocalHTTPClient = withoutRedirects(cfg.LocalHTTPClient)
	if client, ok := cfg.ClientOptions.Transport.(*http.Client); ok {
		cfg.ClientOptions.Transport = withoutRedirects(client)
	}
	m := &Manager{cfg: cfg}
	m.cache = credentials.New(credentials.Config[key, *grant]{
		Login: m.login, Refused: refused, Passing: passing,
		Max: cfg.MaxSessions, Logger: cfg.Logger, Attrs: key.attrs,
	})
	return m
}

// withoutRedirects returns a client that takes a redirect for an answer: following
// it would take a token or a secret elsewhere.
func withoutRedirects(client *http.Client) *http.Client {
	straight := *client
	straight.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &straight
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

// Drop forgets a token that a vault does not accept any more, so that the next
// Acquire logs in. A newer one of the same identity stays.
func (m *Manager) Drop(t *Token) {
	if t != nil && t.grant != nil {
		m.cache.Drop(t.grant.key, t.grant)
	}
}

// login gets a token. Its errors are of type *Error.
func (m *Manager) login(ctx context.Context, k key, proof sdk.SecretString) (*grant, error) {
	e := newExchange(ctx, k, proof)
	credential, err := m.credential(k, e)
	if err != nil {
		return nil, e.invalid(err)
	}
	defer e.close()
	got, err := credential.GetToken(ctx, policy.TokenRequestOptions{
		Scopes: []string{k.cloud.VaultScope},
		// The SDK keeps tokens of managed identities for the whole process, and does
		// not look there when it is given claims. None are sent.
		Claims: noClaims(k.kind),
	})
	if err != nil {
		return nil, e.failure(err)
	}
	if problem := e.problem(got); problem != "" {
		return nil, &Error{Operation: e.operation, Kind: Unavailable, Message: problem}
	}
	access := sdk.NewSecretString(got.Token)
	return &grant{
		key: k, login: m.logins.Add(1), access: access, tenant: claimsOf(access).Tenant, expires: got.ExpiresOn,
	}, nil
}

func noClaims(k Kind) string {
	if k == ManagedIdentity {
		return "{}"
	}
	return ""
}

// credential returns the SDK's credential, for one login.
func (m *Manager) credential(k key, e *exchange) (azcore.TokenCredential, error) {
	switch k.kind {
	case WorkloadIdentity:
		e.next = m.cfg.ClientOptions.Transport
		return assertionCredential(k, e.options(m.cfg.ClientOptions), e.proof)
	case IdentityBinding:
		transport, err := m.cfg.TokenProxy.transport()
		if err != nil {
			return nil, err
		}
		e.next, e.close = transport, transport.close
		return assertionCredential(k, e.options(m.cfg.ClientOptions), e.proof)
	case ServicePrincipal:
		e.next = m.cfg.ClientOptions.Transport
		return secretCredential(k, e.options(m.cfg.ClientOptions), e.proof)
	case ManagedIdentity:
		return m.managedCredential(k, e)
	case PodIdentity:
		e.next = m.cfg.LocalHTTPClient
		return newPodCredential(m.cfg.NMIEndpoint, k, e.options(m.cfg.ClientOptions)), nil
	default:
		return nil, fmt.Errorf("there is no kind of identity %q", k.kind)
	}
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
