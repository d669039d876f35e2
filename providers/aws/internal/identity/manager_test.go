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
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go/logging"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

// pass lets time pass.
func pass(d time.Duration) { <-time.After(d) }

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

// TestSessions: credentials serve until shortly before their end, and as long as
// there is room.
func TestSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := manager(service(), func(c *Config) { c.MaxSessions = 1 })
		wants := func(use Use, id string, cached bool) {
			t.Helper()
			if got := session(t, m, use); keyID(t, got) != id || got.Cached() != cached {
				t.Errorf("%s, cached %v; want %s, %v", keyID(t, got), got.Cached(), id, cached)
			}
		}
		wants(irsa("a"), "canary-id-1", false)
		pass(55*time.Minute - time.Second)
		wants(irsa("b"), "canary-id-1", true)
		pass(time.Second)
		wants(irsa("a"), "canary-id-2", false)
		other := irsa("a")
		other.Subject.ServiceAccount = "other"
		wants(other, "canary-id-3", false)
		wants(irsa("a"), "canary-id-4", false)
		byDefault := manager(service(), nil)
		session(t, byDefault, irsa("a"))
		session(t, byDefault, other)
		if !session(t, byDefault, irsa("a")).Cached() {
			t.Error("two sessions are too many by default")
		}
	})
}

// TestDrop: what AWS has ended is forgotten, once for all who tell so.
func TestDrop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := manager(service(), nil)
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
	})
}

// TestFailuresInTheMargin: credentials that are still good serve on while AWS has
// no others, but not against a refusal.
func TestFailuresInTheMargin(t *testing.T) {
	t.Parallel()
	for code, test := range map[string]struct {
		status int
		goesOn bool
	}{
		"ServiceUnavailable":    {http.StatusServiceUnavailable, true},
		"Throttling":            {http.StatusBadRequest, true},
		"IDPCommunicationError": {http.StatusBadRequest, true},
		"AccessDenied":          {http.StatusForbidden, false},
		"ExpiredTokenException": {http.StatusBadRequest, false},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				s := service()
				m := manager(s, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
				session(t, m, irsa("a"))
				pass(56 * time.Minute)
				s.become(always(test.status, refusal(code, "no")), 0)
				got, err := m.Acquire(t.Context(), irsa("a"))
				if (err == nil) != test.goesOn || err == nil && (!got.Cached() || keyID(t, got) != "canary-id-1") {
					t.Errorf("%v, error %v; want to go on: %v", got, err, test.goesOn)
				}
				if err != nil && failure(t, err).Code != code {
					t.Errorf("error %v, want %s", err, code)
				}
				pass(time.Minute) // the SDK may be about to try once more
				if text := log.String(); strings.Contains(text, "canary") || strings.Contains(text, "role="+testRole) != test.goesOn {
					t.Errorf("log:\n%s", text)
				}
			})
		})
	}
}

// TestOthersRefusal: a refusal of the token with which another pod logged in is no
// answer to a pod. All other failures are.
func TestOthersRefusal(t *testing.T) {
	t.Parallel()
	for code, others := range map[string]bool{
		"InvalidIdentityToken": true, "ExpiredTokenException": true, "AccessDenied": true,
		"IDPCommunicationError": false, "Throttling": false,
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &transport{takes: time.Second, answer: func(number int, one asked) answer {
					if one.form.Get("WebIdentityToken") == "canary-jwt-leader" {
						return answer{status: http.StatusBadRequest, body: refusal(code, "no")}
					}
					return answer{status: http.StatusOK, body: issued(number, time.Hour)}
				}}
				m := manager(s, nil)
				led := make(chan error, 1)
				go func() { _, err := m.Acquire(t.Context(), irsa("leader")); led <- err }()
				synctest.Wait()
				_, err := m.Acquire(t.Context(), irsa("b"))
				if (err == nil) != others || err != nil && failure(t, err).Code != code {
					t.Errorf("who joined: %v", err)
				}
				if e := failure(t, <-led); e.Code != code {
					t.Errorf("who led: %v", e)
				}
			})
		})
	}
}

// TestNobodyWaits: a request that nobody waits for any more ends.
func TestNobodyWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := service()
		s.takes = time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := manager(s, nil).Acquire(ctx, irsa("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		if s.cut != 1 {
			t.Errorf("%d requests cut, want 1", s.cut)
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
		printed := prints(t, got, &got, got.Provider(), *got.grant, use, &use, m, m.sessions)
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
