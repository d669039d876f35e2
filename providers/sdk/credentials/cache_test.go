package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestAcquireCoalesces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: always(answer{takes: time.Second, life: time.Hour})}
		c := cache(s, nil)
		var pods sync.WaitGroup
		for i := range 20 {
			pods.Go(func() {
				got, cached, err := c.Acquire(t.Context(), "a", token(fmt.Sprint(i)))
				if err != nil || cached || got.number != 1 {
					t.Errorf("%+v, cached %v, error %v", got, cached, err)
				}
			})
		}
		pods.Wait()
		wants(t, c, 1, true)
		if got, cached := get(t, c, "b", "pod"); cached || got.number != 2 {
			t.Errorf("another identity gets login %d, cached %v", got.number, cached)
		}
	})
}

// TestMargin: a credential is kept until five minutes before its end, or until the
// last tenth of a short life.
func TestMargin(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ life, margin time.Duration }{
		{time.Hour, 5 * time.Minute},
		{12 * time.Hour, 5 * time.Minute},
		{50 * time.Minute, 5 * time.Minute},
		{15 * time.Minute, 90 * time.Second},
		{time.Minute, 6 * time.Second},
	} {
		t.Run(test.life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := cache(&store{answer: always(answer{life: test.life})}, nil)
				wants(t, c, 1, false)
				pass(test.life - test.margin - time.Second)
				wants(t, c, 1, true)
				pass(time.Second)
				wants(t, c, 2, false)
				wants(t, c, 2, true)
			})
		})
	}
}

// TestExpiredOnArrival: who waited gets it, and nobody else.
func TestExpiredOnArrival(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{0, -time.Hour} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &store{answer: always(answer{life: life})}
				c := cache(s, nil)
				wants(t, c, 1, false)
				wants(t, c, 2, false)
				s.become(answer{err: errDown})
				if got, _, err := c.Acquire(t.Context(), "a", token("pod")); !errors.Is(err, errDown) {
					t.Errorf("%+v, error %v", got, err)
				}
				if len(c.kept) != 0 {
					t.Errorf("%d credentials are kept", len(c.kept))
				}
				s.become(answer{life: time.Hour})
				wants(t, c, 4, false)
				pass(56 * time.Minute)
				s.become(answer{life: life})
				wants(t, c, 5, false)
				s.become(answer{err: errDown})
				wants(t, c, 4, true)
			})
		})
	}
}

// TestMax: the one that was not used for longest goes, also where it is used in an
// outage.
func TestMax(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := forAnHour()
		c := cache(s, func(cfg *Config[string, *session]) { cfg.Max = 3 })
		kept := func(identities ...string) {
			t.Helper()
			for _, identity := range identities {
				if _, ok := c.kept[identity]; !ok {
					t.Errorf("%s is not kept", identity)
				}
			}
			if len(c.kept) != len(identities) {
				t.Errorf("%d are kept, want %v", len(c.kept), identities)
			}
		}
		get(t, c, "a", "pod")
		get(t, c, "b", "pod")
		for i := range 10 {
			get(t, c, fmt.Sprint(i), "pod")
			get(t, c, "a", "pod")
			get(t, c, fmt.Sprint(i+1), "pod")
			kept("a", fmt.Sprint(i), fmt.Sprint(i+1))
		}
		get(t, c, "c", "pod")
		get(t, c, "a", "pod")
		get(t, c, "d", "pod")
		kept("a", "c", "d")
		pass(56 * time.Minute)
		s.become(answer{err: errDown})
		for _, identity := range []string{"d", "c"} {
			if _, cached := get(t, c, identity, "pod"); !cached {
				t.Errorf("%s does not go on", identity)
			}
		}
		s.become(answer{life: time.Hour})
		get(t, c, "e", "pod")
		kept("c", "d", "e")
		get(t, c, "c", "pod") // its own place is no other's
		kept("c", "d", "e")
		pass(58 * time.Minute)
		get(t, c, "f", "pod")
		kept("c", "e", "f")
		pass(2 * time.Hour)
		get(t, c, "g", "pod")
		kept("g")
	})
}

