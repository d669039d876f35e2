package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// left is the state that another process of the store's has left of a volume
// with these credentials, whose login is valid for so long.
func left(t *testing.T, m *memory, login time.Duration, issue func(*fixture, *session.Grant) map[string]*Credential) sdk.Secret {
	t.Helper()
	earlier := start(t)
	earlier.store.login = login
	grant := earlier.grant(t, "app")
	credentials := issue(earlier, grant)
	visit := earlier.Enter("v")
	defer visit.Leave()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range earlier.store.issued {
		m.issued[id] = earlier.store.issued[id]
	}
	return visit.State(grant.Identity(), credentials)
}

func one(id string, renewable bool) func(*fixture, *session.Grant) map[string]*Credential {
	return func(f *fixture, grant *session.Grant) map[string]*Credential {
		return map[string]*Credential{"k": f.issue(id, grant, renewable)}
	}
}

// takeOver is the first fetch for the volume.
func (f *fixture) takeOver(t *testing.T, grant *session.Grant, state sdk.Secret, keys ...string) error {
	t.Helper()
	visit := f.Enter("v")
	defer visit.Leave()
	if err := visit.TakeOver(t.Context(), grant, state, keys); err != nil {
		return err
	}
	all := make(map[string]*Credential)
	for _, key := range keys {
		if c, ok := visit.Get(key, grant); ok {
			all[key] = c
		}
	}
	visit.Commit(all)
	return nil
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		f.store.prolonged = 20 * time.Minute
		state := left(t, f.store, 20*time.Minute, one("l", true))
		pass(10 * time.Minute)
		grant := f.grant(t, "app")
		for range 2 { // the second time it is known
			if err := f.takeOver(t, grant, state, "k"); err != nil {
				t.Fatal(err)
			}
		}
		if renewals, _ := f.store.state(); renewals != 1 {
			t.Errorf("the store was asked %d times whether the lease lives, want once", renewals)
		}
		for range 16 {
			pass(15 * time.Minute)
			c, ok := f.Get("v", "k", grant)
			if !ok || c.Answer != nil || c.ID() != "l" {
				t.Fatalf("the lease that was taken over is not given again: %+v, %v", c, ok)
			}
		}
		if got := len(f.store.renewedAccessors()); got < 16 || got > 24 {
			t.Errorf("a login of 20 minutes was renewed %d times in 4 hours", got)
		}
		f.Release(t.Context(), "v")
		if _, revoked := f.store.state(); !slices.Equal(revoked, []string{"l"}) {
			t.Errorf("revoked %v, want the lease that was taken over", revoked)
		}
		renewals := len(f.store.renewedAccessors())
		pass(10 * time.Hour)
		if got := len(f.store.renewedAccessors()); got != renewals || len(f.formers) != 0 {
			t.Errorf("%d renewals of a login that nothing hangs on, %d are known", got-renewals, len(f.formers))
		}
	})
}

// TestTakeOverUntilLoginEnds: a lease does not outlive the login that it was
// issued with, whatever its own time to live.
func TestTakeOverUntilLoginEnds(t *testing.T) {
	t.Parallel()
	denied := &store.Error{Status: 403}
	for name, tt := range map[string]struct {
		login, prolonged time.Duration
		denied           error
		lives, ends      time.Duration
	}{
		"may not be renewed":   {30 * time.Minute, 0, denied, 19 * time.Minute, 21 * time.Minute},
		"nears its maximum":    {30 * time.Minute, 15 * time.Minute, nil, 10 * time.Minute, 40 * time.Minute},
		"lives for ever":       {0, 0, denied, 45 * time.Minute, 0},
		"has ended, they say":  {time.Nanosecond, 0, denied, 0, time.Minute},
		"lives for ever again": {30 * time.Minute, 0, nil, 45 * time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := start(t)
				f.store.prolonged, f.store.denied = tt.prolonged, tt.denied
				state := left(t, f.store, tt.login, one("l", true))
				grant := f.grant(t, "app")
				if err := f.takeOver(t, grant, state, "k"); err != nil {
					t.Fatal(err)
				}
				f.store.mu.Lock()
				f.store.prolonged /= 3 // each renewal from now on
				f.store.mu.Unlock()
				pass(tt.lives)
				if _, ok := f.Get("v", "k", grant); !ok && tt.lives > 0 {
					t.Errorf("not given again after %s", tt.lives)
				}
				if tt.ends == 0 {
					return
				}
				pass(tt.ends - tt.lives)
				if _, ok := f.Get("v", "k", grant); ok {
					t.Errorf("given again after %s", tt.ends)
				}
			})
		})
	}
}

