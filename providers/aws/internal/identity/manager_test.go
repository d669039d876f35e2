package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go/logging"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

// pass lets time pass.
func pass(d time.Duration) { <-time.After(d) }

func TestAcquireCoalesces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := service()
		s.takes = time.Second
		m := manager(s, nil)
		var pods sync.WaitGroup
		for i := range 20 {
			pods.Go(func() {
				got, err := m.Acquire(t.Context(), irsa(fmt.Sprint(i)))
				if err != nil || got.Cached() || keyID(t, got) != "canary-id-1" {
					t.Errorf("%v, cached %v, error %v", got, got.Cached(), err)
				}
			})
		}
		pods.Wait()
		if s.count() != 1 {
			t.Errorf("%d logins, want 1", s.count())
		}
		if later := session(t, m, irsa("later")); !later.Cached() || keyID(t, later) != "canary-id-1" {
			t.Error("a later pod does not get the same")
		}
	})
}

// TestNotShared: whatever makes another identity makes another login; what does
// not, does not.
func TestNotShared(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		use    Use
		change func(*Use)
		same   bool
	}{
		"role":                       {irsa("a"), func(u *Use) { u.RoleARN += "2" }, false},
		"region":                     {irsa("a"), func(u *Use) { u.Region = "eu-west-2" }, false},
		"namespace":                  {irsa("a"), func(u *Use) { u.Subject.Namespace = "bank" }, false},
		"service account":            {irsa("a"), func(u *Use) { u.Subject.ServiceAccount = "other" }, false},
		"mode":                       {irsa("a"), func(u *Use) { u.PodIdentity = true }, false},
		"pod":                        {irsa("a"), func(u *Use) { u.Token = irsa("b").Token }, true},
		"expiry":                     {irsa("a"), func(u *Use) { u.Expiry = time.Time{} }, true},
		"address type":               {irsa("a"), func(u *Use) { u.AddressType = params.IPv6 }, true},
		"association":                {podIdentity("a"), func(u *Use) { u.Subject.ServiceAccount = "other" }, false},
		"association of a namespace": {podIdentity("a"), func(u *Use) { u.Subject.Namespace = "bank" }, false},
		"way to the agent":           {podIdentity("a"), func(u *Use) { u.AddressType = params.IPv6 }, false},
		"role of Pod Identity":       {podIdentity("a"), func(u *Use) { u.RoleARN, u.Region = testRole, "eu-west-2" }, true},
		"pod of Pod Identity":        {podIdentity("a"), func(u *Use) { u.Token = irsa("b").Token }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &transport{answer: func(number int, one asked) answer {
					if strings.Contains(one.path, "credentials") {
						return answer{status: http.StatusOK, body: associated(time.Hour)}
					}
					return answer{status: http.StatusOK, body: issued(number, time.Hour)}
				}}
				m := manager(s, nil)
				first := session(t, m, test.use)
				test.change(&test.use)
				second := session(t, m, test.use)
				if second.Cached() != test.same || (s.count() == 1) != test.same || (first.Key() == second.Key()) != test.same {
					t.Errorf("cached %v, %d logins, keys %s and %s; want shared %v", second.Cached(), s.count(), first.Key(), second.Key(), test.same)
				}
			})
		})
	}
}

// TestMargin: credentials are kept until five minutes before their end, or until
// the last tenth of a short life.
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
				s := &transport{answer: func(number int, _ asked) answer {
					return answer{status: http.StatusOK, body: issued(number, test.life)}
				}}
				m := manager(s, nil)
				session(t, m, irsa("a"))
				pass(test.life - test.margin - time.Second)
				if got := session(t, m, irsa("a")); !got.Cached() || keyID(t, got) != "canary-id-1" {
					t.Error("not kept until the margin")
				}
				pass(time.Second)
				if got := session(t, m, irsa("a")); got.Cached() || keyID(t, got) != "canary-id-2" {
					t.Error("used in the margin")
				}
				if s.count() != 2 {
					t.Errorf("%d logins, want 2", s.count())
				}
			})
		})
	}
}

// TestMaxSessions: the one that was not used for longest goes.
func TestMaxSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		account := func(name string) Use {
			u := irsa("a")
			u.Subject.ServiceAccount = name
			return u
		}
		m := manager(service(), func(c *Config) { c.MaxSessions = 3 })
		for _, name := range []string{"a", "b", "c", "a", "d"} {
			session(t, m, account(name))
		}
		if len(m.grants) != 3 {
			t.Errorf("%d sessions are kept", len(m.grants))
		}
		for _, name := range []string{"a", "c", "d"} {
			if !session(t, m, account(name)).Cached() {
				t.Errorf("%s is not kept", name)
			}
		}
		if session(t, m, account("b")).Cached() {
			t.Error("b is kept")
		}
		byDefault := manager(service(), nil)
		session(t, byDefault, account("a"))
		session(t, byDefault, account("b"))
		if !session(t, byDefault, account("a")).Cached() {
			t.Error("two sessions are too many by default")
		}
		pass(2 * time.Hour)
		session(t, m, account("e"))
		if len(m.grants) != 1 {
			t.Errorf("%d sessions are kept after all but one have expired", len(m.grants))
		}
	})
}

