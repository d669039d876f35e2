package vault

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// mounted is a volume, as the driver has it, and the process that serves it.
type mounted struct {
	t     *testing.T
	store *simulated
	*provider
	kill func()
	req  *sdk.Request
	// files are what the volume holds; writes counts the changes.
	files  map[string]string
	writes int
	after  time.Duration
}

func mount(t *testing.T, s *simulated, objects string) *mounted {
	t.Helper()
	m := &mounted{t: t, store: s, req: opaqueRequest("http://store", objects)}
	m.restart()
	m.refresh()
	return m
}

// restart kills the process, which says goodbye to nobody, and starts another.
func (m *mounted) restart() {
	m.t.Helper()
	if m.kill != nil {
		m.kill()
	}
	pool := store.New(store.Config{Instrument: func(http.RoundTripper) http.RoundTripper { return m.store }})
	m.provider = assemble(options{maxSessions: 100, idle: 2 * time.Hour},
		params.Defaults{AuthMount: "kubernetes"}, slog.New(slog.DiscardHandler), pool)
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	m.kill = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			m.t.Error(err)
		}
		pool.Close()
	})
	m.t.Cleanup(m.kill)
}

// refresh fetches and keeps what the driver does.
func (m *mounted) refresh() {
	m.t.Helper()
	resp, err := m.Fetch(m.t.Context(), m.req)
	if err != nil {
		m.t.Fatalf("Fetch: %v", err)
	}
	m.req.State, m.after = resp.State, resp.RefreshAfter
	if resp.NotModified {
		return
	}
	m.req.CurrentObjects, m.files = resp.Objects, files(resp)
	m.writes++
}

// pass lets so much time pass, with a refresh whenever one is due.
func (m *mounted) pass(d, interval time.Duration) {
	m.t.Helper()
	end := time.Now().Add(d)
	for {
		next := min(interval, time.Until(end))
		if m.after > 0 {
			next = min(next, m.after)
		}
		if next <= 0 {
			return
		}
		<-time.After(next)
		synctest.Wait()
		m.wantAlive(end)
		m.refresh()
		m.wantAlive(end)
	}
}

func (m *mounted) wantAlive(end time.Time) {
	m.t.Helper()
	if password, ok := m.files["password"]; ok && !m.store.lives(password) {
		m.t.Fatalf("the volume holds a credential that has ended, %s before the end", time.Until(end))
	}
}

const interval = 2 * time.Minute

// An hour of refreshes: one credential, renewed at about two thirds of its life.
func TestSimulated_Hour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate()
		begin := time.Now()
		m := mount(t, s, databaseObjects)
		m.pass(time.Hour, interval)
		if issued, logins := s.count("database/creds/app"), s.count("auth/kubernetes/login"); issued != 1 || logins != 1 || m.writes != 1 {
			t.Errorf("%d credentials, %d logins, %d writes; want one of each", issued, logins, m.writes)
		}
		if len(s.renewed) != 1 {
			t.Fatalf("renewed %d times, want once", len(s.renewed))
		}
		if at := s.renewed[0].Sub(begin); at < 36*time.Minute || at > 40*time.Minute {
			t.Errorf("renewed after %s, want at about 40 minutes of 60", at)
		}
	})
}

// At its maximum a credential is replaced, once, while the old one lives.
func TestSimulated_Maximum(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate()
		s.leaseMax = 3 * time.Hour
		m := mount(t, s, databaseObjects)
		m.pass(4*time.Hour, interval)
		if issued := s.count("database/creds/app"); issued != 2 || m.writes != 2 {
			t.Errorf("%d credentials, %d writes in four hours; want 2 and 2", issued, m.writes)
		}
	})
}

