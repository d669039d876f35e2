// Package session keeps the provider's logins: one for each identity, shared by
// the pods that have this identity, renewed while volumes use it and revoked
// when none does.
package session

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/schedule"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// revokeTimeout bounds a revocation in the background.
const revokeTimeout = 10 * time.Second

// Store is what a Manager needs of a store.
type Store interface {
	Login(ctx context.Context, ep store.Endpoint, l store.Login) (store.Auth, error)
	RenewSelf(ctx context.Context, ep store.Endpoint, token sdk.SecretString) (store.Auth, error)
	RevokeSelf(ctx context.Context, ep store.Endpoint, token sdk.SecretString) error
}

// Config is what a Manager needs.
type Config struct {
	Store  Store
	Loop   *schedule.Loop
	Logger *slog.Logger
	// MaxSessions bounds the identities kept; the one not used for longest goes.
	MaxSessions int
	// Idle is after how long without a fetch a session is not renewed any more.
	// It is for volumes whose end nobody announces.
	Idle time.Duration
}

// Manager keeps the sessions.
//
// Its invariants:
//  1. An identity has at most one current grant, and a grant serves one
//     identity only.
//  2. At most one login and one trial are on their way for an identity. A
//     failure is given to those who wait for it, and not kept. But who is refused
//     with tokens of others, twice, has a login of its own: nobody hears of a
//     refusal that is not of its own token.
//  3. The mutex is not held over a call to the store.
//  4. A grant that stops being current is revoked, unless credentials hang on
//     it which pods may still be using: then it is left to expire. Release
//     revokes it in any case.
type Manager struct {
	cfg Config

	mu      sync.Mutex
	entries map[Identity]*entry
	// doomed are grants that wait to be revoked.
	doomed map[*Grant]bool
}

// entry is what is kept for an identity.
type entry struct {
	identity     Identity
	grant        *Grant  // nil before the first login
	login, trial *flight // which others may join
	// flights counts those on their way: with logins of their own, there can be more.
	flights int
	// jwt is the one that lives longest of those seen.
	jwt       sdk.SecretString
	jwtExpiry time.Time
	// volumes use it; the value says whether a fetch has succeeded.
	volumes map[string]bool
	used    time.Time
}

// New returns a Manager without sessions.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg, entries: make(map[Identity]*entry), doomed: make(map[*Grant]bool)}
}

// Acquire returns the identity's grant. cached says that it is from an earlier
// login, so that the store may have forgotten it.
//
// The caller has checked that use.JWT is valid and is the identity's.
func (m *Manager) Acquire(ctx context.Context, use Use) (grant *Grant, cached bool, err error) {
	grant, err = orOwn(func(own bool) (grant *Grant, err error) {
		grant, cached, err = m.acquire(ctx, use, own)
		return grant, err
	})
	return grant, cached, err
}

func (m *Manager) acquire(ctx context.Context, use Use, own bool) (grant *Grant, cached bool, err error) {
	m.mu.Lock()
	e := m.enter(use)
	if grant := e.grant; grant.usable(time.Now()) {
		m.mu.Unlock()
		return grant, true, nil
	}
	grant, err = m.join(ctx, e, &e.login, use, own)
	return grant, false, err
}

// Current returns the identity's grant, if it has one that is valid.
func (m *Manager) Current(id Identity) (*Grant, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[id]
	if !ok || !e.grant.usable(time.Now()) {
		return nil, false
	}
	return e.grant, true
}

// Trial logs in once more, because the store refuses a request with old. The
// caller uses the grant and must then tell by Settle whether it was better.
//
// Until then old stays current: a policy that denies one pod something must not
// end the session, and with it the credentials, of all others.
func (m *Manager) Trial(ctx context.Context, old *Grant, use Use) (*Grant, error) {
	return orOwn(func(own bool) (*Grant, error) { return m.trial(ctx, old, use, own) })
}

func (m *Manager) trial(ctx context.Context, old *Grant, use Use, own bool) (*Grant, error) {
	m.mu.Lock()
	e := m.enter(use)
	if current := e.grant; current != old && current.usable(time.Now()) {
		current.trials++
		m.mu.Unlock()
		return current, nil // another has been there before
	}
	return m.join(ctx, e, &e.trial, use, own)
}

// Settle ends a trial: better makes the grant the current one. One that is not
// better for anybody is revoked.
func (m *Manager) Settle(grant *Grant, better bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	grant.trials--
	if e, ok := m.entries[grant.identity]; ok && better && !grant.adopted {
		m.adopt(e, grant)
	}
	if grant.trials == 0 && !grant.adopted {
		m.doom(grant)
	}
}

// Commit says that a fetch for the volume has succeeded: its session is kept,
// and what the volume used before is not.
func (m *Manager) Commit(identity Identity, volumeID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, e := range m.entries {
		if id == identity {
			e.volumes[volumeID] = true
		} else if _, ok := e.volumes[volumeID]; ok {
			delete(e.volumes, volumeID)
			m.dropUnused(e)
		}
	}
}

