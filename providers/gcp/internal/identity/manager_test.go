package identity

import (
	"bytes"
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

	"github.com/postern-dev/postern/providers/sdk"
)

// noCanary checks that nothing prints a secret, in no way that Go can print, nor
// any error in an error.
func noCanary(t *testing.T, values ...any) {
	t.Helper()
	var all []any
	for _, value := range values {
		all = append(all, value)
		err, _ := value.(error)
		for ; err != nil; err = errors.Unwrap(err) {
			all = append(all, err)
			if e, ok := err.(*Error); ok { //nolint:errorlint // each is looked at by itself
				all = append(all, *e)
			}
		}
	}
	text := prints(t, all...)
	for _, secret := range []string{"canary", "eyj", "begin private key", strings.ToLower(keyLine())} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret (%.20s) shows up in:\n%s", secret, text)
		}
	}
}

// keyLine is one of the private key's.
func keyLine() string { return strings.Split(pkcs8(signingKey()), "\n")[3] }

// prints prints values in every way.
func prints(t *testing.T, values ...any) string {
	t.Helper()
	var out bytes.Buffer
	for _, value := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%U", "%p"} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
		if encoded, err := json.Marshal(value); err == nil {
			out.Write(encoded)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "value", value)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("JSON", "value", value)
	}
	hexed := fmt.Sprintf("%x", "canary")
	return strings.ReplaceAll(strings.ToLower(out.String()), hexed, "canary")
}

// TestShared: what makes another identity makes another login; what does not, does
// not.
func TestShared(t *testing.T) {
	t.Parallel()
	const a, b = "a@b.example", "c@d.example"
	for name, test := range map[string]struct {
		use    Use
		change func(*Use)
		same   bool
	}{
		"audience":                 {of(WorkloadIdentity, "a"), func(u *Use) { u.Federation.Audience += "-2" }, false},
		"address":                  {of(WorkloadIdentity, "a"), func(u *Use) { u.Federation.TokenURL = STSTokenURL }, false},
		"audiences of tokens":      {of(WorkloadIdentity, "a"), func(u *Use) { u.Federation.TokenAudiences = nil }, true},
		"namespace":                {of(WorkloadIdentity, "a"), func(u *Use) { u.Subject.Namespace = "bank" }, false},
		"service account":          {of(WorkloadIdentity, "a"), func(u *Use) { u.Subject.ServiceAccount = "other" }, false},
		"pod":                      {of(WorkloadIdentity, "a"), func(u *Use) { u.Token = podToken("b") }, true},
		"pod that impersonates":    {impersonating(), func(u *Use) { u.Token = podToken("b") }, true},
		"impersonated":             {impersonating(), func(u *Use) { u.ServiceAccount = a }, false},
		"nobody impersonated":      {impersonating(), func(u *Use) { u.ServiceAccount = "" }, false},
		"a delegate":               {impersonating(), func(u *Use) { u.Delegates = []string{a} }, false},
		"another delegate":         {impersonating(a), func(u *Use) { u.Delegates = []string{b} }, false},
		"order of delegates":       {impersonating(a, b), func(u *Use) { u.Delegates = []string{b, a} }, false},
		"same delegates":           {impersonating(a, b), func(u *Use) { u.Delegates = []string{a, b} }, true},
		"key":                      {of(ServiceAccountKey, "a"), func(u *Use) { u.Key = keyJSON(map[string]any{"private_key_id": "k-2"}) }, false},
		"same key":                 {of(ServiceAccountKey, "a"), func(u *Use) { u.Key = keyJSON(nil) }, true},
		"service account of a key": {of(ServiceAccountKey, "a"), func(u *Use) { u.Subject.ServiceAccount = "other" }, false},
		"namespace of a key":       {of(ServiceAccountKey, "a"), func(u *Use) { u.Subject.Namespace = "bank" }, false},
		"key and impersonation":    {of(ServiceAccountKey, "a"), func(u *Use) { u.ServiceAccount, u.Federation = a, wif() }, true},
		"a key, not the pod":       {of(WorkloadIdentity, "a"), func(u *Use) { *u = of(ServiceAccountKey, "a") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := googles()
			m := manager(s, nil)
			first := acquire(t, m, test.use)
			test.change(&test.use)
			second := acquire(t, m, test.use)
			if second.Cached() != test.same || (first.Key() == second.Key()) != test.same {
				t.Errorf("cached %v, keys %q and %q; want shared %v", second.Cached(), first.Key(), second.Key(), test.same)
			}
		})
	}
}

