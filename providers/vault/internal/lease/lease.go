// Package lease keeps the credentials that were issued for volumes: they are
// given again while they are valid, renewed while the volume is mounted and
// revoked when it is gone.
//
// What an earlier process was given is gone on with: state.go says how.
package lease

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/schedule"
	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// maxRetired bounds the credentials of a volume that were replaced. Whoever
// still uses one that was replaced so often has not read its file for long.
const maxRetired = 4

// Store is what a Keeper needs of a store.
type Store interface {
	RenewLease(ctx context.Context, ep store.Endpoint, token sdk.SecretString, id string) (store.Lease, error)
	LookupLease(ctx context.Context, ep store.Endpoint, token sdk.SecretString, id string) (store.Lease, error)
	RevokeLease(ctx context.Context, ep store.Endpoint, token sdk.SecretString, id string) error
	RenewAccessor(ctx context.Context, ep store.Endpoint, token sdk.SecretString, accessor string) (time.Duration, error)
}

// Sessions knows the logins of this process.
type Sessions interface {
	Current(id session.Identity) (*session.Grant, bool)
}

// Config is what a Keeper needs.
type Config struct {
	Store    Store
	Sessions Sessions
	Loop     *schedule.Loop
	Logger   *slog.Logger
	// Idle is after how long without a fetch a volume's leases are not renewed
	// any more. It is for volumes whose end nobody announces.
	Idle time.Duration
}

// Keeper keeps credentials, in memory only.
//
// Its invariants:
//  1. A credential belongs to one volume and is given to no other.
//  2. It is given again only to the identity it was issued for and, if it has a
//     lease, only while the login it was issued with lives: they end together.
//  3. A credential that is replaced is not revoked before its volume is
//     released: pods may still be using it. It is not renewed either, and there
//     are at most maxRetired of them; the oldest goes.
//  4. What is issued for a volume while it is released is not kept.
type Keeper struct {
	cfg Config

	mu      sync.Mutex
	volumes map[string]*volume
	visits  map[*Visit]struct{}
	// formers are the logins of earlier processes that leases hang on.
	formers map[formerKey]*former
}

type volume struct {
	current map[string]*Credential
	retired []*Credential // the oldest first
	used    time.Time
}

// New returns a Keeper without credentials.
func New(cfg Config) *Keeper {
	return &Keeper{
		cfg: cfg, volumes: make(map[string]*volume), visits: make(map[*Visit]struct{}), formers: make(map[formerKey]*former),
	}
}

// Discard revokes credentials that no volume has, and returns those that could
// not be revoked.
func (k *Keeper) Discard(ctx context.Context, credentials []*Credential) (left []*Credential) {
	var (
		revocations sync.WaitGroup
		mu          sync.Mutex
	)
	for _, c := range credentials {
		revocations.Go(func() {
			if k.revoke(ctx, c) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			left = append(left, c)
		})
	}
	revocations.Wait()
	return left
}

// Release revokes all that the volume has, and what is being issued for it.
func (k *Keeper) Release(ctx context.Context, volumeID string) {
	k.mu.Lock()
	for visit := range k.visits {
		visit.released = visit.released || visit.volumeID == volumeID
	}
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
	for _, c := range k.Discard(ctx, all) {
		c.end()
	}
}

// Idle is after how long without a fetch leases are not renewed any more.
func (k *Keeper) Idle() time.Duration { return k.cfg.Idle }

// idle reports whether nobody has fetched for a volume for long.
func (k *Keeper) idle(v *volume) bool { return time.Since(v.used) > k.cfg.Idle }

// sweep forgets volumes whose end nobody announced, once nothing that they
// have is valid any more.
func (k *Keeper) sweep() {
	now := time.Now()
	for volumeID, v := range k.volumes {
		v.retired = ended(v.retired, now)
		if !k.idle(v) {
			continue
		}
		for key, c := range v.current {
			if c.over(now) {
				k.cfg.Loop.Remove(c)
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
		if c.over(now) {
			c.end()
		} else {
			left = append(left, c)
		}
	}
	return left
}

// retire puts a credential among those that were replaced. The mutex is held.
func (k *Keeper) retire(v *volume, c *Credential) {
	k.cfg.Loop.Remove(c)
	v.retired = append(ended(v.retired, time.Now()), c)
	for len(v.retired) > maxRetired {
		oldest := v.retired[0]
		v.retired = v.retired[1:]
		k.cfg.Loop.Set(oldest, 0, func(ctx context.Context) time.Duration {
			for _, c := range k.Discard(ctx, []*Credential{oldest}) {
				c.end()
			}
			return 0
		})
	}
}