// A process that is killed has its credentials gone on with by the next: as
// long as the policy allows, and else until the old login ends.
func TestSimulated_Restart(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		accessors bool
		login     time.Duration
		issued    int
	}{
		"login prolonged":    {true, 20 * time.Minute, 1},
		"login runs out":     {false, 20 * time.Minute, 2},
		"login lives longer": {false, 24 * time.Hour, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := simulate()
				s.accessors, s.loginTTL = tt.accessors, tt.login
				m := mount(t, s, databaseObjects)
				m.pass(15*time.Minute, interval)
				m.restart()
				m.refresh()
				if issued := s.count("database/creds/app"); issued != 1 || m.writes != 1 {
					t.Errorf("%d credentials, %d writes after the restart; want 1 and 1", issued, m.writes)
				}
				m.pass(5*time.Hour, interval)
				if issued := s.count("database/creds/app"); issued != tt.issued || m.writes != tt.issued {
					t.Errorf("%d credentials, %d writes in the end; want %d", issued, m.writes, tt.issued)
				}
			})
		})
	}
}

// What was taken over is revoked with its volume, with the new login.
func TestSimulated_RestartThenRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate()
		s.revocations = true
		m := mount(t, s, databaseObjects)
		m.restart()
		m.restart() // of which nobody took notice
		m.refresh()
		if err := m.Release(t.Context(), m.req.VolumeID); err != nil {
			t.Fatal(err)
		}
		if s.lives(m.files["password"]) {
			t.Error("the credential of the volume lives on")
		}
	})
}

// A certificate needs nothing of the store to be gone on with.
func TestSimulated_RestartCertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate()
		m := mount(t, s, "- {objectName: crt, secretPath: pki/issue/web, method: POST, secretKey: certificate}")
		for range 3 {
			m.restart()
			m.pass(10*time.Minute, interval)
		}
		if issued := s.count("pki/issue/web"); issued != 1 {
			t.Errorf("%d certificates in 30 of 60 minutes, want 1", issued)
		}
		m.pass(15*time.Minute, interval)
		if issued := s.count("pki/issue/web"); issued != 2 || m.writes != 2 {
			t.Errorf("%d certificates, %d writes in 45 minutes, want the second at 40", issued, m.writes)
		}
	})
}

// After a restart the contents of a credential are lost. If they are needed,
// because something else has changed, it is issued again, once.
func TestSimulated_RestartThenChange(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*mounted){
		"another secret": func(m *mounted) { m.store.set(func() { m.store.value = "new" }) },
		"another object": func(m *mounted) {
			m.req.Parameters["objects"] += "- {objectName: k2, secretPath: kv/app, secretKey: k}\n"
		},
		"the mount is lost":             func(m *mounted) { m.req.CurrentObjects = nil },
		"the driver remembers no state": func(m *mounted) { m.req.State = sdk.Secret{} },
		"another identity":              func(m *mounted) { m.req.Parameters["roleName"] = "other" },
		"a state that is not understood": func(m *mounted) {
			m.req.State = sdk.NewSecret([]byte(`{"version":99}`))
		},
		"a state that is no state": func(m *mounted) { m.req.State = sdk.NewSecret([]byte("\x00")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := simulate()
				m := mount(t, s, databaseObjects+"- {objectName: k, secretPath: kv/app, secretKey: k}\n")
				m.restart()
				change(m)
				m.pass(20*time.Minute, interval)
				if issued := s.count("database/creds/app"); issued != 2 || m.writes != 2 {
					t.Errorf("%d credentials, %d writes; want 2 and 2", issued, m.writes)
				}
				if m.files["user"] == "" || m.files["k"] != s.value {
					t.Errorf("files = %v", m.files)
				}
			})
		})
	}
}

// While the store is away nothing is given up: what is mounted may live.
func TestSimulated_RestartDuringOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate()
		m := mount(t, s, databaseObjects)
		m.restart()
		// The new process is known to the store, which then goes away.
		static := opaqueRequest("http://store", "- {objectName: k, secretPath: kv/app, secretKey: k}")
		static.VolumeID = "volume-2"
		fetchOK(t, m.provider, static)
		s.set(func() { s.down = true })
		_, err := m.Fetch(t.Context(), m.req)
		wantError(t, err, sdk.ReasonStoreUnavailable, "", "sealed or in maintenance")
		s.set(func() { s.down = false })
		m.refresh()
		if issued := s.count("database/creds/app"); issued != 1 || m.writes != 1 {
			t.Errorf("%d credentials, %d writes; want 1 and 1", issued, m.writes)
		}
	})
}

