// Package lease keeps the credentials that were issued for volumes: they are
// given again while they are valid, renewed while the volume is mounted and
// revoked when it is gone.
package lease

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/logkey"
	"github.com/postern-dev/postern/providers/vault/internal/schedule"
	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// Store is what a Keeper needs of a store.
type Store interface {
	RenewLease(ctx context.Context, ep store.Endpoint, token sdk.SecretString, id string) (store.Lease, error)
	RevokeLease(ctx context.Context, ep store.Endpoint, token sdk.SecretString, id string) error
}

// Config is what a Keeper needs.
type Config struct {
	Store  Store
	Loop   *schedule.Loop
	Logger *slog.Logger
	// Idle is after how long without a fetch a volume's leases are not renewed
	// any more. It is for volumes whose end nobody announces.
	Idle time.Duration
}

// Keeper keeps credentials, in memory only.
//
// Its invariants:
//  1. A credential belongs to one volume and is given to no other.
//  2. It is given again only to the identity it was issued for and, if it has a
//     lease, only while the token it was issued with is current: they end
//     together.
//  3. A credential that is replaced is not revoked before its volume is
//     released: pods may still be using it. It is not renewed either.
type Keeper struct {
	cfg Config

	mu      sync.Mutex
	volumes map[string]*volume
}

type volume struct {
	current map[string]*Credential
	retired []*Credential
	used    time.Time
}

// Credential is an answer that was issued for a volume.
type Credential struct {
	Answer *store.Answer
	grant  *session.Grant
	id     string
	first  time.Duration

	// The Keeper's mutex guards the rest.
	lease   store.Lease
	expires time.Time
	// reissue is when to get another; a renewal moves it.
	reissue time.Time
}

// New returns a Keeper without credentials.
func New(cfg Config) *Keeper { return &Keeper{cfg: cfg, volumes: make(map[string]*volume)} }

// NewCredential makes a Credential of an answer, or returns nil if nothing was
// issued with it whose life is known. Besides leases these are certificates,
// which say when they expire; a read of those issues nothing.
func NewCredential(answer *store.Answer, grant *session.Grant, readOnly bool) *Credential {
	now := time.Now()
	c := &Credential{Answer: answer, grant: grant, id: answer.LeaseID(), lease: answer.Lease()}
	if c.id == "" {
		expires, ok := answer.Expiration()
		if !ok || readOnly || !expires.After(now) {
			return nil
		}
		c.lease = store.Lease{Duration: expires.Sub(now)}
	} else {
		grant.Hold()
	}
	c.first = c.lease.Duration
	c.prolong(c.lease, now)
	return c
}

func (c *Credential) prolong(lease store.Lease, now time.Time) {
	c.lease, c.expires = lease, now.Add(lease.Duration)
	c.reissue = now.Add(lease.Duration * 2 / 3)
}

func (c *Credential) renewing() bool { return c.id != "" && c.lease.Renewable }

// end is to be called once, when the credential is given up.
func (c *Credential) end() {
	if c.id != "" {
		c.grant.Unhold()
	}
}

// Get returns the volume's credential for key, if it can be given again to who
// has grant.
func (k *Keeper) Get(volumeID, key string, grant *session.Grant) (*Credential, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.volumes[volumeID]
	if !ok {
		return nil, false
	}
	v.used = time.Now()
	c, ok := v.current[key]
	if !ok || c.grant.Identity() != grant.Identity() || (c.id != "" && c.grant != grant) {
		return nil, false
	}
	if c.renewing() { // a renewal may be a little late
		return c, v.used.Before(c.expires.Add(-c.lease.Duration / 10))
	}
	return c, v.used.Before(c.reissue)
}

// Lease says how long a credential is valid from now, whether that is
// prolonged, and when to fetch again, at the latest.
func (k *Keeper) Lease(c *Credential) (lease store.Lease, refresh time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	left := store.Lease{Duration: max(c.expires.Sub(now), 0), Renewable: c.renewing()}
	return left, max(c.reissue.Sub(now), 0)
}

