package lease

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/logkey"
	"github.com/postern-dev/postern/providers/vault/internal/schedule"
	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// former is a login of an earlier process. Leases that were issued with it end
// with it, whoever renews them. Its token is gone; where the policy allows it,
// it is prolonged by its accessor. The Keeper's mutex guards it.
type former struct {
	key formerKey
	// expires is when it ends, zero: never. ttl is what the last renewal gave,
	// zero if it cannot be renewed.
	expires time.Time
	ttl     time.Duration
	// until is until when what hangs on it is given again; zero: for ever.
	until time.Time
}

type formerKey struct {
	identity session.Identity
	accessor string
}

// never is longer than anything that is waited for.
const never = time.Duration(math.MaxInt64)

func (f *former) lasts(now time.Time) bool { return f.until.IsZero() || now.Before(f.until) }

// refreshIn is when to fetch again for its sake, at the latest.
func (f *former) refreshIn(now time.Time) time.Duration {
	switch {
	case f.until.IsZero():
		return never
	case f.ttl > 0:
		return f.ttl / 4
	default:
		return f.until.Sub(now)
	}
}

// prolonged takes over what a renewal gave. Much less than the last time: it
// nears its maximum, and what hangs on it is replaced in time.
func (f *former) prolonged(ttl time.Duration, now time.Time) {
	if ttl == 0 {
		f.expires, f.until, f.ttl = time.Time{}, time.Time{}, 0
		return
	}
	f.expires = now.Add(ttl)
	if f.ttl > 0 && ttl*2 < f.ttl {
		f.abandoned(now)
		return
	}
	f.ttl, f.until = ttl, f.expires.Add(-ttl/10)
}

// abandoned says that nothing prolongs it: what hangs on it is replaced at two
// thirds of what is left.
func (f *former) abandoned(now time.Time) {
	f.ttl = 0
	if !f.expires.IsZero() {
		f.until = now.Add(f.expires.Sub(now) * 2 / 3)
	}
}

// follow returns the former login of this key, and goes on with it if it is the
// first time that this process hears of it.
func (k *Keeper) follow(ctx context.Context, key formerKey, expires time.Time) *former {
	k.mu.Lock()
	if f, ok := k.formers[key]; ok {
		k.mu.Unlock()
		return f
	}
	f := &former{key: key, expires: expires}
	f.abandoned(time.Now())
	k.formers[key] = f
	k.mu.Unlock()
	k.schedule(f, k.prolong(ctx, f))
	return f
}

func (k *Keeper) schedule(f *former, after time.Duration) {
	if after <= 0 {
		return
	}
	k.cfg.Loop.Set(f, after, func(ctx context.Context) time.Duration {
		if !k.wanted(f) {
			return 0
		}
		return k.prolong(ctx, f)
	})
}

// wanted reports whether a lease of a mounted volume hangs on a former login. It
// forgets one that is not wanted.
func (k *Keeper) wanted(f *former) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range k.volumes {
		if k.idle(v) {
			continue
		}
		for _, c := range v.current {
			if c.former == f {
				return true
			}
		}
	}
	delete(k.formers, f.key)
	return false
}

// prolong renews a former login and returns when to do so again.
func (k *Keeper) prolong(ctx context.Context, f *former) time.Duration {
	if f.key.accessor == "" {
		return 0 // a batch token's life is what it is
	}
	token, ok := k.token(f.key.identity)
	if !ok {
		return retryIn
	}
	now := time.Now()
	ttl, err := k.cfg.Store.RenewAccessor(ctx, f.key.identity.Endpoint, token, f.key.accessor)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		f.prolonged(ttl, now)
		if f.ttl == 0 {
			return 0
		}
		return schedule.TwoThirds(ttl)
	case store.Refused(err):
		f.abandoned(now)
		k.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "cannot renew the login of an earlier process: the credentials that were issued "+
			"with it are replaced before it ends; allow update on auth/token/renew-accessor, or give the role a longer token_ttl",
			append(f.key.identity.Attrs(), slog.String(logkey.Error, err.Error()))...)
		return 0
	}
	k.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot renew the login of an earlier process, will try again",
		append(f.key.identity.Attrs(), slog.String(logkey.Error, err.Error()))...)
	return retryIn
}

// token is that of this process's login.
func (k *Keeper) token(id session.Identity) (sdk.SecretString, bool) {
	grant, ok := k.cfg.Sessions.Current(id)
	if !ok {
		return sdk.SecretString{}, false
	}
	return grant.Token(), true
}