// TestDefaults: only Login has to be there.
func TestDefaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := forAnHour()
		c := New(Config[string, *session]{Login: s.login})
		for i := range DefaultMax + 1 {
			get(t, c, fmt.Sprint(i), "pod")
		}
		if len(c.kept) != DefaultMax {
			t.Errorf("%d are kept, want %d", len(c.kept), DefaultMax)
		}
		pass(56 * time.Minute)
		for _, failure := range []error{errDown, errRefused} {
			s.become(answer{err: failure})
			if _, _, err := c.Acquire(t.Context(), "1", token("pod")); !errors.Is(err, failure) {
				t.Errorf("error %v, want %v", err, failure)
			}
		}
		s.become(answer{takes: time.Hour})
		start := time.Now()
		if _, _, err := c.Acquire(t.Context(), "new", token("pod")); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != DefaultLoginTimeout {
			t.Errorf("error %v after %s, want the end of the login's time", err, time.Since(start))
		}
	})
}

// TestDrop: what the store has ended is forgotten, once for all who tell so.
func TestDrop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := cache(forAnHour(), nil)
		c.Drop("a", nil)
		first, _ := get(t, c, "a", "pod")
		other, _ := get(t, c, "b", "pod")
		c.Drop("b", first)
		c.Drop("a", other)
		wants(t, c, 1, true)
		c.Drop("a", first)
		wants(t, c, 3, false)
		c.Drop("a", first) // by another, later
		wants(t, c, 3, true)
		if got, cached := get(t, c, "b", "pod"); !cached || got != other {
			t.Error("another identity's credential was dropped")
		}
	})
}

// TestOutageInTheMargin: a credential that still lasts serves on while there is no
// other, but not against a refusal.
func TestOutageInTheMargin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := forAnHour()
		c := cache(s, func(cfg *Config[string, *session]) {
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			cfg.Attrs = func(identity string) []slog.Attr { return []slog.Attr{slog.String("name", identity)} }
		})
		wants(t, c, 1, false)
		pass(56 * time.Minute)

		s.become(answer{err: errDown})
		wants(t, c, 1, true)
		for _, want := range []string{"will go on with those that expire soon", "name=a", `error="the store is down"`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%q is missing in the log:\n%s", want, log.String())
			}
		}
		s.become(answer{err: errRefused})
		if _, _, err := c.Acquire(t.Context(), "a", token("pod")); !errors.Is(err, errRefused) {
			t.Errorf("error %v, want the refusal", err)
		}
		s.become(answer{err: errDown})
		pass(3*time.Minute + 31*time.Second) // the last seconds are no use
		if _, _, err := c.Acquire(t.Context(), "a", token("pod")); !errors.Is(err, errDown) {
			t.Errorf("error %v, want the outage", err)
		}
	})
}

// TestSlowRenewal: fetches do not wait for long while they have a credential, and
// the login goes on for those that come later. None waits for it once more.
func TestSlowRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := forAnHour()
		c := cache(s, nil)
		wants(t, c, 1, false)
		pass(56 * time.Minute)
		s.become(answer{takes: 12 * time.Second, life: time.Hour})
		start := time.Now()
		ctx, leave := context.WithCancel(t.Context())
		left := asks(ctx, c, request[string]{identity: "a", token: token("a")})
		pass(time.Second)
		goesOn := asks(t.Context(), c, request[string]{identity: "a", token: token("b")})
		synctest.Wait()
		leave()
		if got := <-left; !errors.Is(got.err, context.Canceled) {
			t.Errorf("who left: %+v", got)
		}
		if got := <-goesOn; got.err != nil || !got.cached || got.credential.number != 1 || time.Since(start) != renewalWait {
			t.Errorf("who waited: %+v, after %s", got, time.Since(start))
		}
		wants(t, c, 1, true)
		if time.Since(start) != renewalWait {
			t.Errorf("waited once more, until %s", time.Since(start))
		}
		pass(8 * time.Second)
		wants(t, c, 2, true)
		if s.cut != 0 {
			t.Error("the login was cancelled")
		}
	})
}