// TestEachGetsItsOwn: fifty identities at the same time, each from three pods.
func TestEachGetsItsOwn(t *testing.T) {
	t.Parallel()
	// The answer is made of what identifies the one who asks.
	s := &transport{answer: func(_ int, one asked) scripted {
		if strings.HasSuffix(one.url, ":generateAccessToken") {
			from := strings.TrimPrefix(one.authorization, "Bearer ")
			_, account, _ := cutLast(strings.TrimSuffix(one.url, ":generateAccessToken"), "/")
			return scripted{status: http.StatusOK, body: fmt.Sprintf(`{"accessToken": "%s>%s>%v", "expireTime": "2100-01-01T00:00:00Z"}`,
				from, account, one.fields["delegates"])}
		}
		token, _ := one.fields["subject_token"].(string)
		who := claimsOf(sdk.NewSecretString(token)).Issuer
		return scripted{status: http.StatusOK, body: fmt.Sprintf(`{"access_token": "%v>%s", "expires_in": 3600}`, one.fields["audience"], who)}
	}}
	m := manager(s, nil)
	var pods sync.WaitGroup
	for i := range 150 {
		n := i % 50
		use := of(WorkloadIdentity, "a")
		use.Federation.Audience = fmt.Sprintf("identitynamespace:pool-%d:%s", n%2, cluster)
		use.Subject.ServiceAccount = fmt.Sprintf("account-%d", n/10)
		// Here the issuer tells the service accounts.
		use.Token = sdk.NewSecretString(jwtOf(map[string]any{"iss": use.Subject.ServiceAccount}, fmt.Sprint("jwt-", i)))
		want := use.Federation.Audience + ">" + use.Subject.ServiceAccount
		if n%5 > 0 {
			use.ServiceAccount = fmt.Sprintf("google-%d@x.example", n%5)
			use.Delegates = []string{fmt.Sprintf("delegate-%d@x.example", n%3)}
			want += fmt.Sprintf(">%s>[projects/-/serviceAccounts/%s]", use.ServiceAccount, use.Delegates[0])
		}
		pods.Go(func() {
			token, err := m.Acquire(t.Context(), use)
			if err != nil {
				t.Error(err)
				return
			}
			if got := token.grant.access.Reveal(); got != want {
				t.Errorf("got the token of %q, want %q", got, want)
			}
		})
	}
	pods.Wait()
	// Of each ten, two impersonate nobody.
	if got, want := s.count(), 50+40; got != want {
		t.Errorf("%d requests, want %d", got, want)
	}
}

// TestExpiry: a token is renewed before it ends, and those who ask at the same
// time share the login.
func TestExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := googles()
		m := manager(s, nil)
		acquire(t, m, impersonating())
		pass(54 * time.Minute)
		if !acquire(t, m, impersonating()).Cached() {
			t.Error("not kept until five minutes before its end")
		}
		pass(time.Minute)
		s.takes = time.Second
		var pods sync.WaitGroup
		for i := range 20 {
			use := impersonating()
			use.Token = podToken(fmt.Sprint(i))
			pods.Go(func() {
				if got := acquire(t, m, use); got.Cached() || got.grant.access.Reveal() != accessToken(4) {
					t.Error("used in the margin")
				}
			})
		}
		pods.Wait()
		if s.count() != 4 {
			t.Errorf("%d requests, want 4", s.count())
		}
	})
}

// TestWithoutExpiry: a token of which nobody says how long it lasts serves those who
// waited for it, and is not kept.
func TestWithoutExpiry(t *testing.T) {
	t.Parallel()
	s := &transport{answer: always(scripted{status: 200, body: `{"access_token": "canary", "token_type": "Bearer"}`})}
	m := manager(s, nil)
	for range 2 {
		if got := acquire(t, m, of(WorkloadIdentity, "a")); got.Cached() || !got.Expires().IsZero() || got.grant.access.Reveal() != "canary" {
			t.Errorf("cached %v, until %v", got.Cached(), got.Expires())
		}
	}
}

// TestLongLife: an answer cannot have a token kept for ever.
func TestLongLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answer: always(scripted{status: 200, body: `{"access_token": "canary", "expires_in": 1e30}`})}
		if got := time.Until(acquire(t, manager(s, nil), of(WorkloadIdentity, "a")).Expires()); got != maxLife {
			t.Errorf("lasts %v", got)
		}
	})
}