// TestTakeOverNothing: what does not live, or is of somebody else, is left.
func TestTakeOverNothing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(f *fixture, state map[string]any)
		role   string
		want   bool
	}{
		"nothing":          {func(*fixture, map[string]any) {}, "app", true},
		"another identity": {func(*fixture, map[string]any) {}, "other", false},
		"a lease that is gone": {func(f *fixture, _ map[string]any) {
			f.store.set(&store.Error{Status: 400})
		}, "app", false},
		"another version": {func(_ *fixture, state map[string]any) { state["version"] = 2 }, "app", false},
		"nobody's":        {func(_ *fixture, state map[string]any) { delete(state, "identity") }, "app", false},
		"another request": {func(_ *fixture, state map[string]any) {
			state["credentials"].([]any)[0].(map[string]any)["key"] = "another"
		}, "app", false},
		"no lease": {func(_ *fixture, state map[string]any) {
			state["credentials"].([]any)[0].(map[string]any)["id"] = ""
		}, "app", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := start(t)
				var decoded map[string]any
				if err := json.Unmarshal(left(t, f.store, time.Hour, one("l", true)).Reveal(), &decoded); err != nil {
					t.Fatal(err)
				}
				tt.change(f, decoded)
				encoded, err := json.Marshal(decoded)
				if err != nil {
					t.Fatal(err)
				}
				grant := f.grant(t, tt.role)
				if err := f.takeOver(t, grant, sdk.NewSecret(encoded), "k"); err != nil {
					t.Fatal(err)
				}
				if _, ok := f.Get("v", "k", grant); ok != tt.want {
					t.Errorf("taken over: %v, want %v", ok, tt.want)
				}
			})
		})
	}
}

// TestTakeOverNoState: an earlier version, a driver that remembers nothing,
// garbage.
func TestTakeOverNoState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		for _, state := range []string{"", "{}", "null", "\x00", `{"version":1,"credentials":[{}]}`} {
			if err := f.takeOver(t, f.grant(t, "app"), sdk.NewSecret([]byte(state)), "k"); err != nil {
				t.Errorf("%q: %v", state, err)
			}
		}
	})
}

// TestTakeOverDuringOutage: whether a lease lives is not known, so nothing is
// decided.
func TestTakeOverDuringOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		state := left(t, f.store, time.Hour, one("l", true))
		grant := f.grant(t, "app")
		f.store.set(&store.Error{Status: 503})
		if err := f.takeOver(t, grant, state, "k"); !store.Is(err, 503) {
			t.Fatalf("error = %v, want what the store said", err)
		}
		f.store.set(nil)
		if err := f.takeOver(t, grant, state, "k"); err != nil {
			t.Fatal(err)
		}
		if _, ok := f.Get("v", "k", grant); !ok {
			t.Error("not taken over after the outage")
		}
	})
}

// TestTakeOverNotRenewable: a lease that cannot be renewed is looked up, and one
// that is not asked for any more is still the volume's.
func TestTakeOverNotRenewable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		state := left(t, f.store, 0, func(f *fixture, grant *session.Grant) map[string]*Credential {
			return map[string]*Credential{"k": f.issue("a", grant, false), "gone": f.issue("b", grant, false)}
		})
		grant := f.grant(t, "app")
		if err := f.takeOver(t, grant, state, "k"); err != nil {
			t.Fatal(err)
		}
		pass(39 * time.Minute)
		if _, ok := f.Get("v", "k", grant); !ok {
			t.Error("not given again before two thirds")
		}
		pass(2 * time.Minute)
		if _, ok := f.Get("v", "k", grant); ok {
			t.Error("given again after two thirds, though it is not renewed")
		}
		if renewals, _ := f.store.state(); renewals != 0 || f.store.lookups != 2 {
			t.Errorf("%d renewals and %d lookups, want none and 2", renewals, f.store.lookups)
		}
		f.Release(t.Context(), "v")
		if _, revoked := f.store.state(); !slices.Equal(revoked, []string{"a", "b"}) {
			t.Errorf("revoked %v, want both", revoked)
		}
	})
}

