package identity

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-dev/postern/providers/aws/internal/logkey"
)

// renewalWait is how long a fetch waits for new credentials while those it has
// are still good.
const renewalWait = 5 * time.Second

// Manager keeps the sessions.
//
// Its invariants:
//  1. A session serves one identity only, and is of a login with a token of this
//     identity.
//  2. At most one login is on its way for an identity that somebody waits for. A
//     failure is given to those who wait for it, and not kept; but nobody
//     hears of a refusal that is not of its own token.
//  3. The mutex is not held over a request.
//  4. At most MaxSessions sessions are kept.
type Manager struct {
	cfg        Config
	sts, agent source

	mu      sync.Mutex
	grants  map[key]*grant
	flights map[key]*flight
	// uses counts what is handed out, to tell what was not used for longest.
	uses uint64
}

// New returns a Manager without sessions.
func New(cfg Config) *Manager {
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = DefaultMaxSessions
	}
	if cfg.AgentTimeout == 0 {
		cfg.AgentTimeout = DefaultAgentTimeout
	}
	return &Manager{
		cfg: cfg, sts: newTokenService(cfg.AWS), agent: newAgent(cfg),
		grants: make(map[key]*grant), flights: make(map[key]*flight),
	}
}

// Acquire returns credentials of the identity: those it has while they last, or
// else new ones. Who asks at the same time shares a login, and may leave alone.
//
// A login is refused because of the token it was made with, or because of the
// identity. Which it is cannot be told, and the pod whose token it was may be
// gone by now, and so may be the next. So others try once more, and then with
// their own.
func (m *Manager) Acquire(ctx context.Context, use Use) (Session, error) {
	if err := use.check(); err != nil {
		return Session{}, err
	}
	session, err := m.acquire(ctx, use, false)
	for _, own := range []bool{false, true} {
		if _, ok := errors.AsType[*othersError](err); ok {
			session, err = m.acquire(ctx, use, own)
		}
	}
	if others, ok := errors.AsType[*othersError](err); ok {
		err = others.err
	}
	return session, err
}

func (m *Manager) acquire(ctx context.Context, use Use, own bool) (Session, error) {
	k := keyOf(use)
	m.mu.Lock()
	old := m.grants[k]
	if old.fresh(time.Now()) {
		m.touch(old)
		m.mu.Unlock()
		return Session{grant: old, cached: true}, nil
	}
	f := m.join(ctx, k, use, own)
	m.mu.Unlock()

	waiting, cancel := ctx, func() {}
	if old.lasts(time.Now()) {
		waiting, cancel = context.WithTimeout(ctx, renewalWait)
	}
	defer cancel()
	grant, err := m.wait(waiting, k, f)
	switch {
	case err == nil:
		return Session{grant: grant}, nil
	case ctx.Err() == nil && passing(err) && old.lasts(time.Now()):
		m.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot get new credentials, will go on with those that expire soon",
			append(k.attrs(), slog.String(logkey.Error, err.Error()))...)
		return Session{grant: old, cached: true}, nil
	case refused(err) && f.token != use.Token:
		return Session{}, &othersError{err}
	default:
		return Session{}, err
	}
}

// Drop forgets credentials that AWS does not accept any more, so that the next
// Acquire logs in. Newer ones of the same identity stay.
func (m *Manager) Drop(s Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.grant != nil && m.grants[s.grant.key] == s.grant {
		delete(m.grants, s.grant.key)
	}
}

// keep makes a grant its identity's. What has expired goes, and if there are still
// too many, the one not used for longest.
func (m *Manager) keep(g *grant) {
	delete(m.grants, g.key)
	now := time.Now()
	var oldest *grant
	for k, other := range m.grants {
		switch {
		case !other.lasts(now):
			delete(m.grants, k)
		case oldest == nil || other.used < oldest.used:
			oldest = other
		}
	}
	if oldest != nil && len(m.grants) >= m.cfg.MaxSessions {
		delete(m.grants, oldest.key)
	}
	m.grants[g.key] = g
	m.touch(g)
}

func (m *Manager) touch(g *grant) {
	m.uses++
	g.used = m.uses
}

// login gets credentials for a token.
func (m *Manager) login(ctx context.Context, use Use) (*grant, error) {
	from := m.sts
	if use.PodIdentity {
		from = m.agent
	}
	k := keyOf(use)
	credentials, err := from.credentials(ctx, use)
	if err != nil {
		return nil, err
	}
	g, err := newGrant(k, credentials, time.Now())
	if err != nil {
		return nil, &Error{Operation: use.operation(), Kind: Unavailable, Message: err.Error()}
	}
	m.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "logged in", k.attrs()...)
	return g, nil
}

// attrs are for log records.
func (k key) attrs() []slog.Attr {
	return []slog.Attr{
		slog.String(logkey.Role, k.role), slog.String(logkey.Region, k.region),
		slog.String(logkey.Namespace, k.namespace), slog.String(logkey.ServiceAccount, k.serviceAccount),
	}
}
