package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/schedule"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time pass, and what is due happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// memory is a store that keeps tokens as Vault does: they end with their time
// to live or when they are revoked, and are renewed up to a maximum.
type memory struct {
	ttl, maximum time.Duration
	renewable    bool
	batch        bool
	takes        time.Duration // a login

	mu       sync.Mutex
	failure  error           // of everything
	gone     map[string]bool // the JWTs of pods that are deleted
	attempts int             // of logins
	jwts     []string
	tokens   map[string]*token
	renewals int
	revoked  []string
	cut      int // logins whose caller left
}

type token struct{ issued, expires time.Time }

func newMemory() *memory {
	return &memory{ttl: time.Hour, maximum: 24 * time.Hour, renewable: true, tokens: make(map[string]*token)}
}

func (m *memory) Login(ctx context.Context, _ store.Endpoint, l store.Login) (store.Auth, error) {
	select {
	case <-time.After(m.takes):
	case <-ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		m.cut++
		return store.Auth{}, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attempts++
	if m.failure != nil {
		return store.Auth{}, m.failure
	}
	if m.gone[l.JWT.Reveal()] {
		return store.Auth{}, &store.Error{Status: 403}
	}
	m.jwts = append(m.jwts, l.JWT.Reveal())
	name := fmt.Sprintf("canary-token-%d", len(m.jwts))
	m.tokens[name] = &token{issued: time.Now(), expires: time.Now().Add(m.ttl)}
	return store.Auth{Token: sdk.NewSecretString(name), TTL: m.ttl, Renewable: m.renewable, Batch: m.batch}, nil
}

func (m *memory) RenewSelf(_ context.Context, _ store.Endpoint, secret sdk.SecretString) (store.Auth, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return store.Auth{}, m.failure
	}
	tok, ok := m.tokens[secret.Reveal()]
	if !ok || time.Now().After(tok.expires) {
		return store.Auth{}, &store.Error{Status: 403}
	}
	m.renewals++
	ttl := min(m.ttl, time.Until(tok.issued.Add(m.maximum)))
	tok.expires = time.Now().Add(ttl)
	return store.Auth{Token: secret, TTL: ttl, Renewable: true}, nil
}

func (m *memory) RevokeSelf(_ context.Context, _ store.Endpoint, secret sdk.SecretString) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return m.failure
	}
	delete(m.tokens, secret.Reveal())
	m.revoked = append(m.revoked, secret.Reveal())
	return nil
}

func (m *memory) set(failure error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure = failure
}

// state is what happened so far: logins, renewals, and which were revoked.
func (m *memory) state() (logins, renewals int, revoked []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.jwts), m.renewals, slices.Clone(m.revoked)
}

func (m *memory) alive(grant *Grant) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	tok, ok := m.tokens[grant.Token().Reveal()]
	return ok && time.Now().Before(tok.expires)
}

// start runs a Manager until the test ends.
func start(t *testing.T, m *memory, change func(*Config)) *Manager {
	t.Helper()
	loop := schedule.New()
	cfg := Config{Store: m, Loop: loop, Logger: slog.New(slog.DiscardHandler), MaxSessions: 100, Idle: 1000 * time.Hour}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return New(cfg)
}

func use(volumeID string) Use {
	return Use{
		Identity: Identity{Role: "app", Namespace: "shop", ServiceAccount: "cart"},
		VolumeID: volumeID, JWT: sdk.NewSecretString("canary-jwt-" + volumeID), Expiry: time.Now().Add(1000 * time.Hour),
	}
}

// mounted acquires and commits.
func mounted(t *testing.T, m *Manager, u Use) *Grant {
	t.Helper()
	grant, _, err := m.Acquire(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	m.Commit(u.Identity, u.VolumeID)
	return grant
}

func TestAcquireCoalesces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		s.takes = time.Second
		m := start(t, s, nil)
		var pods sync.WaitGroup
		for i := range 20 {
			pods.Go(func() {
				if _, _, err := m.Acquire(t.Context(), use(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			})
		}
		pods.Wait()
		if logins, _, _ := s.state(); logins != 1 {
			t.Errorf("%d logins, want 1", logins)
		}
		if _, cached, _ := m.Acquire(t.Context(), use("later")); !cached {
			t.Error("a later pod does not get the same")
		}
	})
}

