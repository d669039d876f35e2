package lease

import (
	"crypto/rand"
	"log/slog"
	"time"

	"github.com/postern-dev/postern/providers/vault/internal/logkey"
	"github.com/postern-dev/postern/providers/vault/internal/schedule"
	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// Credential is an answer that was issued for a volume.
type Credential struct {
	// Answer is nil if it was given to an earlier process, which is gone.
	Answer *store.Answer

	id       string
	leased   bool
	identity session.Identity
	first    time.Duration
	// A lease hangs on one of these: it ends with that login.
	grant  *session.Grant
	former *former

	// The Keeper's mutex guards the rest.
	lease   store.Lease
	expires time.Time
	// reissue is when to get another; a renewal moves it.
	reissue time.Time
	// kept says that a volume has it, so that it is renewed.
	kept bool
}

// NewCredential makes a Credential of an answer, or returns nil if nothing was
// issued with it whose life is known. Besides leases these are certificates,
// which say when they expire; a read of those issues nothing.
func NewCredential(answer *store.Answer, grant *session.Grant, readOnly bool) *Credential {
	now := time.Now()
	c := &Credential{
		Answer: answer, id: answer.LeaseID(), leased: answer.LeaseID() != "",
		identity: grant.Identity(), grant: grant, lease: answer.Lease(),
	}
	if c.leased {
		grant.Hold()
	} else {
		expires, ok := answer.Expiration()
		if !ok || readOnly || !expires.After(now) {
			return nil
		}
		c.id, c.lease = rand.Text(), store.Lease{Duration: expires.Sub(now)}
	}
	c.first = c.lease.Duration
	c.prolong(c.lease, now)
	return c
}

// ID tells credentials apart: two of one id are the same answer.
func (c *Credential) ID() string { return c.id }

func (c *Credential) prolong(lease store.Lease, now time.Time) {
	c.lease, c.expires = lease, now.Add(lease.Duration)
	c.reissue = now.Add(lease.Duration * 2 / 3)
}

func (c *Credential) renewing() bool { return c.leased && c.lease.Renewable }

// renewIn is when to renew it: at two thirds of its life.
func (c *Credential) renewIn(now time.Time) time.Duration {
	passed := c.lease.Duration - c.expires.Sub(now)
	return max(schedule.TwoThirds(c.lease.Duration)-passed, 0)
}

// serves reports whether it can be given again to who has grant.
func (c *Credential) serves(grant *session.Grant, now time.Time) bool {
	switch {
	case c.identity != grant.Identity():
		return false
	case c.leased && c.former == nil && c.grant != grant:
		return false // the login that it hangs on is not renewed any more
	case c.former != nil && !c.former.lasts(now):
		return false
	case c.renewing(): // a renewal may be a little late
		return now.Before(c.expires.Add(-c.lease.Duration / 10))
	default:
		return now.Before(c.reissue)
	}
}

// over reports whether it is not valid any more.
func (c *Credential) over(now time.Time) bool {
	if now.After(c.expires) {
		return true
	}
	ends, ok := c.loginEnds()
	return ok && now.After(ends)
}

// loginEnds is when the login that a lease hangs on ends, if that is known.
func (c *Credential) loginEnds() (time.Time, bool) {
	var ends time.Time
	switch {
	case !c.leased:
	case c.former != nil:
		ends = c.former.expires
	default:
		ends = c.grant.Expires()
	}
	return ends, !ends.IsZero()
}

// refreshIn is when to fetch again at the latest: before it has to be replaced
// and, if it is renewed, before it can have ended because this process has.
// What is renewed at two thirds has a third left then.
func (c *Credential) refreshIn(now time.Time) time.Duration {
	if !c.leased {
		return c.reissue.Sub(now)
	}
	in := c.reissue.Sub(now)
	if c.renewing() {
		in = c.first / 4
	}
	if c.former != nil {
		return min(in, c.former.refreshIn(now))
	}
	if ttl := c.grant.TTL(); ttl > 0 {
		in = min(in, ttl/4)
	}
	return in
}

// end is to be called once, when the credential is given up.
func (c *Credential) end() {
	if c.leased && c.former == nil {
		c.grant.Unhold()
	}
}

// attrs say whose credential it is, without the lease's id.
func (c *Credential) attrs(err error) []slog.Attr {
	return append(c.identity.Attrs(), slog.String(logkey.Error, err.Error()))
}
