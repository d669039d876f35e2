package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/schedule"
	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time pass, and what is due happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// memory is a store whose leases are renewed up to a maximum after their issue.
type memory struct {
	ttl, maximum time.Duration
	// login is how long logins are valid; zero: for ever.
	login time.Duration

	mu       sync.Mutex
	failure  error
	issued   map[string]time.Time
	renewals int
	lookups  int
	revoked  []string
	// accessors are those that were asked to be renewed; prolonged and denied are
	// the answer.
	accessors []string
	prolonged time.Duration
	denied    error
}

func newMemory() *memory {
	return &memory{ttl: time.Hour, maximum: 5 * time.Hour, issued: make(map[string]time.Time)}
}

func (m *memory) renewedAccessors() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.accessors)
}

func (m *memory) Login(context.Context, store.Endpoint, store.Login) (store.Auth, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return store.Auth{Token: sdk.NewSecretString("token-of-the-store"), Accessor: "accessor", TTL: m.login, Renewable: true}, nil
}

func (m *memory) RenewSelf(context.Context, store.Endpoint, sdk.SecretString) (store.Auth, error) {
	return store.Auth{}, errors.New("not asked for: it never expires")
}

func (m *memory) RevokeSelf(context.Context, store.Endpoint, sdk.SecretString) error { return nil }

func (m *memory) RenewLease(_ context.Context, _ store.Endpoint, _ sdk.SecretString, id string) (store.Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return store.Lease{}, m.failure
	}
	m.renewals++
	return store.Lease{Duration: min(m.ttl, time.Until(m.issued[id].Add(m.maximum))), Renewable: true}, nil
}

func (m *memory) LookupLease(_ context.Context, _ store.Endpoint, _ sdk.SecretString, id string) (store.Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return store.Lease{}, m.failure
	}
	m.lookups++
	if _, ok := m.issued[id]; !ok {
		return store.Lease{}, &store.Error{Status: 400}
	}
	return store.Lease{Duration: time.Until(m.issued[id].Add(m.ttl))}, nil
}

func (m *memory) RenewAccessor(_ context.Context, _ store.Endpoint, _ sdk.SecretString, accessor string) (time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accessors = append(m.accessors, accessor)
	return m.prolonged, m.denied
}

func (m *memory) RevokeLease(_ context.Context, _ store.Endpoint, _ sdk.SecretString, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revoked = append(m.revoked, id)
	return m.failure
}

func (m *memory) set(failure error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure = failure
}

func (m *memory) state() (renewals int, revoked []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.revoked)
	return m.renewals, slices.Clone(m.revoked)
}

type fixture struct {
	*Keeper
	store    *memory
	sessions *session.Manager
}

func start(t *testing.T) *fixture {
	t.Helper()
	loop, m, logger := schedule.New(), newMemory(), slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	sessions := session.New(session.Config{Store: m, Loop: loop, Logger: logger, MaxSessions: 10, Idle: 100 * time.Hour})
	return &fixture{
		Keeper: New(Config{Store: m, Sessions: sessions, Loop: loop, Logger: logger, Idle: 100 * time.Hour}),
		store:  m, sessions: sessions,
	}
}

// Commit and Get are a fetch that does nothing else.
func (f *fixture) Commit(volumeID string, credentials map[string]*Credential) bool {
	visit := f.Enter(volumeID)
	defer visit.Leave()
	return visit.Commit(credentials)
}

func (f *fixture) Get(volumeID, key string, grant *session.Grant) (*Credential, bool) {
	visit := f.Enter(volumeID)
	defer visit.Leave()
	return visit.Get(key, grant)
}

func (f *fixture) Lease(c *Credential) (store.Lease, time.Duration) {
	visit := f.Enter("")
	defer visit.Leave()
	return visit.Lease(c)
}

func (f *fixture) grant(t *testing.T, role string) *session.Grant {
	t.Helper()
	grant, _, err := f.sessions.Acquire(t.Context(), session.Use{Identity: session.Identity{Role: role}, VolumeID: "v"})
	if err != nil {
		t.Fatal(err)
	}
	return grant
}

func (f *fixture) issue(id string, grant *session.Grant, renewable bool) *Credential {
	f.store.mu.Lock()
	f.store.issued[id] = time.Now()
	f.store.mu.Unlock()
	answer := store.NewAnswer(&api.Secret{LeaseID: id, LeaseDuration: int(f.store.ttl.Seconds()), Renewable: renewable})
	return NewCredential(answer, grant, true)
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		grant := f.grant(t, "app")
		f.Commit("v", map[string]*Credential{"k": f.issue("l", grant, true)})
		pass(35 * time.Minute)
		if renewals, _ := f.store.state(); renewals != 0 {
			t.Error("renewed too early")
		}
		pass(205 * time.Minute) // four of the five hours
		c, ok := f.Get("v", "k", grant)
		if !ok {
			t.Fatal("the credential is not given again though it is renewed")
		}
		if renewals, _ := f.store.state(); renewals < 4 {
			t.Errorf("%d renewals in four hours", renewals)
		}
		if left, _ := f.Lease(c); left.Duration < 15*time.Minute {
			t.Errorf("lease = %+v", left)
		}
		pass(time.Hour)
		if _, ok := f.Get("v", "k", grant); ok {
			t.Error("the credential is given again though its maximum is reached")
		}
	})
}