// TestAcquireCancelOne: a waiter, even the one who began, leaves alone.
func TestAcquireCancelOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		s.takes = time.Second
		m := start(t, s, nil)
		ctx, leave := context.WithCancel(t.Context())
		left, stayed := make(chan error, 1), make(chan error, 1)
		go func() { _, _, err := m.Acquire(ctx, use("a")); left <- err }()
		synctest.Wait()
		go func() { _, _, err := m.Acquire(t.Context(), use("b")); stayed <- err }()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left: %v", err)
		}
		if err := <-stayed; err != nil {
			t.Errorf("who stayed: %v", err)
		}
		if logins, _, _ := s.state(); logins != 1 || s.cut != 0 {
			t.Errorf("%d logins, %d cut, want 1 and 0", logins, s.cut)
		}
	})
}

// TestAcquireOfPodThatIsGone: a pod that was deleted takes its token with it,
// but not the login of those who had joined.
func TestAcquireOfPodThatIsGone(t *testing.T) {
	t.Parallel()
	for _, leaves := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newMemory()
			s.takes = time.Second
			s.gone = map[string]bool{"canary-jwt-deleted": true}
			m := start(t, s, nil)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			deleted := make(chan error, 1)
			go func() { _, _, err := m.Acquire(ctx, use("deleted")); deleted <- err }()
			synctest.Wait()
			var pods sync.WaitGroup
			for i := range 20 {
				pods.Go(func() {
					u := use(fmt.Sprint(i))
					grant, _, err := m.Acquire(t.Context(), u)
					if err != nil || !s.alive(grant) {
						t.Errorf("pod %d: %v", i, err)
						return
					}
					m.Commit(u.Identity, u.VolumeID)
				})
			}
			synctest.Wait()
			if leaves {
				leave()
			}
			pods.Wait()
			if err := <-deleted; leaves != errors.Is(err, context.Canceled) || !leaves && !store.Refused(err) {
				t.Errorf("the deleted pod: %v", err)
			}
			if s.attempts != 2 {
				t.Errorf("%d logins, want 2", s.attempts)
			}
		})
	}
}

// TestAcquireAmongPodsThatAreGone: however many follow one another.
func TestAcquireAmongPodsThatAreGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		s.takes = time.Second
		s.gone = make(map[string]bool)
		for i := range 20 {
			s.gone[fmt.Sprintf("canary-jwt-%d", i)] = true
		}
		m := start(t, s, nil)
		var pods sync.WaitGroup
		for i := range 20 {
			pods.Go(func() {
				if _, _, err := m.Acquire(t.Context(), use(fmt.Sprint(i))); err != nil && !store.Refused(err) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		grant, _, err := m.Acquire(t.Context(), use("alive"))
		if err != nil || !s.alive(grant) {
			t.Errorf("the pod that is there: %v", err)
		}
		pods.Wait()
	})
}

// TestAcquireRefused: a role that nobody may have is asked for with each pod's own
// token, at last.
func TestAcquireRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		s.takes, s.failure = time.Second, &store.Error{Status: 403}
		m := start(t, s, nil)
		var pods sync.WaitGroup
		for i := range 20 {
			pods.Go(func() {
				if _, _, err := m.Acquire(t.Context(), use(fmt.Sprint(i))); !store.Refused(err) {
					t.Error(err)
				}
			})
		}
		pods.Wait()
		if s.attempts != 20 || len(m.entries) != 0 {
			t.Errorf("%d logins, %d identities kept; want 20 and 0", s.attempts, len(m.entries))
		}
	})
}

// TestAcquireCancelLast: nobody waits, so the login ends and leaves nothing.
func TestAcquireCancelLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		s.takes = time.Second
		m := start(t, s, nil)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { _, _, err := m.Acquire(ctx, use("a")); left <- err }()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left: %v", err)
		}
		synctest.Wait()
		if s.cut != 1 || len(m.entries) != 0 {
			t.Errorf("%d logins cut, %d identities kept; want 1 and 0", s.cut, len(m.entries))
		}
		mounted(t, m, use("a"))
	})
}

func TestAcquireKeepsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		m := start(t, s, nil)
		s.set(&store.Error{Status: 400})
		if _, _, err := m.Acquire(t.Context(), use("a")); err == nil {
			t.Fatal("no error")
		}
		if len(m.entries) != 0 {
			t.Error("an identity that cannot log in is kept")
		}
		s.set(nil)
		mounted(t, m, use("a"))
	})
}