// TestDrop: what AWS has ended is forgotten, once for all who tell so.
func TestDrop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := service()
		m := manager(s, nil)
		m.Drop(Session{})
		first := session(t, m, irsa("a"))
		also := session(t, m, irsa("b"))
		m.Drop(first)
		second := session(t, m, irsa("a"))
		if second.Cached() || keyID(t, second) == keyID(t, first) {
			t.Error("what was dropped is used")
		}
		m.Drop(also) // the same that was dropped before
		if got := session(t, m, irsa("b")); !got.Cached() || keyID(t, got) != keyID(t, second) {
			t.Error("the newer session was dropped with the older")
		}
		if s.count() != 2 {
			t.Errorf("%d logins, want 2", s.count())
		}
	})
}

// TestOutageInTheMargin: credentials that are still good serve on while there are
// no others, but not against a refusal.
func TestOutageInTheMargin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := service()
		m := manager(s, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		session(t, m, irsa("a"))
		pass(56 * time.Minute)

		s.become(always(http.StatusServiceUnavailable, ""), 0)
		if got := session(t, m, irsa("a")); !got.Cached() || keyID(t, got) != "canary-id-1" {
			t.Error("not those that are still good")
		}
		if !strings.Contains(log.String(), "will go on with those that expire soon") || strings.Contains(log.String(), "canary") {
			t.Errorf("log:\n%s", log.String())
		}

		s.become(always(http.StatusServiceUnavailable, ""), time.Hour)
		start := time.Now()
		if got := session(t, m, irsa("a")); !got.Cached() || time.Since(start) != renewalWait {
			t.Errorf("cached %v, after %s", got.Cached(), time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.Acquire(ctx, irsa("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v of one who left", err)
		}

		s.become(always(http.StatusForbidden, refusal("AccessDenied", "no")), 0)
		_, err := m.Acquire(t.Context(), irsa("a"))
		if e := failure(t, err); e.Kind != Denied {
			t.Errorf("error %v, want the refusal", err)
		}

		s.become(always(http.StatusServiceUnavailable, ""), 0)
		pass(3*time.Minute + 31*time.Second) // the last seconds are no use
		_, err = m.Acquire(t.Context(), irsa("a"))
		if e := failure(t, err); e.Kind != Unavailable {
			t.Errorf("error %v, want Unavailable", err)
		}
	})
}

// TestNothingLeaks: neither tokens nor credentials show, however a value is
// printed.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		m := manager(service(), func(c *Config) {
			c.Logger = logger
			c.AWS.ClientLogMode = aws.LogRequestWithBody | aws.LogResponseWithBody
			c.AWS.Logger = logging.NewStandardLogger(&log)
		})
		use := irsa("a")
		got := session(t, m, use)
		synctest.Wait() // a mutex is printed, too
		printed := prints(t, got, &got, got.Provider(), *got.grant, use, &use, m, m.flights, m.grants)
		logger.Info("x", "session", got, "provider", got.Provider(), "use", use)
		if text := log.String() + printed; strings.Contains(text, "canary") {
			t.Errorf("a secret shows up in:\n%s", text)
		}
		for _, want := range []string{"logged in", "credentials of role " + testRole + " of service account shop/cart in eu-west-1"} {
			if !strings.Contains(log.String()+printed, want) {
				t.Errorf("%q is missing in:\n%s%s", want, log.String(), printed)
			}
		}
	})
	if text := prints(t, Session{}); !strings.Contains(text, "no credentials") {
		t.Errorf("no session prints as %s", text)
	}
}

// prints is all that Go makes of values.
func prints(t *testing.T, values ...any) string {
	t.Helper()
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

// noCanary checks that an error holds no secret, nor any error in it.
func noCanary(t *testing.T, err error) {
	t.Helper()
	var all []any
	for ; err != nil; err = errors.Unwrap(err) {
		all = append(all, err)
		if e, ok := err.(*Error); ok { //nolint:errorlint // each is looked at by itself
			all = append(all, *e)
		}
	}
	if text := prints(t, all...); strings.Contains(text, "canary") {
		t.Errorf("a secret shows up in:\n%s", text)
	}
}
