package credentials

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/providers/sdk"
)

// errSlow is why a fetch goes on with what it has.
var errSlow = errors.New("the login takes long")

// request is one call of Acquire.
type request[K comparable] struct {
	identity K
	token    sdk.SecretString
	// own asks for a login with this token.
	own bool
}

// outcome is what it came to. others says that err is a refusal of another pod's
// token.
type outcome[C Credential] struct {
	credential     C
	cached, others bool
	err            error
}

// flight is a login on its way, which several fetches wait for. The Cache's mutex
// guards the waiters; entry and err do not change once done is closed, the rest
// never.
type flight[C Credential] struct {
	// token is that of the pod that began it, and drops what the Cache had counted.
	token sdk.SecretString
	drops uint64
	began time.Time
	// over is closed when the login is to end, done when it has ended.
	over   <-chan struct{}
	done   chan struct{}
	cancel context.CancelFunc
	// waiters are those who want what it gives, now or with their next fetch.
	waiters int
	entry   *entry[C]
	err     error
}

// acquire is Acquire with one login at most.
func (c *Cache[K, C]) acquire(ctx context.Context, req request[K]) outcome[C] {
	if err := ctx.Err(); err != nil {
		return outcome[C]{err: err}
	}
	c.mu.Lock()
	if e := c.kept[req.identity]; e.fresh(time.Now()) {
		c.touch(e)
		c.mu.Unlock()
		return outcome[C]{credential: e.credential, cached: true}
	}
	f := c.join(ctx, req)
	c.mu.Unlock()

	slow := time.After(f.patience(ctx))
	for {
		select {
		case <-f.done:
			return c.landed(ctx, req, f)
		case <-ctx.Done():
			c.leave(f)
			return outcome[C]{err: ctx.Err()}
		case <-slow:
			if credential, ok := c.goOn(ctx, req.identity, errSlow); ok {
				return outcome[C]{credential: credential, cached: true} // and who comes next has the login's
			}
		}
	}
}

// landed is what a flight has come to, for one of those who waited for it.
func (c *Cache[K, C]) landed(ctx context.Context, req request[K], f *flight[C]) outcome[C] {
	if f.err == nil {
		return outcome[C]{credential: f.entry.credential}
	}
	if c.cfg.Passing(f.err) {
		if credential, ok := c.goOn(ctx, req.identity, f.err); ok {
			return outcome[C]{credential: credential, cached: true}
		}
	}
	return outcome[C]{others: f.token != req.token && c.cfg.Refused(f.err), err: f.err}
}

// join returns the flight of an identity, or begins one: also where that one was
// cancelled, has had its time, or is not the caller's own and has to be. The caller
// holds the mutex.
func (c *Cache[K, C]) join(ctx context.Context, req request[K]) *flight[C] {
	f, ok := c.flights[req.identity]
	if !ok || closed(f.over) || req.own && f.token != req.token {
		// Values stay, for the trace; the end of the first caller does not end it.
		flightCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.LoginTimeout)
		f = &flight[C]{
			token: req.token, drops: c.drops, began: time.Now(),
			over: flightCtx.Done(), done: make(chan struct{}), cancel: cancel,
		}
		c.flights[req.identity] = f
		go func() {
			defer cancel()
			c.fly(flightCtx, req.identity, f)
		}()
	}
	f.waiters++
	return f
}

// patience is how long a fetch waits if it has a credential that still lasts: not
// at all for a login that has had its time before, and never so long that there
// is none left to use the credential.
func (f *flight[C]) patience(ctx context.Context) time.Duration {
	wait := renewalWait - time.Since(f.began)
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	return wait
}

// leave ends a caller's wait.
func (c *Cache[K, C]) leave(f *flight[C]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.waiters--
	if f.waiters == 0 {
		f.cancel() // before anybody can join
	}
}

// fly is the goroutine of a login. However that ends, those who wait hear of it.
func (c *Cache[K, C]) fly(ctx context.Context, identity K, f *flight[C]) {
	var e *entry[C]
	err := errDefect() // of a Login that panics, or ends its goroutine
	defer func() { c.land(identity, f, e, err) }()
	defer func() {
		if thrown := recover(); thrown != nil {
			// What was thrown is not told: it may hold a token.
			c.cfg.Logger.LogAttrs(ctx, slog.LevelError, "login panicked", c.attrs(identity,
				slog.String(logkey.Error, fmt.Sprintf("%T", thrown)), slog.String(logkey.Stack, rpc.PanicStack()))...)
		}
	}()
	credential, failure := c.cfg.Login(ctx, identity, f.token)
	if failure == nil {
		e = newEntry(credential, time.Now())
		c.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "logged in", c.attrs(identity)...)
	}
	err = failure
}

func errDefect() error {
	return sdk.Internal("the provider failed during a login, which is a defect of it: please report it, with the log")
}

// land ends a flight, and keeps what it gives.
func (c *Cache[K, C]) land(identity K, f *flight[C], e *entry[C], err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.done)
	f.entry, f.err = e, err
	current := c.flights[identity] == f
	if current {
		delete(c.flights, identity)
	}
	switch kept := c.kept[identity]; {
	case e == nil || f.waiters == 0:
	case current, f.drops == c.drops && (kept == nil || e.expires.After(kept.expires)):
		c.keep(identity, e)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
