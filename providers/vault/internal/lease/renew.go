package lease

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/schedule"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// retryIn is the longest pause before a renewal is tried again.
const retryIn = time.Minute

// keep has a volume's credential renewed, if that is possible. The mutex is
// held.
func (k *Keeper) keep(volumeID string, c *Credential) {
	if c.kept {
		return
	}
	c.kept = true
	if c.renewing() {
		k.cfg.Loop.Set(c, c.renewIn(time.Now()), func(ctx context.Context) time.Duration {
			return k.renew(ctx, volumeID, c)
		})
	}
}

// renew prolongs a credential, and returns when to do so again.
func (k *Keeper) renew(ctx context.Context, volumeID string, c *Credential) time.Duration {
	k.mu.Lock()
	v, ok := k.volumes[volumeID]
	idle := !ok || k.idle(v)
	k.mu.Unlock()
	if idle {
		return 0
	}
	now := time.Now()
	token, ok := k.tokenOf(c)
	if !ok {
		return k.again(c)
	}
	lease, err := k.cfg.Store.RenewLease(ctx, c.identity.Endpoint, token, c.id)
	switch {
	case err == nil:
		return k.renewed(c, lease, now)
	case store.Refused(err):
		k.mu.Lock()
		c.lease.Renewable, c.reissue = false, now
		k.mu.Unlock()
		k.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "cannot renew a lease: the next fetch gets another", c.attrs(err)...)
		return 0
	}
	k.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot renew a lease, will try again", c.attrs(err)...)
	return k.again(c)
}

// renewed takes over what the store said. Much less than at first: it nears its
// maximum and is replaced next time.
func (k *Keeper) renewed(c *Credential, lease store.Lease, now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	lease.Renewable = lease.Renewable && lease.Duration*2 >= c.first
	c.prolong(lease, now)
	if !lease.Renewable {
		return 0
	}
	return schedule.TwoThirds(lease.Duration)
}

// again returns when to try once more while a credential lives, and zero after.
func (k *Keeper) again(c *Credential) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	left := time.Until(c.expires)
	if left <= 0 {
		return 0
	}
	return min(max(left/4, time.Second), retryIn)
}

// tokenOf is what a credential is renewed and revoked with: the token it was
// issued with or, for one of an earlier process, this one's.
func (k *Keeper) tokenOf(c *Credential) (sdk.SecretString, bool) {
	if c.grant != nil {
		return c.grant.Token(), true
	}
	return k.token(c.identity)
}

// revoke ends a credential, and reports whether that is done: there is nothing
// to do for one without a lease.
func (k *Keeper) revoke(ctx context.Context, c *Credential) bool {
	if !c.leased {
		return true
	}
	token, ok := k.tokenOf(c)
	if !ok {
		return false
	}
	err := k.cfg.Store.RevokeLease(ctx, c.identity.Endpoint, token, c.id)
	if err == nil {
		c.end()
		return true
	}
	if store.Is(err, http.StatusForbidden) {
		k.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "may not revoke a lease: it ends with the login it was issued with; "+
			"allow update on sys/leases/revoke, or set vaultSessionPerPod", c.attrs(err)...)
		return false
	}
	k.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot revoke a lease: it ends with its time to live", c.attrs(err)...)
	return false
}