// TestRenewalAndDeadline: a fetch that has a credential has time left to use it.
func TestRenewalAndDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := forAnHour()
		c := cache(s, nil)
		wants(t, c, 1, false)
		pass(56 * time.Minute)
		s.become(answer{takes: 10 * time.Second, life: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		start := time.Now()
		got, cached, err := c.Acquire(ctx, "a", token("pod"))
		if err != nil || !cached || got.number != 1 || time.Since(start) != 2*time.Second {
			t.Errorf("%+v, cached %v, error %v after %s; want the one there is after 2s", got, cached, err, time.Since(start))
		}
		pass(10 * time.Second)
		synctest.Wait()
		wants(t, c, 2, true)
	})
}

// TestRenewalAtTheEnd: who waits while the credential comes to its end waits on.
func TestRenewalAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := forAnHour()
		c := cache(s, nil)
		wants(t, c, 1, false)
		pass(time.Hour - 32*time.Second) // it lasts for two seconds
		s.become(answer{takes: 12 * time.Second, life: time.Hour})
		start := time.Now()
		wants(t, c, 2, false)
		if time.Since(start) != 12*time.Second {
			t.Errorf("after %s", time.Since(start))
		}
	})
}

// TestDroppedInTheMargin: who waits for a login does not go on with what others
// have dropped.
func TestDroppedInTheMargin(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]answer{
		"slow":   {takes: time.Hour},
		"outage": {takes: time.Second, err: errDown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := forAnHour()
				c := cache(s, nil)
				first, _ := get(t, c, "a", "pod")
				pass(56 * time.Minute)
				s.become(late)
				waits := asks(t.Context(), c, request[string]{identity: "a"})
				synctest.Wait()
				c.Drop("a", first)
				if got := <-waits; got.err == nil {
					t.Error("goes on with what was dropped")
				}
			})
		})
	}
}

// secretive is an identity that holds a secret.
type secretive struct {
	name string
	key  sdk.SecretString
}

// TestNothingLeaks: neither tokens nor credentials show, however a value is
// printed. What is printed has the time's zone in it, which other tests may be about
// to load: it runs alone.
func TestNothingLeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &store{answer: always(answer{takes: time.Second, life: time.Hour})}
		identity := secretive{"shop", sdk.NewSecretString("canary-key")}
		c := New(Config[secretive, *session]{
			Login: func(ctx context.Context, identity secretive, token sdk.SecretString) (*session, error) {
				return s.login(ctx, identity.name, token)
			},
			Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Attrs:  func(identity secretive) []slog.Attr { return []slog.Attr{slog.Any("name", identity)} },
		})
		acquired := make(chan error)
		go func() {
			_, _, err := c.Acquire(t.Context(), identity, token("pod"))
			acquired <- err
		}()
		synctest.Wait()
		c.mu.Lock()
		f := c.flights[identity]
		c.mu.Unlock()
		if err := <-acquired; err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // a mutex is printed, too
		req := request[secretive]{identity: identity, token: token("pod")}
		printed := prints(c, c.kept, c.kept[identity], f, *f, req, &req, c.cfg)
		if text := log.String() + printed; strings.Contains(text, "canary") {
			t.Errorf("a secret shows up in:\n%s", text)
		}
		if !strings.Contains(log.String(), `"logged in"`) || !strings.Contains(printed, "shop") {
			t.Errorf("the test shows nothing:\n%s%s", log.String(), printed)
		}
	})
}

// prints is all that Go makes of values.
func prints(values ...any) string {
	var text strings.Builder
	for _, value := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&text, verb+"\n", value)
		}
		encoded, err := json.Marshal(value)
		fmt.Fprintf(&text, "%s %v\n", encoded, err)
	}
	return text.String()
}