// TestRenewal follows a session over its maximum: prolonged at two thirds of its
// life, replaced by a new login near the end, all without a fetch.
func TestRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		m := start(t, s, nil)
		first := mounted(t, m, use("a"))
		pass(35 * time.Minute)
		if _, renewals, _ := s.state(); renewals != 0 {
			t.Error("renewed before two thirds, less a tenth")
		}
		pass(6 * time.Minute)
		if _, renewals, _ := s.state(); renewals != 1 {
			t.Error("not renewed at two thirds")
		}
		for range 100 {
			pass(30 * time.Minute)
			if grant, cached, err := m.Acquire(t.Context(), use("a")); err != nil || !cached || !s.alive(grant) {
				t.Fatalf("after %v: cached %v, err %v", time.Since(first.Expires()), cached, err)
			}
		}
		logins, _, revoked := s.state()
		if logins != 3 || len(revoked) != 2 {
			t.Errorf("%d logins, revoked %v; want 3 in 50 hours of at most 24 each, and the two before revoked", logins, revoked)
		}
	})
}

func TestRenewalOfWhatCannotBeRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		s.renewable, s.batch = false, true
		m := start(t, s, nil)
		mounted(t, m, use("a"))
		newer := use("b") // its token is seen last and lives longest
		newer.Expiry = newer.Expiry.Add(time.Hour)
		mounted(t, m, newer)
		pass(45 * time.Minute)
		if len(s.jwts) != 2 || s.jwts[1] != "canary-jwt-b" {
			t.Errorf("logged in with %v, want again with the newest", s.jwts)
		}
		m.Release(t.Context(), "a")
		m.Release(t.Context(), "b")
		if _, _, revoked := s.state(); len(revoked) != 0 {
			t.Errorf("revoked %v: batch tokens cannot be", revoked)
		}
	})
}

// TestRenewalDuringOutage: it is tried again while the token lives.
func TestRenewalDuringOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		m := start(t, s, nil)
		grant := mounted(t, m, use("a"))
		s.set(&store.Error{Status: 503})
		pass(50 * time.Minute)
		s.set(nil)
		pass(20 * time.Minute)
		if logins, renewals, _ := s.state(); logins != 1 || renewals == 0 || !s.alive(grant) {
			t.Errorf("%d logins, %d renewals, alive %v; want the first to live on", logins, renewals, s.alive(grant))
		}
	})
}

// TestRenewalWithoutToken: the newest of the pods' tokens has expired; the next
// fetch brings another.
func TestRenewalWithoutToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		s.renewable = false
		m := start(t, s, nil)
		u := use("a")
		u.Expiry = time.Now().Add(time.Minute)
		mounted(t, m, u)
		pass(2 * time.Hour)
		if logins, _, _ := s.state(); logins != 1 {
			t.Errorf("%d logins with an expired token", logins)
		}
		if _, cached, err := m.Acquire(t.Context(), use("a")); err != nil || cached {
			t.Errorf("cached %v, err %v; want a new login", cached, err)
		}
	})
}

// TestUnwanted: sessions that are not renewed.
func TestUnwanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		m := start(t, s, func(c *Config) { c.Idle = 10 * time.Hour })
		if _, _, err := m.Acquire(t.Context(), use("never mounted")); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		if _, renewals, revoked := s.state(); renewals != 0 || len(revoked) != 1 {
			t.Errorf("%d renewals, revoked %v; want the login of a failed mount revoked", renewals, revoked)
		}
		mounted(t, m, use("forgotten"))
		held := use("forgotten with a credential")
		held.Identity.Role = "other"
		grant := mounted(t, m, held)
		grant.Hold()
		pass(100 * time.Hour)
		if _, _, revoked := s.state(); len(revoked) != 2 || len(m.entries) != 0 || s.alive(grant) {
			t.Errorf("revoked %v, %d kept; want the idle one without a credential revoked, the other expired", revoked, len(m.entries))
		}
	})
}

func TestRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		m := start(t, s, nil)
		grant := mounted(t, m, use("a"))
		mounted(t, m, use("b"))
		grant.Hold() // also if credentials hang on it: their pods are gone
		m.Release(t.Context(), "a")
		m.Release(t.Context(), "unknown")
		if !s.alive(grant) {
			t.Fatal("revoked while a volume uses it")
		}
		m.Release(t.Context(), "b")
		m.Release(t.Context(), "b")
		if _, _, revoked := s.state(); len(revoked) != 1 || s.alive(grant) {
			t.Errorf("revoked %v", revoked)
		}
	})
}