// Release forgets a volume, and revokes the session that only it has used.
func (m *Manager) Release(ctx context.Context, volumeID string) {
	m.mu.Lock()
	var last []*Grant
	for _, e := range m.entries {
		if _, ok := e.volumes[volumeID]; !ok {
			continue
		}
		delete(e.volumes, volumeID)
		if len(e.volumes) == 0 && e.flights == 0 {
			m.remove(e)
			if e.grant != nil {
				last = append(last, e.grant)
			}
		}
	}
	m.mu.Unlock()
	for _, grant := range last {
		m.revoke(ctx, grant)
	}
}

// Shutdown revokes all grants, but for those that credentials of running pods
// hang on. ctx bounds it.
func (m *Manager) Shutdown(ctx context.Context) {
	m.mu.Lock()
	var all []*Grant
	for grant := range m.doomed {
		all = append(all, grant)
	}
	for _, e := range m.entries {
		m.remove(e)
		if e.grant != nil && !e.grant.held() {
			all = append(all, e.grant)
		}
	}
	m.mu.Unlock()
	var revocations sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, grant := range all {
		slots <- struct{}{}
		revocations.Go(func() {
			m.revoke(ctx, grant)
			<-slots
		})
	}
	revocations.Wait()
}

// enter notes that a volume uses an identity.
func (m *Manager) enter(use Use) *entry {
	e, ok := m.entries[use.Identity]
	if !ok {
		m.makeRoom()
		e = &entry{identity: use.Identity, volumes: make(map[string]bool)}
		m.entries[use.Identity] = e
	}
	e.used = time.Now()
	if !e.volumes[use.VolumeID] {
		e.volumes[use.VolumeID] = false // until Commit
	}
	if e.jwt.IsZero() || !use.Expiry.Before(e.jwtExpiry) {
		e.jwt, e.jwtExpiry = use.JWT, use.Expiry
	}
	return e
}

// makeRoom drops the session not used for longest, if there are too many: one
// that no credentials hang on, if possible.
func (m *Manager) makeRoom() {
	if len(m.entries) < m.cfg.MaxSessions {
		return
	}
	var victim *entry
	for _, e := range m.entries {
		if e.flights == 0 && (victim == nil || before(e, victim)) {
			victim = e
		}
	}
	if victim != nil {
		m.drop(victim)
	}
}

func before(a, b *entry) bool {
	if held := a.grant != nil && a.grant.held(); held != (b.grant != nil && b.grant.held()) {
		return !held
	}
	return a.used.Before(b.used)
}

func (m *Manager) dropUnused(e *entry) {
	if len(e.volumes) == 0 && e.flights == 0 {
		m.drop(e)
	}
}

// drop forgets an identity.
func (m *Manager) drop(e *entry) {
	m.remove(e)
	m.supersede(e.grant)
}

func (m *Manager) remove(e *entry) {
	delete(m.entries, e.identity)
	m.cfg.Loop.Remove(e)
}

// adopt makes a grant the current one.
func (m *Manager) adopt(e *entry, grant *Grant) {
	old := e.grant
	e.grant, grant.adopted = grant, true
	if old != grant {
		m.supersede(old)
	}
	if ttl := grant.life.Load().ttl; ttl > 0 {
		m.cfg.Loop.Set(e, schedule.TwoThirds(ttl), func(ctx context.Context) time.Duration {
			return m.renew(ctx, e)
		})
	}
}

func (m *Manager) supersede(grant *Grant) {
	if grant != nil && !grant.held() {
		m.doom(grant)
	}
}

// doom has a grant revoked in the background.
func (m *Manager) doom(grant *Grant) {
	if grant.batch {
		return
	}
	m.doomed[grant] = true
	m.cfg.Loop.Set(grant, 0, func(ctx context.Context) time.Duration {
		ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
		defer cancel()
		m.revoke(ctx, grant)
		return 0
	})
}

func (m *Manager) revoke(ctx context.Context, grant *Grant) {
	m.mu.Lock()
	delete(m.doomed, grant)
	m.mu.Unlock()
	if grant.batch {
		return
	}
	err := m.cfg.Store.RevokeSelf(ctx, grant.identity.Endpoint, grant.token)
	if err == nil || store.Refused(err) { // refused: it has ended already
		return
	}
	m.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot revoke a login: it ends with its time to live",
		grant.identity.failure(err)...)
}

func (m *Manager) login(ctx context.Context, use Use) (*Grant, error) {
	id := use.Identity
	now := time.Now()
	auth, err := m.cfg.Store.Login(ctx, id.Endpoint, store.Login{Mount: id.AuthMount, Role: id.Role, JWT: use.JWT})
	if err != nil {
		return nil, err
	}
	grant := &Grant{identity: id, token: auth.Token, accessor: auth.Accessor, batch: auth.Batch, full: auth.TTL}
	grant.set(auth, now)
	m.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "logged in", id.Attrs()...)
	return grant, nil
}
