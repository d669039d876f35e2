package identity

import (
	"context"
	"log/slog"
	"time"

	"github.com/postern-dev/postern/providers/aws/internal/logkey"
	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/credentials"
)

// Manager keeps the sessions: package credentials says how.
type Manager struct {
	sts, agent source
	sessions   *credentials.Cache[key, *grant]
}

// New returns a Manager without sessions.
func New(cfg Config) *Manager {
	if cfg.AgentTimeout == 0 {
		cfg.AgentTimeout = DefaultAgentTimeout
	}
	m := &Manager{sts: newTokenService(cfg.AWS), agent: newAgent(cfg)}
	m.sessions = credentials.New(credentials.Config[key, *grant]{
		Login: m.login, Refused: refused, Passing: passing,
		// The agent may take its time by both kinds of address.
		LoginTimeout: credentials.DefaultLoginTimeout + 2*cfg.AgentTimeout,
		Max:          cfg.MaxSessions, Logger: cfg.Logger, Attrs: key.attrs,
	})
	return m
}

// Acquire returns credentials of the identity: those it has while they last, or
// else new ones. Who asks at the same time shares a login, and may leave alone.
func (m *Manager) Acquire(ctx context.Context, use Use) (Session, error) {
	if err := use.check(); err != nil {
		return Session{}, err
	}
	grant, cached, err := m.sessions.Acquire(ctx, keyOf(use), use.Token)
	if err != nil {
		return Session{}, err
	}
	return Session{grant: grant, cached: cached}, nil
}

// Drop forgets credentials that AWS does not accept any more, so that the next
// Acquire logs in. Newer ones of the same identity stay.
func (m *Manager) Drop(s Session) {
	if s.grant != nil {
		m.sessions.Drop(s.grant.key, s.grant)
	}
}

// login gets credentials for a token.
func (m *Manager) login(ctx context.Context, k key, token sdk.SecretString) (*grant, error) {
	from := m.sts
	if k.podIdentity {
		from = m.agent
	}
	use := k.use(token)
	got, err := from.credentials(ctx, use)
	if err != nil {
		return nil, err
	}
	g, err := newGrant(k, got, time.Now())
	if err != nil {
		return nil, &Error{Operation: use.operation(), Kind: Unavailable, Message: err.Error()}
	}
	return g, nil
}

// attrs are for log records.
func (k key) attrs() []slog.Attr {
	return []slog.Attr{
		slog.String(logkey.Role, k.role), slog.String(logkey.Region, k.region),
		slog.String(logkey.Namespace, k.namespace), slog.String(logkey.ServiceAccount, k.serviceAccount),
	}
}
