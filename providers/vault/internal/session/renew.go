package session

import (
	"context"
	"log/slog"
	"time"

	"github.com/postern-dev/postern/providers/vault/internal/schedule"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// renew prolongs an identity's grant, or replaces it where it cannot be
// prolonged, and returns when to do so again. A session that no volume uses is
// dropped instead.
func (m *Manager) renew(ctx context.Context, e *entry) time.Duration {
	m.mu.Lock()
	grant := e.grant
	if m.entries[e.identity] != e || grant == nil {
		m.mu.Unlock()
		return 0
	}
	if !m.wanted(e) {
		m.drop(e)
		m.mu.Unlock()
		return 0
	}
	m.mu.Unlock()
	if !grant.life.Load().renewable {
		return m.relogin(ctx, e, grant)
	}
	now := time.Now()
	auth, err := m.cfg.Store.RenewSelf(ctx, e.identity.Endpoint, grant.token)
	switch {
	case err == nil:
		return m.renewed(grant, auth, now)
	case store.Refused(err):
		return m.relogin(ctx, e, grant)
	default:
		m.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot renew a login, will try again", e.identity.failure(err)...)
		return m.retry(grant)
	}
}

// wanted reports whether a mounted volume uses the session.
func (m *Manager) wanted(e *entry) bool {
	if e.flights > 0 {
		return true
	}
	mounted := false
	for _, committed := range e.volumes {
		mounted = mounted || committed
	}
	return mounted && time.Since(e.used) < m.cfg.Idle
}

// renewed takes over what the store said. A token that gets much less than it
// had at first nears its maximum: it is replaced next time.
func (m *Manager) renewed(grant *Grant, auth store.Auth, now time.Time) time.Duration {
	auth.Renewable = auth.Renewable && auth.TTL*2 >= grant.full
	grant.set(auth, now)
	if auth.TTL == 0 {
		return 0
	}
	return schedule.TwoThirds(auth.TTL)
}

// relogin replaces a grant, with the newest of the pods' tokens. If that has
// expired, the next fetch brings another.
func (m *Manager) relogin(ctx context.Context, e *entry, grant *Grant) time.Duration {
	m.mu.Lock()
	use := Use{Identity: e.identity, JWT: e.jwt, Expiry: e.jwtExpiry}
	if !use.Expiry.IsZero() && !time.Now().Before(use.Expiry) {
		m.mu.Unlock()
		return m.retry(grant)
	}
	if _, err := m.join(ctx, e, &e.login, use, false); err != nil {
		m.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot log in again, will try again", e.identity.failure(err)...)
		return m.retry(grant)
	}
	return 0 // the new grant has its own time
}

// retry returns when to try again while the grant lives, and zero after.
func (m *Manager) retry(grant *Grant) time.Duration {
	left := time.Until(grant.Expires())
	if left <= 0 {
		return 0
	}
	return min(max(left/4, time.Second), time.Minute)
}
