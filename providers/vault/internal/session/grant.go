package session

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/logkey"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// Identity is the full authority that a store sees. Nothing is shared between
// two identities. It is comparable.
type Identity struct {
	// Endpoint: another server, namespace or client certificate is another
	// authority.
	Endpoint store.Endpoint
	// AuthMount and Role decide on the policies.
	AuthMount, Role string
	// Namespace and ServiceAccount are who logs in.
	Namespace, ServiceAccount string
	// Audience: a role may accept one and not another.
	Audience string
	// PodUID is set where the role or its policies depend on the pod.
	PodUID string
}

// Attrs are for log records.
func (id Identity) Attrs() []slog.Attr {
	return []slog.Attr{
		slog.String(logkey.Address, id.Endpoint.Address), slog.String(logkey.Role, id.Role),
		slog.String(logkey.Namespace, id.Namespace), slog.String(logkey.ServiceAccount, id.ServiceAccount),
	}
}

// Digest stands for an identity where it is not to be read. Of TLS only the
// client's certificate is in it: that says who asks, and the rest whom to trust.
func (id Identity) Digest() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []string{
		id.Endpoint.Address, id.Endpoint.Namespace, id.Endpoint.TLS.ClientCert, id.Endpoint.TLS.ClientKey,
		id.AuthMount, id.Role, id.Namespace, id.ServiceAccount, id.Audience, id.PodUID,
	}))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (id Identity) failure(err error) []slog.Attr {
	return append(id.Attrs(), slog.String(logkey.Error, err.Error()))
}

// Use is a volume that uses an identity, and its pod's token.
type Use struct {
	Identity Identity
	VolumeID string
	JWT      sdk.SecretString
	// Expiry is the JWT's, zero if it is not known.
	Expiry time.Time
}

// life is how long a token is valid, as the store said last.
type life struct {
	ttl       time.Duration
	expires   time.Time // zero: never
	renewable bool
}

// Grant is one token of the store, from a login to its end.
type Grant struct {
	identity Identity
	token    sdk.SecretString
	accessor string
	batch    bool
	// full is the first TTL.
	full time.Duration
	life atomic.Pointer[life]
	// leases counts the credentials that end when the token is revoked.
	leases atomic.Int64

	// Below here all is guarded by the Manager's mutex.
	// trials counts the fetches that try it before it is adopted.
	trials  int
	adopted bool
}

// Identity is whose it is.
func (g *Grant) Identity() Identity { return g.identity }

// Token is for requests to the identity's endpoint.
func (g *Grant) Token() sdk.SecretString { return g.token }

// Accessor names the token to those who may not have it; empty for a batch token.
func (g *Grant) Accessor() string { return g.accessor }

// TTL is how long the token is valid at first; zero: for ever.
func (g *Grant) TTL() time.Duration { return g.full }

// Expires is when the token ends unless it is renewed; zero: never.
func (g *Grant) Expires() time.Time { return g.life.Load().expires }

// Hold says that a credential hangs on the token, Unhold that it does no more.
// A token that is held is revoked with its last volume only, not at shutdown.
func (g *Grant) Hold() { g.leases.Add(1) }

// Unhold is the opposite of Hold.
func (g *Grant) Unhold() { g.leases.Add(-1) }

func (g *Grant) held() bool { return g.leases.Load() > 0 }

// set takes over what a login or a renewal said.
func (g *Grant) set(auth store.Auth, now time.Time) {
	l := &life{ttl: auth.TTL, renewable: auth.Renewable}
	if auth.TTL > 0 {
		l.expires = now.Add(auth.TTL)
	}
	g.life.Store(l)
}

// usable reports whether the token will outlive a fetch that begins now: a
// tenth of its life, but at most ten seconds.
func (g *Grant) usable(now time.Time) bool {
	if g == nil {
		return false
	}
	l := g.life.Load()
	return l.expires.IsZero() || l.expires.Sub(now) > min(l.ttl/10, 10*time.Second)
}
