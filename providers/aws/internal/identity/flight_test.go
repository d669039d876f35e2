package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestAcquireCancelOne: a waiter, even the one who began, leaves alone.
func TestAcquireCancelOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := service()
		s.takes = time.Second
		m := manager(s, nil)
		ctx, leave := context.WithCancel(t.Context())
		left, stayed := make(chan error, 1), make(chan error, 1)
		go func() { _, err := m.Acquire(ctx, irsa("a")); left <- err }()
		synctest.Wait()
		go func() { _, err := m.Acquire(t.Context(), irsa("b")); stayed <- err }()
		synctest.Wait()
		start := time.Now()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) || time.Since(start) != 0 {
			t.Errorf("who left: %v, after %s", err, time.Since(start))
		}
		if err := <-stayed; err != nil {
			t.Errorf("who stayed: %v", err)
		}
		if s.count() != 1 || s.cut != 0 {
			t.Errorf("%d logins, %d cut, want 1 and 0", s.count(), s.cut)
		}
	})
}

// TestAcquireCancelLast: nobody waits, so the login ends and leaves nothing.
func TestAcquireCancelLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := service()
		s.takes = time.Second
		m := manager(s, nil)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 2)
		for _, pod := range []string{"a", "b"} {
			go func() { _, err := m.Acquire(ctx, irsa(pod)); left <- err }()
		}
		synctest.Wait()
		leave()
		for range 2 {
			if err := <-left; !errors.Is(err, context.Canceled) {
				t.Errorf("who left: %v", err)
			}
		}
		synctest.Wait()
		if s.cut != 1 || len(m.grants) != 0 || len(m.flights) != 0 {
			t.Errorf("%d logins cut, %d sessions and %d flights kept; want 1, 0, 0", s.cut, len(m.grants), len(m.flights))
		}
		if got := session(t, m, irsa("a")); got.Cached() {
			t.Error("who comes later gets what nobody waited for")
		}
	})
}

// deaf answers after its caller has left, too, as something that was sent already.
type deaf struct{ *transport }

func (d deaf) RoundTrip(req *http.Request) (*http.Response, error) {
	pass(time.Second)
	return d.transport.RoundTrip(req.WithContext(context.WithoutCancel(req.Context())))
}

// TestLateAnswerIsNotKept: the answer to a login that was left does not end the
// login after it.
func TestLateAnswerIsNotKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := service()
		m := manager(s, func(c *Config) { c.AWS.HTTPClient = &http.Client{Transport: deaf{s}} })
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := m.Acquire(ctx, irsa("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		seconds := make(chan Session, 1)
		go func() { seconds <- session(t, m, irsa("b")) }()
		pass(700 * time.Millisecond) // the first one's answer has come, the second's has not
		third := session(t, m, irsa("c"))
		if second := <-seconds; s.count() != 2 || second.Cached() || third.Cached() || keyID(t, second) != keyID(t, third) {
			t.Errorf("%d logins: %s, then %s; want 2, and the second shared", s.count(), keyID(t, second), keyID(t, third))
		}
	})
}

func TestAcquireKeepsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answer: always(http.StatusForbidden, refusal("AccessDenied", "no"))}
		m := manager(s, nil)
		for range 2 {
			_, err := m.Acquire(t.Context(), irsa("a"))
			if e := failure(t, err); e.Kind != Denied {
				t.Errorf("error %v, want Denied", err)
			}
		}
		if s.count() != 2 || len(m.grants) != 0 || len(m.flights) != 0 {
			t.Errorf("%d logins, %d sessions, %d flights; want one each, and nothing kept", s.count(), len(m.grants), len(m.flights))
		}
		s.become(service().answer, 0)
		session(t, m, irsa("a"))
	})
}

// TestOthersRefusal: the pod that led a login may be gone, and its token be refused
// for that. Those who joined try once more, with one of their own.
func TestOthersRefusal(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"InvalidIdentityToken", "ExpiredTokenException"} {
		for name, test := range map[string]struct {
			accepts func(token string) bool
			works   bool
			logins  int
		}{
			"of the leader":  {func(token string) bool { return token != "canary-jwt-leader" }, true, 2},
			"of the account": {func(string) bool { return false }, false, 11},
		} {
			t.Run(code+" "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := &transport{takes: time.Second, answer: func(number int, one asked) answer {
						if !test.accepts(one.form.Get("WebIdentityToken")) {
							return answer{status: http.StatusBadRequest, body: refusal(code, "no")}
						}
						return answer{status: http.StatusOK, body: issued(number, time.Hour)}
					}}
					m := manager(s, nil)
					led := make(chan error, 1)
					go func() { _, err := m.Acquire(t.Context(), irsa("leader")); led <- err }()
					synctest.Wait()
					var pods sync.WaitGroup
					for i := range 10 {
						pods.Go(func() {
							_, err := m.Acquire(t.Context(), irsa(fmt.Sprint(i)))
							if (err == nil) != test.works {
								t.Errorf("who joined: %v", err)
							}
							if err != nil && failure(t, err).Code != code {
								t.Errorf("who joined: %v, want %s", err, code)
							}
						})
					}
					pods.Wait()
					if e := failure(t, <-led); e.Code != code {
						t.Errorf("who led: %v", e)
					}
					if s.count() != test.logins {
						t.Errorf("%d logins, want %d", s.count(), test.logins)
					}
				})
			})
		}
	}
}

// TestOthersRefusalOfTheSameToken: two volumes of one pod have one token, which is
// not tried twice. Nor is anything that is no refusal.
func TestOthersRefusalOfTheSameToken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer string
		pods   [2]string
		logins int
	}{
		"same token":   {refusal("InvalidIdentityToken", "no"), [2]string{"a", "a"}, 1},
		"other token":  {refusal("InvalidIdentityToken", "no"), [2]string{"a", "b"}, 2},
		"no refusal":   {`<AssumeRoleWithWebIdentityResponse/>`, [2]string{"a", "b"}, 1},
		"no refusal 2": {refusal("Throttling", "slow"), [2]string{"a", "b"}, 3}, // the SDK's own attempts
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				status := http.StatusBadRequest
				if strings.HasPrefix(test.answer, "<Assume") {
					status = http.StatusOK
				}
				s := &transport{takes: time.Second, answer: always(status, test.answer)}
				m := manager(s, nil)
				var pods sync.WaitGroup
				for _, pod := range test.pods {
					pods.Go(func() {
						if _, err := m.Acquire(t.Context(), irsa(pod)); err == nil {
							t.Error("no error")
						}
					})
				}
				pods.Wait()
				if s.count() != test.logins {
					t.Errorf("%d logins, want %d", s.count(), test.logins)
				}
			})
		})
	}
}