// Commit makes these the volume's credentials, by key.
func (k *Keeper) Commit(volumeID string, credentials map[string]*Credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweep()
	v, ok := k.volumes[volumeID]
	if !ok {
		if len(credentials) == 0 {
			return
		}
		v = &volume{}
		k.volumes[volumeID] = v
	}
	for key, c := range v.current {
		if credentials[key] != c {
			k.cfg.Loop.Remove(c)
			v.retired = append(v.retired, c)
		}
	}
	for key, c := range credentials {
		if v.current[key] != c && c.renewing() {
			k.cfg.Loop.Set(c, schedule.TwoThirds(c.lease.Duration), func(ctx context.Context) time.Duration {
				return k.renew(ctx, volumeID, c)
			})
		}
	}
	v.current, v.used = credentials, time.Now()
}

// Discard revokes credentials that were issued but not committed. Keys of the
// map do not matter.
func (k *Keeper) Discard(ctx context.Context, credentials []*Credential) {
	var revocations sync.WaitGroup
	for _, c := range credentials {
		revocations.Go(func() { k.revoke(ctx, c) })
	}
	revocations.Wait()
}

// Release revokes all that the volume has.
func (k *Keeper) Release(ctx context.Context, volumeID string) {
	k.mu.Lock()
	v, ok := k.volumes[volumeID]
	delete(k.volumes, volumeID)
	k.mu.Unlock()
	if !ok {
		return
	}
	all := v.retired
	for _, c := range v.current {
		all = append(all, c)
	}
	for _, c := range all {
		k.cfg.Loop.Remove(c)
	}
	k.Discard(ctx, all)
}

func (k *Keeper) revoke(ctx context.Context, c *Credential) {
	if c.id == "" {
		return
	}
	defer c.end()
	id := c.grant.Identity()
	err := k.cfg.Store.RevokeLease(ctx, id.Endpoint, c.grant.Token(), c.id)
	if err == nil {
		return
	}
	if store.Is(err, http.StatusForbidden) {
		k.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "may not revoke a lease: it ends with the login it was issued with; "+
			"allow update on sys/leases/revoke, or set vaultSessionPerPod", c.attrs(err)...)
		return
	}
	k.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot revoke a lease: it ends with its time to live", c.attrs(err)...)
}

// renew prolongs a credential, and returns when to do so again.
func (k *Keeper) renew(ctx context.Context, volumeID string, c *Credential) time.Duration {
	k.mu.Lock()
	v, ok := k.volumes[volumeID]
	idle := !ok || time.Since(v.used) > k.cfg.Idle
	k.mu.Unlock()
	if idle {
		return 0
	}
	id := c.grant.Identity()
	now := time.Now()
	lease, err := k.cfg.Store.RenewLease(ctx, id.Endpoint, c.grant.Token(), c.id)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		// Much less than at first: it nears its maximum and is replaced next time.
		lease.Renewable = lease.Renewable && lease.Duration*2 >= c.first
		c.prolong(lease, now)
		if !lease.Renewable {
			return 0
		}
		return schedule.TwoThirds(lease.Duration)
	case store.Refused(err):
		c.lease.Renewable, c.reissue = false, now
		k.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "cannot renew a lease: the next fetch gets another", c.attrs(err)...)
		return 0
	}
	k.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot renew a lease, will try again", c.attrs(err)...)
	left := time.Until(c.expires)
	if left <= 0 {
		return 0
	}
	return min(max(left/4, time.Second), time.Minute)
}

// sweep forgets volumes whose end nobody announced, once nothing that they
// have is valid any more.
func (k *Keeper) sweep() {
	now := time.Now()
	for volumeID, v := range k.volumes {
		v.retired = ended(v.retired, now)
		if now.Sub(v.used) < k.cfg.Idle {
			continue
		}
		for key, c := range v.current {
			if now.After(c.expires) {
				c.end()
				delete(v.current, key)
			}
		}
		if len(v.current) == 0 && len(v.retired) == 0 {
			delete(k.volumes, volumeID)
		}
	}
}

func ended(credentials []*Credential, now time.Time) []*Credential {
	var left []*Credential
	for _, c := range credentials {
		if now.After(c.expires) {
			c.end()
		} else {
			left = append(left, c)
		}
	}
	return left
}

// attrs say whose credential it is, without the lease's id.
func (c *Credential) attrs(err error) []slog.Attr {
	return append(c.grant.Identity().Attrs(), slog.String(logkey.Error, err.Error()))
}

// Idle is after how long without a fetch leases are not renewed any more.
func (k *Keeper) Idle() time.Duration { return k.cfg.Idle }