// TestCommitMovesVolume: a class that names another role leaves the old one.
func TestCommitMovesVolume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		m := start(t, s, nil)
		first := mounted(t, m, use("a"))
		other := use("a")
		other.Identity.Role = "other"
		if _, _, err := m.Acquire(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !s.alive(first) {
			t.Error("the old login ended before the new one was of use")
		}
		m.Commit(other.Identity, "a")
		synctest.Wait()
		if s.alive(first) {
			t.Error("the old login is kept")
		}
	})
}

func TestTrial(t *testing.T) {
	t.Parallel()
	for _, better := range []bool{true, false} {
		t.Run(fmt.Sprint(better), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newMemory()
				s.takes = time.Second
				m := start(t, s, nil)
				old := mounted(t, m, use("a"))
				grants := make(chan *Grant, 5)
				var pods sync.WaitGroup
				for i := range 5 {
					pods.Go(func() {
						grant, err := m.Trial(t.Context(), old, use(fmt.Sprint(i)))
						if err != nil {
							t.Error(err)
						}
						grants <- grant
					})
				}
				pods.Wait()
				var trial *Grant
				for range 5 {
					trial = <-grants
					m.Settle(trial, better)
				}
				synctest.Wait()
				if logins, _, _ := s.state(); logins != 2 {
					t.Errorf("%d logins, want one trial for all", logins)
				}
				if s.alive(old) == better || s.alive(trial) != better {
					t.Errorf("alive: old %v, trial %v", s.alive(old), s.alive(trial))
				}
				if current, _, _ := m.Acquire(t.Context(), use("a")); (current == trial) != better {
					t.Error("the wrong one is current")
				}
			})
		})
	}
}

// TestTrialOfPodThatIsGone is the same for a second login.
func TestTrialOfPodThatIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		m := start(t, s, nil)
		old := mounted(t, m, use("a"))
		s.takes = time.Second
		s.gone = map[string]bool{"canary-jwt-deleted": true}
		deleted := make(chan error, 1)
		go func() { _, err := m.Trial(t.Context(), old, use("deleted")); deleted <- err }()
		synctest.Wait()
		grant, err := m.Trial(t.Context(), old, use("a"))
		if err != nil || !s.alive(grant) {
			t.Fatalf("who joined: %v", err)
		}
		m.Settle(grant, true)
		if err := <-deleted; !store.Refused(err) {
			t.Errorf("the deleted pod: %v", err)
		}
	})
}

func TestMaxSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		m := start(t, s, func(c *Config) { c.MaxSessions = 2 })
		account := func(name string) Use {
			u := use(name)
			u.Identity.ServiceAccount = name
			return u
		}
		held := mounted(t, m, account("a"))
		held.Hold()
		pass(time.Second)
		idle := mounted(t, m, account("b"))
		pass(time.Second)
		mounted(t, m, account("c"))
		synctest.Wait()
		if s.alive(idle) || !s.alive(held) || len(m.entries) != 2 {
			t.Errorf("alive: idle %v, held %v, of %d; want the idle one revoked", s.alive(idle), s.alive(held), len(m.entries))
		}
	})
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		m := start(t, s, nil)
		static := mounted(t, m, use("a"))
		u := use("b")
		u.Identity.Role = "database"
		dynamic := mounted(t, m, u)
		dynamic.Hold()
		m.Shutdown(t.Context())
		if s.alive(static) || !s.alive(dynamic) {
			t.Errorf("alive: %v, %v; want that of a running pod's credential only", s.alive(static), s.alive(dynamic))
		}
	})
}

// TestNothingLeaks: tokens print as [redacted], and are not logged.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newMemory()
		m := start(t, s, func(c *Config) {
			c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		u := use("a")
		grant := mounted(t, m, u)
		s.set(&store.Error{Status: 503, Texts: []string{"sealed"}})
		pass(2 * time.Hour)
		m.Release(t.Context(), "a")
		text := log.String()
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			text += fmt.Sprintf(format, grant) + fmt.Sprintf(format, u)
		}
		if strings.Contains(text, "canary") {
			t.Errorf("a token shows up in:\n%s", text)
		}
		if !strings.Contains(text, "cannot renew a login") {
			t.Errorf("the failure is not logged:\n%s", text)
		}
	})
}
