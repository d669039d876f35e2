package identity

import (
	"context"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// loginTimeout bounds a login that outlives who began it, in addition to what the
// agent may take by both kinds of address.
const loginTimeout = 30 * time.Second

// flight is a login on its way, which several fetches wait for. Each may leave
// alone; it is cancelled when the last has left. The Manager's mutex guards the
// waiters; grant and err do not change once done is closed, the rest never.
type flight struct {
	// token is that of the pod that began it.
	token   sdk.SecretString
	cancel  context.CancelFunc
	done    chan struct{}
	waiters int
	grant   *grant
	err     error
}

// othersError is a refusal of the token with which another pod began the login.
type othersError struct{ err error }

func (e *othersError) Error() string { return e.err.Error() }

func (e *othersError) Unwrap() error { return e.err }

// join returns the login on its way for an identity, or begins one, also if it is to
// be the caller's own. The caller holds the mutex, and then waits.
func (m *Manager) join(ctx context.Context, k key, use Use, own bool) *flight {
	f, ok := m.flights[k]
	if !ok || own {
		// Values stay, for the trace; the end of the first caller does not end it.
		flightCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginTimeout+2*m.cfg.AgentTimeout)
		f = &flight{token: use.Token, cancel: cancel, done: make(chan struct{})}
		m.flights[k] = f
		go func() {
			defer cancel()
			grant, err := m.login(flightCtx, use)
			m.land(k, f, grant, err)
		}()
	}
	f.waiters++
	return f
}

func (m *Manager) wait(ctx context.Context, k key, f *flight) (*grant, error) {
	select {
	case <-f.done:
		return f.grant, f.err
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f.waiters--
	if f.waiters == 0 {
		f.cancel()
		if m.flights[k] == f {
			delete(m.flights, k) // who comes now begins anew
		}
	}
	return nil, ctx.Err()
}

// land ends a flight. Credentials that nobody waits for any more are not kept.
func (m *Manager) land(k key, f *flight, g *grant, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer close(f.done)
	f.grant, f.err = g, err
	if m.flights[k] != f {
		return
	}
	delete(m.flights, k)
	if g != nil {
		m.keep(g)
	}
}