// TestOutage: a token that still lasts goes on where Google does not answer, and
// not where it refuses.
func TestOutage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer scripted
		serves bool
	}{
		"unavailable": {scripted{status: 503}, true},
		"throttled":   {scripted{status: 429, header: []string{"Retry-After", "60"}}, true},
		"refused":     {oauthError(400, "invalid_target", "No such pool."), false},
		"expired":     {oauthError(400, "invalid_grant", "ID Token issued at 1 is stale to sign-in."), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := googles()
				m := manager(s, nil)
				acquire(t, m, of(WorkloadIdentity, "a"))
				pass(56 * time.Minute)
				s.become(always(test.answer))
				got, err := m.Acquire(t.Context(), of(WorkloadIdentity, "a"))
				if served := err == nil && got.Cached(); served != test.serves {
					t.Errorf("served %v, error %v", served, err)
				}
			})
		})
	}
}

// TestOthersRefusal: a pod hears of no refusal of another's token.
func TestOthersRefusal(t *testing.T) {
	t.Parallel()
	for want, answer := range map[ErrorKind]scripted{
		TokenExpired: oauthError(400, "invalid_grant", "ID Token issued at 1 is stale to sign-in."),
		Denied:       oauthError(400, "invalid_grant", "Not this one."),
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &transport{takes: time.Second, answer: func(number int, one asked) scripted {
				if one.fields["subject_token"] == podToken("gone").Reveal() {
					return answer
				}
				return issued(number, one)
			}}
			m := manager(s, nil)
			var pods sync.WaitGroup
			pods.Go(func() {
				if _, err := m.Acquire(t.Context(), of(WorkloadIdentity, "gone")); failure(t, err).Kind != want {
					t.Errorf("error %v, want %v", err, want)
				}
			})
			synctest.Wait()
			pods.Go(func() {
				if _, err := m.Acquire(t.Context(), of(WorkloadIdentity, "b")); err != nil {
					t.Errorf("%v: another pod hears %v", want, err)
				}
			})
			pods.Wait()
		})
	}
}

// TestMaxSessions: the one that was not used for longest goes.
func TestMaxSessions(t *testing.T) {
	t.Parallel()
	s := googles()
	m := manager(s, func(c *Config) { c.MaxSessions = 2 })
	for _, name := range []string{"a", "b", "a", "c", "a", "b"} {
		use := of(WorkloadIdentity, "a")
		use.Subject.ServiceAccount = name
		acquire(t, m, use)
	}
	if s.count() != 4 {
		t.Errorf("%d logins, want 4: a, b, c, and b again", s.count())
	}
}

// TestDropOfAnOldToken: the newer one stays.
func TestDropOfAnOldToken(t *testing.T) {
	t.Parallel()
	s := googles()
	m := manager(s, nil)
	old := acquire(t, m, of(WorkloadIdentity, "a"))
	m.Drop(old)
	acquire(t, m, of(WorkloadIdentity, "a"))
	m.Drop(old)
	m.Drop(nil)
	if acquire(t, m, of(WorkloadIdentity, "a")); s.count() != 2 {
		t.Errorf("%d logins, want 2", s.count())
	}
}

// TestNothingLeaks: tokens, wishes and logs show no secret.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	s := googles()
	m := manager(s, func(c *Config) {
		c.Logger = slog.New(slog.NewJSONHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	for _, use := range []Use{of(WorkloadIdentity, "a"), impersonating("a@b.example"), of(ServiceAccountKey, "a")} {
		token := acquire(t, m, use)
		noCanary(t, token, *token, token.grant, *token.grant, use, &use, keyOf(use), []*Token{token}, map[string]any{"t": token},
			struct{ T *Token }{token}, token.Key(), token.Identity(), token.PerRPC(), struct{ P any }{token.PerRPC()})
		if got := fmt.Sprintf("%v %s %q %#v %v", token, token, token, token, token.PerRPC()); strings.Count(got, "access token of "+token.Identity()) != 5 {
			t.Errorf("prints %q", got)
		}
	}
	if !strings.Contains(logs.String(), googleSA) || !strings.Contains(logs.String(), `"namespace":"shop"`) {
		t.Errorf("the log does not say who has logged in: %s", &logs)
	}
	logs.Reset()
	slog.New(slog.NewJSONHandler(&logs, nil)).Info("x", "token", acquire(t, m, impersonating("a@b.example")))
	if !strings.Contains(logs.String(), "access token of service account "+googleSA) {
		t.Errorf("a record shows %s", &logs)
	}
	noCanary(t, logs.String())
	if got := (*Token)(nil).String(); got != "no access token" {
		t.Errorf("nil prints %q", got)
	}
}
