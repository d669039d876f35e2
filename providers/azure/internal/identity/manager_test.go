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

	azlog "github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"

	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// pass lets time pass.
func pass(d time.Duration) { <-time.After(d) }

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
	if text := prints(t, all...); strings.Contains(text, "canary") || strings.Contains(text, "eyj") {
		t.Errorf("a secret shows up in:\n%s", text)
	}
}

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
	for name, test := range map[string]struct {
		kind   Kind
		change func(*Use)
		same   bool
	}{
		"cloud":                             {WorkloadIdentity, func(u *Use) { u.Cloud.Name = "AzureChinaCloud" }, false},
		"authority":                         {WorkloadIdentity, func(u *Use) { u.Cloud.AuthorityHost = "https://login.stack.example/" }, false},
		"scope":                             {ManagedIdentity, func(u *Use) { u.Cloud.VaultScope = "https://vault.azure.cn/.default" }, false},
		"tenant":                            {WorkloadIdentity, func(u *Use) { u.TenantID = tenantB }, false},
		"client":                            {WorkloadIdentity, func(u *Use) { u.ClientID = tenantB }, false},
		"namespace":                         {WorkloadIdentity, func(u *Use) { u.Subject.Namespace = "bank" }, false},
		"service account":                   {WorkloadIdentity, func(u *Use) { u.Subject.ServiceAccount = "other" }, false},
		"pod":                               {WorkloadIdentity, func(u *Use) { u.Token, u.PodName = podToken("b"), "pod-b" }, true},
		"secret":                            {ServicePrincipal, func(u *Use) { u.Secret = sdk.NewSecretString("canary-2") }, false},
		"client of a secret":                {ServicePrincipal, func(u *Use) { u.ClientID = tenantB }, false},
		"tenant of a secret":                {ServicePrincipal, func(u *Use) { u.TenantID = tenantB }, false},
		"service account with a secret":     {ServicePrincipal, func(u *Use) { u.Subject.ServiceAccount = "other" }, false},
		"pod with a secret":                 {ServicePrincipal, func(u *Use) { u.PodName = "pod-b" }, true},
		"user-assigned identity":            {ManagedIdentity, func(u *Use) { u.ClientID = "" }, false},
		"service account of the node":       {ManagedIdentity, func(u *Use) { u.Subject.ServiceAccount = "other" }, false},
		"tenant of the node":                {ManagedIdentity, func(u *Use) { u.TenantID = tenantB }, true},
		"pod with AAD Pod Identity":         {PodIdentity, func(u *Use) { u.PodName = "pod-b" }, false},
		"namespace with AAD Pod Identity":   {PodIdentity, func(u *Use) { u.Subject.Namespace = "bank" }, false},
		"client with AAD Pod Identity":      {PodIdentity, func(u *Use) { u.ClientID = tenantB }, true},
		"secret instead of the pod's token": {WorkloadIdentity, func(u *Use) { *u = of(ServicePrincipal, "a") }, false},
		"the node instead of the pod":       {WorkloadIdentity, func(u *Use) { *u = of(ManagedIdentity, "a") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := entra()
				m := manager(s, nil)
				use := of(test.kind, "a")
				first := acquire(t, m, use)
				test.change(&use)
				second := acquire(t, m, use)
				if second.Cached() != test.same || (s.logins() == 1) != test.same || (first.Key() == second.Key()) != test.same {
					t.Errorf("cached %v, %d logins, keys %q and %q; want shared %v", second.Cached(), s.logins(), first.Key(), second.Key(), test.same)
				}
			})
		})
	}
}