func TestGet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		grant, other := f.grant(t, "app"), f.grant(t, "other")
		cert := NewCredential(store.NewAnswer(&api.Secret{Data: map[string]any{
			"expiration": number(time.Now().Add(time.Hour).Unix()),
		}}), grant, false)
		f.Commit("v", map[string]*Credential{"k": f.issue("l", grant, false), "cert": cert})
		tests := map[string]struct {
			volume, key string
			grant       *session.Grant
			want        bool
		}{
			"same":             {"v", "k", grant, true},
			"another volume":   {"w", "k", grant, false},
			"another key":      {"v", "l", grant, false},
			"another identity": {"v", "k", other, false},
			"certificate":      {"v", "cert", grant, true},
			"its identity":     {"v", "cert", other, false},
		}
		for name, tt := range tests {
			if _, ok := f.Get(tt.volume, tt.key, tt.grant); ok != tt.want {
				t.Errorf("%s: %v, want %v", name, ok, tt.want)
			}
		}
		pass(39 * time.Minute)
		if _, ok := f.Get("v", "k", grant); !ok {
			t.Error("not given again before two thirds")
		}
		pass(2 * time.Minute)
		if _, ok := f.Get("v", "k", grant); ok {
			t.Error("given again after two thirds, though it is not renewed")
		}
	})
}

// TestGetAfterRelogin: a lease ends with the token it was issued with, a
// certificate does not.
func TestGetAfterRelogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		old := f.grant(t, "app")
		cert := NewCredential(store.NewAnswer(&api.Secret{Data: map[string]any{
			"expiration": number(time.Now().Add(time.Hour).Unix()),
		}}), old, false)
		f.Commit("v", map[string]*Credential{"lease": f.issue("l", old, true), "cert": cert})
		use := session.Use{Identity: session.Identity{Role: "app"}, VolumeID: "v"}
		trial, err := f.sessions.Trial(t.Context(), old, use)
		if err != nil {
			t.Fatal(err)
		}
		f.sessions.Settle(trial, true)
		if _, ok := f.Get("v", "lease", trial); ok {
			t.Error("a lease of the old login is given again")
		}
		if _, ok := f.Get("v", "cert", trial); !ok {
			t.Error("a certificate is issued anew for each login")
		}
	})
}

func TestNewCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		grant := f.grant(t, "app")
		expiring := func(in time.Duration) map[string]any {
			return map[string]any{"expiration": number(time.Now().Add(in).Unix())}
		}
		tests := map[string]struct {
			secret   *api.Secret
			readOnly bool
			want     bool
		}{
			"lease":                   {&api.Secret{LeaseID: "l", LeaseDuration: 60}, true, true},
			"secret":                  {&api.Secret{LeaseDuration: 2764800, Data: map[string]any{"k": "v"}}, true, false},
			"certificate":             {&api.Secret{Data: expiring(time.Hour)}, false, true},
			"certificate, read":       {&api.Secret{Data: expiring(time.Hour)}, true, false},
			"certificate, expired":    {&api.Secret{Data: expiring(-time.Hour)}, false, false},
			"expiration is no number": {&api.Secret{Data: map[string]any{"expiration": "soon"}}, false, false},
		}
		for name, tt := range tests {
			if got := NewCredential(store.NewAnswer(tt.secret), grant, tt.readOnly) != nil; got != tt.want {
				t.Errorf("%s: %v, want %v", name, got, tt.want)
			}
		}
	})
}

// TestRenewalRefused: the next fetch gets another, and pods keep the old one
// until their volume is gone.
func TestRenewalRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		grant := f.grant(t, "app")
		f.Commit("v", map[string]*Credential{"k": f.issue("old", grant, true)})
		f.store.set(&store.Error{Status: 403})
		pass(45 * time.Minute)
		if _, ok := f.Get("v", "k", grant); ok {
			t.Fatal("given again though the store does not renew it")
		}
		f.store.set(nil)
		f.Commit("v", map[string]*Credential{"k": f.issue("new", grant, true)})
		if _, revoked := f.store.state(); len(revoked) != 0 {
			t.Errorf("revoked %v while the volume is mounted", revoked)
		}
		f.Release(t.Context(), "v")
		f.Release(t.Context(), "v")
		if _, revoked := f.store.state(); !slices.Equal(revoked, []string{"new", "old"}) {
			t.Errorf("revoked %v, want both, once", revoked)
		}
	})
}

func TestRenewalDuringOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		grant := f.grant(t, "app")
		f.Commit("v", map[string]*Credential{"k": f.issue("l", grant, true)})
		f.store.set(&store.Error{Status: 503})
		pass(50 * time.Minute)
		if _, ok := f.Get("v", "k", grant); !ok {
			t.Error("given up while it is valid and the store is down")
		}
		f.store.set(nil)
		pass(15 * time.Minute)
		if _, ok := f.Get("v", "k", grant); !ok {
			t.Error("not renewed after the outage")
		}
	})
}

// TestForgottenVolume: its end is never announced.
func TestForgottenVolume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		f.store.maximum = 10000 * time.Hour
		grant := f.grant(t, "app")
		f.Commit("v", map[string]*Credential{"k": f.issue("l", grant, true)})
		pass(200 * time.Hour)
		renewals, _ := f.store.state()
		pass(200 * time.Hour)
		if now, _ := f.store.state(); now != renewals {
			t.Error("still renewed")
		}
		f.Commit("other", nil)
		if len(f.volumes) != 0 {
			t.Errorf("%d volumes kept", len(f.volumes))
		}
	})
}

// TestRevocationDenied: the log says what to do, and no lease's id.
func TestRevocationDenied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		var log strings.Builder
		f.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		f.store.set(&store.Error{Status: 403, Texts: []string{"permission denied"}})
		f.Discard(t.Context(), []*Credential{f.issue("canary-lease", f.grant(t, "app"), true)})
		if text := log.String(); !strings.Contains(text, "allow update on sys/leases/revoke") || strings.Contains(text, "canary") {
			t.Errorf("log = %s", text)
		}
	})
}

func number(n int64) any { return json.Number(fmt.Sprint(n)) }
