package session

import (
	"context"
	"errors"
	"time"

	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// loginTimeout bounds a login that outlives who began it.
const loginTimeout = 30 * time.Second

// flight is a login on its way, which several fetches wait for. Each may leave
// alone; it is cancelled when the last has left. The Manager's mutex guards it;
// grant and err do not change once done is closed.
type flight struct {
	waiters int
	cancel  context.CancelFunc
	done    chan struct{}
	grant   *Grant
	err     error
}

// othersError is a refusal of the token with which another pod began the login.
// That pod may be gone by now, and its token with it: it says nothing of the
// tokens of those who joined.
type othersError struct{ err error }

func (e *othersError) Error() string { return e.err.Error() }

func (e *othersError) Unwrap() error { return e.err }

// orOwn logs in. Where another pod's token is refused it does so once more, and
// then with its own token: of many pods that are gone one may follow the other.
func orOwn(login func(own bool) (*Grant, error)) (*Grant, error) {
	grant, err := login(false)
	for _, own := range []bool{false, true} {
		if _, ok := errors.AsType[*othersError](err); !ok {
			break
		}
		grant, err = login(own)
	}
	return grant, err
}

// join waits for the flight in slot, which is one of e's, and begins one with
// use if there is none, or if it is to be its own. The mutex is held when it is
// called, and not when it returns.
func (m *Manager) join(ctx context.Context, e *entry, slot **flight, use Use, own bool) (*Grant, error) {
	f := *slot
	joined := f != nil && !own
	if !joined {
		// Values stay, for the trace; the end of the first caller does not end it.
		flightCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginTimeout)
		f = &flight{cancel: cancel, done: make(chan struct{})}
		*slot = f
		e.flights++
		go func() {
			defer cancel()
			grant, err := m.login(flightCtx, use)
			m.land(e, slot, f, grant, err)
		}()
	}
	f.waiters++
	m.mu.Unlock()

	grant, err := m.wait(ctx, f, slot)
	if joined && store.Refused(err) {
		err = &othersError{err}
	}
	return grant, err
}

func (m *Manager) wait(ctx context.Context, f *flight, slot **flight) (*Grant, error) {
	select {
	case <-f.done:
		return f.grant, f.err
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-f.done: // it landed just now, and counts on this waiter
		return f.grant, f.err
	default:
	}
	f.waiters--
	if f.waiters == 0 {
		f.cancel()
		if *slot == f {
			*slot = nil // who comes now begins anew
		}
	}
	return nil, ctx.Err()
}

// land ends a flight. A login's grant becomes the current one, a trial's waits
// for Settle; one that nobody waits for any more is revoked. The last that fails
// takes the identity with it.
func (m *Manager) land(e *entry, slot **flight, f *flight, grant *Grant, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer close(f.done)
	if *slot == f {
		*slot = nil
	}
	e.flights--
	f.grant, f.err = grant, err
	switch {
	case grant == nil:
	case f.waiters == 0 || m.entries[e.identity] != e:
		m.doom(grant)
	case slot == &e.login:
		m.adopt(e, grant)
	default:
		grant.trials = f.waiters
	}
	if e.grant == nil && e.flights == 0 && m.entries[e.identity] == e {
		m.remove(e) // nobody has been able to log in
	}
}