// TestStateTellsNothing: neither the token nor what was issued nor what was
// asked for, and it is bounded.
func TestStateTellsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		grant := f.grant(t, "app")
		many := make(map[string]*Credential)
		for i := range 1000 {
			c := NewCredential(store.NewAnswer(&api.Secret{
				LeaseID: fmt.Sprintf("database/creds/app/%d", i), LeaseDuration: 60, Renewable: true,
				Data: map[string]any{"password": "canary-content"},
			}), grant, true)
			many[fmt.Sprintf("canary-request-%d", i)] = c
		}
		visit := f.Enter("v")
		defer visit.Leave()
		state := string(visit.State(grant.Identity(), many).Reveal())
		if strings.Contains(state, "canary") || strings.Contains(state, grant.Token().Reveal()) {
			t.Errorf("state = %s", state)
		}
		if len(state) < sdk.MaxStateBytes/4 || len(state) > sdk.MaxStateBytes {
			t.Errorf("%d bytes of state for a thousand credentials", len(state))
		}
		if state := visit.State(grant.Identity(), nil); !state.IsZero() {
			t.Errorf("state of a volume without credentials: %s", state.Reveal())
		}
	})
}

// TestReleaseDuringFetch: nothing is kept for a volume that is gone.
func TestReleaseDuringFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		state := left(t, f.store, time.Hour, one("old", true))
		grant := f.grant(t, "app")
		visit, other := f.Enter("v"), f.Enter("w")
		f.Release(t.Context(), "v")
		if err := visit.TakeOver(t.Context(), grant, state, []string{"k"}); err != nil {
			t.Fatal(err)
		}
		if visit.Commit(map[string]*Credential{"k": f.issue("l", grant, true)}) {
			t.Error("kept for a volume that was released meanwhile")
		}
		visit.Retain(map[string]*Credential{"k": f.issue("l", grant, true)})
		visit.Leave()
		if !other.Commit(nil) {
			t.Error("another volume is affected")
		}
		other.Leave()
		if len(f.volumes) != 0 || len(f.visits) != 0 {
			t.Errorf("%d volumes and %d visits are left", len(f.volumes), len(f.visits))
		}
		if !f.Commit("v", map[string]*Credential{"k": f.issue("m", grant, true)}) {
			t.Error("a volume cannot come back after its release")
		}
	})
}

// TestRetiredAreBounded: a credential that was replaced again and again is not
// left to pods for ever.
func TestRetiredAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		grant := f.grant(t, "app")
		for i := range 10 {
			f.Commit("v", map[string]*Credential{"k": f.issue(fmt.Sprint(i), grant, true)})
			pass(time.Second)
		}
		if _, revoked := f.store.state(); !slices.Equal(revoked, []string{"0", "1", "2", "3", "4"}) {
			t.Errorf("revoked %v, want all but the last %d before the current one", revoked, maxRetired)
		}
	})
}

// TestRetain: what could not be revoked serves the next fetch, and nobody
// renews it before.
func TestRetain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		grant := f.grant(t, "app")
		f.store.set(errors.New("away"))
		left := f.Discard(t.Context(), []*Credential{f.issue("l", grant, true)})
		f.store.set(nil)
		if len(left) != 1 {
			t.Fatalf("%d credentials left, want the one that could not be revoked", len(left))
		}
		visit := f.Enter("v")
		visit.Retain(map[string]*Credential{"k": left[0]})
		visit.Leave()
		pass(50 * time.Minute)
		if renewals, _ := f.store.state(); renewals != 0 {
			t.Error("renewed for a volume that was never mounted")
		}
		c, ok := f.Get("v", "k", grant)
		if !ok {
			t.Fatal("not given to the next fetch")
		}
		f.Commit("v", map[string]*Credential{"k": c})
		pass(time.Minute)
		if renewals, _ := f.store.state(); renewals != 1 {
			t.Errorf("renewed %d times after the mount, want at once: two thirds of its life are over", renewals)
		}
	})
}

// TestRetiredEndWithTheirLogin: nothing is left to revoke of a lease whose login
// has ended, however long the lease itself would live.
func TestRetiredEndWithTheirLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		f.store.ttl, f.store.login = 100*time.Hour, 20*time.Minute
		grant := f.grant(t, "app")
		f.Commit("v", map[string]*Credential{"k": f.issue("old", grant, true)})
		f.Commit("v", map[string]*Credential{"k": f.issue("new", grant, true)})
		for _, step := range []struct {
			pass time.Duration
			left int
		}{{15 * time.Minute, 1}, {10 * time.Minute, 0}} {
			pass(step.pass)
			f.Commit("other", nil)
			if left := len(f.volumes["v"].retired); left != step.left {
				t.Errorf("%d credentials wait to be revoked after %s more, want %d", left, step.pass, step.left)
			}
		}
	})
}
