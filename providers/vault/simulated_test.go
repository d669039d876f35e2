package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// simulated is a store in memory whose logins and leases end as OpenBao's do: a
// lease ends with the login that it was issued with, whoever renews it.
//
// Its answers come without a network, so that hours pass in a moment.
type simulated struct {
	loginTTL, loginMax time.Duration
	leaseTTL, leaseMax time.Duration
	// accessors and revocations say what the policy allows.
	accessors, revocations bool

	mu     sync.Mutex
	down   bool
	value  string
	logins map[string]*span // by token; the accessor is the token with "accessor-" before it
	leases map[string]*span
	calls  map[string]int
	// renewed is when leases were renewed.
	renewed []time.Time
	// issued is called when a credential is issued, before that is known.
	issued func()
}

// span is the life of a login or a lease.
type span struct {
	login        string // a lease's
	begin        time.Time
	end          time.Time
	ttl, maximum time.Duration
}

func (s *span) prolong() time.Duration {
	s.end = time.Now().Add(min(s.ttl, time.Until(s.begin.Add(s.maximum))))
	return time.Until(s.end)
}

func simulate() *simulated {
	return &simulated{
		loginTTL: 20 * time.Minute, loginMax: 768 * time.Hour, leaseTTL: time.Hour, leaseMax: 768 * time.Hour,
		value: "v", logins: make(map[string]*span), leases: make(map[string]*span), calls: make(map[string]int),
	}
}

// RoundTrip implements [http.RoundTripper].
func (s *simulated) RoundTrip(r *http.Request) (*http.Response, error) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	w := s.answer(r, path)
	if path == "database/creds/app" && s.issued != nil {
		s.issued()
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

func (s *simulated) answer(r *http.Request, path string) *httptest.ResponseRecorder {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := httptest.NewRecorder()
	if s.down {
		w.WriteHeader(http.StatusServiceUnavailable)
	} else {
		s.calls[path]++
		s.serve(w, r, path)
	}
	return w
}

func (s *simulated) serve(w http.ResponseWriter, r *http.Request, path string) {
	token := r.Header.Get("X-Vault-Token")
	var body struct {
		LeaseID  string `json:"lease_id"`
		Accessor string `json:"accessor"`
	}
	if r.Body != nil {
		_ = json.NewDecoder(r.Body).Decode(&body)
	}
	lease := s.lease(body.LeaseID)
	switch {
	case path == "auth/kubernetes/login":
		s.login(w)
	case !s.alive(token):
		w.WriteHeader(http.StatusForbidden)
	case path == "auth/token/renew-self":
		s.say(w, map[string]any{"auth": s.auth(token, token)})
	case path == "auth/token/revoke-self":
		s.logins[token].end = time.Now()
	case path == "auth/token/renew-accessor":
		if named := strings.TrimPrefix(body.Accessor, "accessor-"); s.accessors && s.alive(named) {
			s.say(w, map[string]any{"auth": s.auth(named, "")})
			return
		}
		w.WriteHeader(http.StatusForbidden)
	case strings.HasPrefix(path, "sys/leases/") && lease == nil:
		w.WriteHeader(http.StatusBadRequest)
	case path == "sys/leases/lookup":
		s.say(w, map[string]any{"data": map[string]any{"ttl": int(time.Until(lease.end).Seconds()), "renewable": true}})
	case path == "sys/leases/renew":
		s.renewed = append(s.renewed, time.Now())
		s.say(w, map[string]any{"lease_id": body.LeaseID, "lease_duration": int(lease.prolong().Seconds()), "renewable": true})
	case path == "sys/leases/revoke" && s.revocations:
		delete(s.leases, body.LeaseID)
	case path == "database/creds/app":
		s.issue(w, token)
	case path == "pki/issue/web":
		serial := s.calls[path]
		s.say(w, map[string]any{"data": map[string]any{
			"certificate": fmt.Sprintf("certificate-%d", serial), "expiration": time.Now().Add(s.leaseTTL).Unix(),
		}})
	case path == "kv/app":
		s.say(w, map[string]any{"data": map[string]any{"k": s.value}})
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

func (s *simulated) login(w http.ResponseWriter) {
	token := fmt.Sprintf("login-%d", len(s.logins))
	s.logins[token] = &span{begin: time.Now(), ttl: s.loginTTL, maximum: s.loginMax}
	s.say(w, map[string]any{"auth": s.auth(token, token)})
}

// auth renews a token and says so to somebody who gets to see it, or not.
func (s *simulated) auth(token, shown string) map[string]any {
	ttl := s.logins[token].prolong()
	return map[string]any{
		"client_token": shown, "accessor": "accessor-" + token, "lease_duration": int(ttl.Seconds()), "renewable": true,
	}
}

func (s *simulated) issue(w http.ResponseWriter, token string) {
	id := fmt.Sprintf("database/creds/app/%d", s.calls["database/creds/app"])
	lease := &span{login: token, begin: time.Now(), ttl: s.leaseTTL, maximum: s.leaseMax}
	s.leases[id] = lease
	s.say(w, map[string]any{
		"lease_id": id, "lease_duration": int(lease.prolong().Seconds()), "renewable": true,
		"data": map[string]any{"username": "user-" + id, "password": "password-of-" + id},
	})
}

func (s *simulated) say(w http.ResponseWriter, body map[string]any) {
	_ = json.NewEncoder(w).Encode(body)
}

func (s *simulated) alive(token string) bool {
	login, ok := s.logins[token]
	return ok && time.Now().Before(login.end)
}

// lease returns a lease that lives.
func (s *simulated) lease(id string) *span {
	lease, ok := s.leases[id]
	if !ok || !time.Now().Before(lease.end) || !s.alive(lease.login) {
		return nil
	}
	return lease
}

func (s *simulated) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[path]
}

// lives reports whether a password that was issued is still good.
func (s *simulated) lives(password string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease(strings.TrimPrefix(password, "password-of-")) != nil
}

func (s *simulated) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

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
func TestSimulated_KilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	for name, leaseTTL := range map[string]time.Duration{"long lease": 10 * time.Hour, "short lease": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := simulate()
				s.accessors, s.leaseTTL = true, leaseTTL
				m := mount(t, s, databaseObjects)
				for i := range 100 {
					m.pass(time.Duration(i)*time.Minute/7, 24*time.Hour)
					m.restart()
				}
				if issued := s.count("database/creds/app"); issued != 1 || m.writes != 1 {
					t.Errorf("%d credentials, %d writes; want 1 and 1", issued, m.writes)
				}
			})
		})
	}
}

// What is issued for a volume that is released meanwhile is revoked.
func TestSimulated_ReleasedDuringFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate()
		s.revocations = true
		m := &mounted{t: t, store: s, req: opaqueRequest("http://store", databaseObjects)}
		m.restart()
		s.issued = func() {
			if err := m.Release(t.Context(), m.req.VolumeID); err != nil {
				t.Error(err)
			}
		}
		_, err := m.Fetch(t.Context(), m.req)
		wantError(t, err, sdk.ReasonInternal, "", "released while it was being fetched")
		if issued, lives := s.count("database/creds/app"), s.lives("password-of-database/creds/app/1"); issued != 1 || lives {
			t.Errorf("%d credentials were issued, and that it lives is %v; want one that does not", issued, lives)
		}
	})
}