// TestEachGetsItsOwn: fifty identities at the same time, each from three pods.
func TestEachGetsItsOwn(t *testing.T) {
	t.Parallel()
	// The answer is made of what identifies the one who asks.
	s := &transport{answer: func(_ int, one asked) scripted {
		who := one.url + " " + one.form.Get("client_id") + " " + claimsOf(sdk.NewSecretString(one.form.Get("client_assertion"))).Issuer
		token := jwtOf(map[string]any{"iss": who, "tid": tenantA}, "access")
		return scripted{status: http.StatusOK, body: fmt.Sprintf(`{"token_type": "Bearer", "expires_in": 3600, "access_token": %q}`, token)}
	}}
	m := manager(s, nil)
	var pods sync.WaitGroup
	for i := range 150 {
		use := of(WorkloadIdentity, "a")
		use.TenantID = fmt.Sprintf("tenant-%d", i%2)
		use.ClientID = fmt.Sprintf("client-%d", i%5)
		account := fmt.Sprintf("account-%d", i%50/10)
		use.Subject.ServiceAccount = account
		// Here the issuer tells the service accounts.
		use.Token = sdk.NewSecretString(jwtOf(map[string]any{"iss": account}, fmt.Sprint("jwt-", i)))
		pods.Go(func() {
			token, err := m.Acquire(t.Context(), use)
			if err != nil {
				t.Error(err)
				return
			}
			want := fmt.Sprintf("https://login.microsoftonline.com/%s/oauth2/v2.0/token %s %s", use.TenantID, use.ClientID, account)
			if got := claimsOf(token.grant.access).Issuer; got != want {
				t.Errorf("got the token of %q, want %q", got, want)
			}
		})
	}
	pods.Wait()
	if s.logins() != 50 {
		t.Errorf("%d logins, want 50", s.logins())
	}
}

// TestExpiry: a token is renewed before it ends, and those who ask at the same
// time share the login.
func TestExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := entra()
		s.takes = time.Second
		m := manager(s, nil)
		acquire(t, m, of(WorkloadIdentity, "a"))
		pass(54 * time.Minute)
		if !acquire(t, m, of(WorkloadIdentity, "b")).Cached() {
			t.Error("not kept until five minutes before its end")
		}
		pass(time.Minute)
		var pods sync.WaitGroup
		for i := range 20 {
			pods.Go(func() {
				if got := acquire(t, m, of(WorkloadIdentity, fmt.Sprint(i))); got.Cached() || text(t, got) != access(2, tenantA) {
					t.Error("used in the margin")
				}
			})
		}
		pods.Wait()
		if s.logins() != 2 {
			t.Errorf("%d logins, want 2", s.logins())
		}
	})
}

// TestOutage: a token that still lasts goes on where Entra does not answer, and
// not where it refuses.
func TestOutage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer scripted
		serves bool
	}{
		"unavailable": {scripted{status: 503}, true},
		"throttled":   {scripted{status: 429, header: []string{"Retry-After", "60"}}, true},
		"refused":     {refusal(401, 700213, "No match."), false},
		"expired":     {refusal(401, 700024, "Expired."), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := entra()
				m := manager(s, nil)
				acquire(t, m, of(WorkloadIdentity, "a"))
				pass(56 * time.Minute)
				s.become(func(int, asked) scripted { return test.answer })
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
	synctest.Test(t, func(t *testing.T) {
		s := &transport{takes: time.Second, answer: func(number int, one asked) scripted {
			if one.form.Get("client_assertion") == podToken("gone").Reveal() {
				return refusal(401, 700024, "Expired.")
			}
			return scripted{status: http.StatusOK, body: issued(number, time.Hour)}
		}}
		m := manager(s, nil)
		var pods sync.WaitGroup
		pods.Go(func() {
			if _, err := m.Acquire(t.Context(), of(WorkloadIdentity, "gone")); failure(t, err).Kind != TokenExpired {
				t.Errorf("error %v", err)
			}
		})
		synctest.Wait()
		pods.Go(func() { acquire(t, m, of(WorkloadIdentity, "b")) })
		pods.Wait()
	})
}

// TestMaxSessions: the one that was not used for longest goes.
func TestMaxSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := entra()
		m := manager(s, func(c *Config) { c.MaxSessions = 2 })
		for _, client := range []string{"a", "b", "a", "c", "a", "b"} {
			use := of(WorkloadIdentity, "a")
			use.ClientID = client
			acquire(t, m, use)
		}
		if s.logins() != 4 {
			t.Errorf("%d logins, want 4: a, b, c, and b again", s.logins())
		}
	})
}