// A mount that fails time and again is issued one credential, also where it
// may not be revoked.
func TestSimulated_FailsAgainAndAgain(t *testing.T) {
	t.Parallel()
	for name, allowed := range map[string]bool{"revocation allowed": true, "revocation denied": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := simulate()
				s.revocations = allowed
				m := &mounted{t: t, store: s}
				m.restart()
				m.req = opaqueRequest("http://store", databaseObjects+"- {objectName: k, secretPath: kv/app, secretKey: nothing}\n")
				for range 10 {
					_, err := m.Fetch(t.Context(), m.req)
					wantError(t, err, sdk.ReasonObjectNotFound, "k", "nothing")
				}
				alive := 0
				for id := range s.leases {
					if s.lease(id) != nil {
						alive++
					}
				}
				want := 1
				if allowed {
					want = 0
				}
				if alive != want {
					t.Errorf("%d credentials live after ten failures, want %d", alive, want)
				}
				m.req.Parameters["objects"] = databaseObjects
				m.refresh()
				m.pass(2*time.Hour, interval)
				if issued := s.count("database/creds/app"); !allowed && issued != 1 {
					t.Errorf("%d credentials, want the first to be used", issued)
				}
			})
		})
	}
}

// A volume without an interval is refreshed often enough that a process which
// is killed at any moment leaves a credential that lives.
func TestSimulated_KilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for name, leaseTTL := range map[string]time.Duration{"long lease": 10 * time.Hour, "short lease": 10 * time.Minute} {
		for _, moment := range []float64{0, .3, .6, .99} { // between two refreshes
			t.Run(fmt.Sprintf("%s, %g", name, moment), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					for refreshes := range 20 {
						s := simulate()
						s.accessors, s.leaseTTL = true, leaseTTL
						m := mount(t, s, databaseObjects)
						for range refreshes {
							m.pass(m.after, m.after)
						}
						life := time.Duration(float64(m.after) * moment)
						left := m.after - life
						<-time.After(life)
						m.restart()
						<-time.After(left)
						m.wantAlive(time.Now())
						m.kill()
					}
				})
			})
		}
	}
}

func (m *mounted) releaseAt(path, moment string) {
	if path != moment {
		return
	}
	if err := m.Release(m.t.Context(), m.req.VolumeID); err != nil {
		m.t.Error(err)
	}
}

// A fetch that may be for others too does not fail since the volume that led it
// was released meanwhile.
func TestSimulated_ReleasedDuringSharedFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate()
		m := &mounted{t: t, store: s, req: opaqueRequest("http://store", "- {objectName: o, secretPath: kv/app, secretKey: k}")}
		m.restart()
		s.answered = func(path string) { m.releaseAt(path, "kv/app") }
		resp, err := m.Fetch(t.Context(), m.req)
		if err != nil || resp.Sharing != sdk.SharingServiceAccount || len(resp.Files) != 1 {
			t.Errorf("%+v, %v", resp, err)
		}
	})
}

// What is issued for a volume that is released meanwhile is revoked.
func TestSimulated_ReleasedDuringFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate()
		s.revocations = true
		m := &mounted{t: t, store: s, req: opaqueRequest("http://store", databaseObjects)}
		m.restart()
		s.answered = func(path string) { m.releaseAt(path, "database/creds/app") }
		_, err := m.Fetch(t.Context(), m.req)
		wantError(t, err, sdk.ReasonInternal, "", "released while it was being fetched")
		if issued, lives := s.count("database/creds/app"), s.lives("password-of-database/creds/app/1"); issued != 1 || lives {
			t.Errorf("%d credentials were issued, and that it lives is %v; want one that does not", issued, lives)
		}
	})
}
