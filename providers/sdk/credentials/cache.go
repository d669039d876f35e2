// Package credentials keeps what stores give for the tokens of pods: one
// credential for each identity, shared by the pods that have it, until shortly
// before it expires.
//
// A provider says what an identity is, a comparable type with all that decides on
// what a credential may do, and how to log in:
//
//	cache := credentials.New(credentials.Config[identity, *session]{
//		Login:   p.login,
//		Refused: func(err error) bool { return errors.Is(err, errDenied) },
//		Passing: func(err error) bool { return errors.Is(err, errUnavailable) },
//		Logger:  env.Logger,
//	})
//
// and then acquires a credential in each fetch, with the token of the fetch's own
// pod. Before that it checks the token, as [sdk.Request.PodToken] does: a
// credential that is there is given without a look at it.
//
// Nothing is done in the background but logins that have been asked for, and those
// end by a timeout. Credentials that are renewed, or have to be revoked, are not
// for this package.
package credentials

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/providers/sdk"
)

// What Config has unless it says something else.
const (
	// DefaultMax is more identities than the pods of a node have.
	DefaultMax = 1000
	// DefaultLoginTimeout is for a login and the attempts within it.
	DefaultLoginTimeout = 30 * time.Second
)

// renewalWait is how long fetches wait for a login while the credential that they
// have still lasts.
const renewalWait = 5 * time.Second

// Credential is what a login gives. It does not change. Two are equal (==) only if
// they are of one login: a pointer is a good choice.
type Credential interface {
	comparable
	// Expires is when it ends. What has ended as it arrives, and the zero time, is
	// given to those who wait for it and not kept.
	Expires() time.Time
}

// Config is what a Cache needs. Only Login has to be there.
type Config[K comparable, C Credential] struct {
	// Login gets a credential of an identity for the token of a pod that has it. It
	// ends with its context.
	Login func(ctx context.Context, identity K, token sdk.SecretString) (C, error)
	// Refused reports whether the store's answer to a login was no: because of the
	// token that it was made with, or because of the identity. Nil: it never is.
	Refused func(error) bool
	// Passing reports whether a login failed for a reason that says nothing of the
	// identity, such as an outage. A credential that still lasts then serves on.
	// Nil: none does.
	Passing func(error) bool
	// LoginTimeout bounds a login; zero: DefaultLoginTimeout.
	LoginTimeout time.Duration
	// Max bounds the identities whose credentials are kept, the one not used for
	// longest goes; zero: DefaultMax.
	Max int
	// Logger is told of logins. Nil: nobody is.
	Logger *slog.Logger
	// Attrs are an identity's in log records. Nil: none.
	Attrs func(K) []slog.Attr
}

// Cache keeps credentials. It is safe for concurrent use.
//
// Its invariants:
//  1. A credential serves one identity only, and is of a login with a token of a
//     pod that has this identity.
//  2. Of one identity at most one login can be joined. Others may be on their way:
//     those that were overtaken by a login with another token or by a Drop.
//  3. A failure is given to those who wait for it, and not kept. Nobody hears of a
//     refusal that is not of its own token.
//  4. A caller leaves as soon as its own context ends. When the last one has left,
//     the login is cancelled, and what it gives is not kept. Who goes on with what
//     is kept has not left: the next to come wants the new one.
//  5. A login that was overtaken is kept if it lasts longer than what is kept, but
//     not if it began before a Drop.
//  6. At most Max credentials are kept, and of one identity at most one.
//  7. mu guards all below it. It is not held over a login.
type Cache[K comparable, C Credential] struct {
	cfg Config[K, C]

	mu   sync.Mutex
	kept map[K]*entry[C]
	// flights are those that can be joined.
	flights map[K]*flight[C]
	// uses counts what is handed out, to tell what was not used for longest.
	uses uint64
	// drops counts the Drops of all identities.
	drops uint64
}

// New returns a Cache that keeps nothing yet.
func New[K comparable, C Credential](cfg Config[K, C]) *Cache[K, C] {
	if cfg.Refused == nil {
		cfg.Refused = func(error) bool { return false }
	}
	if cfg.Passing == nil {
		cfg.Passing = func(error) bool { return false }
	}
	if cfg.LoginTimeout <= 0 {
		cfg.LoginTimeout = DefaultLoginTimeout
	}
	if cfg.Max <= 0 {
		cfg.Max = DefaultMax
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Attrs == nil {
		cfg.Attrs = func(K) []slog.Attr { return nil }
	}
	return &Cache[K, C]{cfg: cfg, kept: make(map[K]*entry[C]), flights: make(map[K]*flight[C])}
}

// Acquire returns a credential of the identity: the one that is kept while it is
// good, or else that of a login. Who asks at the same time shares a login, and may
// leave alone. cached says that it is of an earlier login, so that the store may
// have ended it since: then see Drop.
//
// The caller has checked that the token is of a pod with this identity. Where the
// store wants none, it is the zero SecretString.
//
// A login is refused because of the token it was made with, or because of the
// identity. Which it is cannot be told, and the pod whose token it was may be gone
// by now, and so may be the next. So others try once more, and then with their own.
//
// The error is that of Login, or ctx's, or an [*sdk.Error] where Login panicked.
func (c *Cache[K, C]) Acquire(ctx context.Context, identity K, token sdk.SecretString) (credential C, cached bool, err error) {
	for _, own := range []bool{false, false, true} {
		got := c.acquire(ctx, request[K]{identity, token, own})
		credential, cached, err = got.credential, got.cached, got.err
		if !got.others {
			break
		}
	}
	return credential, cached, err
}

// Drop forgets a credential that the store does not accept any more, so that the
// next Acquire logs in. A newer one of the same identity stays.
func (c *Cache[K, C]) Drop(identity K, credential C) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.kept[identity]; ok && e.credential == credential {
		delete(c.kept, identity)
		// A login on its way may be older than what has ended the credential.
		delete(c.flights, identity)
		c.drops++
	}
}

// goOn gives what is kept of an identity, if that is good for a fetch that begins
// now, although it expires soon and there is no other.
func (c *Cache[K, C]) goOn(ctx context.Context, identity K, why error) (credential C, ok bool) {
	c.mu.Lock()
	e, now := c.kept[identity], time.Now()
	if !e.lasts(now) {
		c.mu.Unlock()
		return credential, false
	}
	c.touch(e)
	c.mu.Unlock()
	if !e.fresh(now) {
		c.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot get new credentials, will go on with those that expire soon",
			c.attrs(identity, slog.String(logkey.Error, why.Error()))...)
	}
	return e.credential, true
}

// keep makes an entry its identity's, if it can be used. What has expired goes, and
// if there are still too many, the one not used for longest.
func (c *Cache[K, C]) keep(identity K, e *entry[C]) {
	now := time.Now()
	if !e.lasts(now) {
		return
	}
	delete(c.kept, identity)
	var (
		oldest *entry[C]
		whose  K
	)
	for k, other := range c.kept {
		switch {
		case !other.lasts(now):
			delete(c.kept, k)
		case oldest == nil || other.used < oldest.used:
			oldest, whose = other, k
		}
	}
	if oldest != nil && len(c.kept) >= c.cfg.Max {
		delete(c.kept, whose)
	}
	c.kept[identity] = e
	c.touch(e)
}

func (c *Cache[K, C]) touch(e *entry[C]) {
	c.uses++
	e.used = c.uses
}

// attrs are for log records about an identity.
func (c *Cache[K, C]) attrs(identity K, more ...slog.Attr) []slog.Attr {
	return slices.Concat(c.cfg.Attrs(identity), more)
}