// TestDropOfAnOldToken: the newer one stays.
func TestDropOfAnOldToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := entra()
		m := manager(s, nil)
		old := acquire(t, m, of(WorkloadIdentity, "a"))
		m.Drop(old)
		acquire(t, m, of(WorkloadIdentity, "a"))
		m.Drop(old)
		m.Drop(nil)
		if acquire(t, m, of(WorkloadIdentity, "a")); s.logins() != 2 {
			t.Errorf("%d logins, want 2", s.logins())
		}
	})
}

// TestNothingLeaks: tokens, managers, wishes and logs show no secret.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		s := entra()
		m := manager(s, func(c *Config) {
			c.Logger = slog.New(slog.NewJSONHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
			c.ClientOptions.Logging.IncludeBody = true
			c.ClientOptions.TracingProvider = tracing.NewProvider(func(string, string) tracing.Tracer {
				t.Error("the SDK makes spans, which hold what its errors say")
				return tracing.Tracer{}
			}, nil)
		})
		for _, kind := range []Kind{WorkloadIdentity, ServicePrincipal, ManagedIdentity, PodIdentity} {
			use := of(kind, "a")
			token := acquire(t, m, use)
			noCanary(t, token, *token, token.grant, *token.grant, use, &use, keyOf(use), []*Token{token}, map[string]any{"t": token},
				struct{ T *Token }{token}, token.Key(), token.Identity())
			if got := fmt.Sprintf("%v %s %q %#v", token, token, token, token); strings.Count(got, "access token of "+token.Identity()) != 4 {
				t.Errorf("prints %q", got)
			}
		}
		if !strings.Contains(logs.String(), clientA) {
			t.Errorf("the log does not say who has logged in: %s", &logs)
		}
		logs.Reset()
		slog.New(slog.NewJSONHandler(&logs, nil)).Info("x", "token", acquire(t, m, of(WorkloadIdentity, "a")))
		if !strings.Contains(logs.String(), "access token of client "+clientA) {
			t.Errorf("a record shows %s", &logs)
		}
		noCanary(t, logs.String())
		if got := (*Token)(nil).String(); got != "no access token" {
			t.Errorf("nil prints %q", got)
		}
	})
}

// TestSDKLogsNothing that is secret, even where it is asked for bodies.
func TestSDKLogsNothing(t *testing.T) { //nolint:paralleltest // the SDK has one listener for the process
	var logs strings.Builder
	azlog.SetListener(func(_ azlog.Event, text string) { logs.WriteString(text + "\n") })
	t.Cleanup(func() { azlog.SetListener(nil) })
	synctest.Test(t, func(t *testing.T) {
		for _, answer := range []scripted{{status: 200, body: issued(1, time.Hour)}, refusal(401, 700213, "No.")} {
			m := manager(&transport{answer: func(int, asked) scripted { return answer }}, func(c *Config) {
				c.ClientOptions.Logging.IncludeBody = true
			})
			for _, kind := range []Kind{WorkloadIdentity, ServicePrincipal, ManagedIdentity, PodIdentity} {
				_, _ = m.Acquire(t.Context(), of(kind, "a")) // what is logged matters alone
			}
		}
	})
	if logs.Len() == 0 {
		t.Error("the SDK logs nothing: this test sees nothing")
	}
	noCanary(t, logs.String())
}

// TestSecretIsKeptAsADigest: so that who reads the keys has not read the secret.
func TestSecretIsKeptAsADigest(t *testing.T) {
	t.Parallel()
	a, b := of(ServicePrincipal, "a"), of(ServicePrincipal, "a")
	b.Secret = sdk.NewSecretString("canary-2")
	if keyOf(a).secret == keyOf(b).secret || keyOf(a) != keyOf(of(ServicePrincipal, "b")) {
		t.Error("the key does not tell secrets")
	}
	if keyOf(of(WorkloadIdentity, "a")) != keyOf(of(WorkloadIdentity, "b")) {
		t.Error("the key tells pods")
	}
	if (keyOf(a).cloud == params.Cloud{}) {
		t.Error("the key has no cloud")
	}
}
