package keyvault

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

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// manySecrets are some, and the refs of all of them.
func manySecrets(n int) (objects []*object, refs []Ref) {
	for i := range n {
		name := fmt.Sprintf("s%02d", i)
		objects = append(objects, current(params.Secret, name))
		refs = append(refs, secret(name))
	}
	return objects, refs
}

func TestOneChallengeForEachLoginAndType(t *testing.T) {
	t.Parallel()
	objects, refs := manySecrets(20)
	m := &memoryVault{objects: append(objects, current(params.Key, "k"))}
	s := m.store()
	other := as("web")
	other.URL = "https://other.vault.azure.net/"
	for _, tt := range []struct {
		vault Vault
		refs  []Ref
		want  string
	}{
		{as("web"), refs, "secrets/challenge=1 secrets/get=20"},
		{as("web"), refs, "secrets/get=20"},
		{as("web"), []Ref{{Type: params.Key, Name: "k"}}, "keys/challenge=1 keys/get=1"},
		{as("web"), []Ref{{Type: params.Key, Name: "k"}, secret("s00")}, "keys/get=1 secrets/get=1"},
		{as("web, later"), refs[:1], "secrets/challenge=1 secrets/get=1"},
		{other, refs[:1], "secrets/challenge=1 secrets/get=1"},
	} {
		if _, err := s.Read(t.Context(), tt.vault, tt.refs); err != nil {
			t.Fatal(err)
		}
		if got := m.operations(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.vault.Identity, got, tt.want)
		}
	}
}

func TestOneChallengeForManyCallsAtATime(t *testing.T) {
	t.Parallel()
	objects, refs := manySecrets(20)
	m := &memoryVault{objects: objects}
	s := m.store()
	var running sync.WaitGroup
	for range 5 {
		running.Go(func() {
			answers, err := s.Read(t.Context(), as("web"), refs)
			if err != nil {
				t.Error(err)
			}
			for _, answer := range answers {
				if answer.Err != nil {
					t.Error(answer.Err)
				}
			}
		})
	}
	running.Wait()
	if got, want := m.operations(), "secrets/challenge=1 secrets/get=100"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestNobodyWaitsLongerThanForTheChallenge has the first object hang: the others go
// on as soon as they know what the vault asks for.
func TestNobodyWaitsLongerThanForTheChallenge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		objects, refs := manySecrets(5)
		var hung string
		m := &memoryVault{objects: objects, hold: func(ctx context.Context, r request) {
			switch {
			case r.token == "":
				<-time.After(time.Second) // until all others wait
				hung = r.name
			case r.name == hung:
				<-ctx.Done()
			}
		}}
		s := m.store()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _, _ = s.Read(ctx, as("web"), refs) })
		<-time.After(2 * time.Second)
		synctest.Wait()
		if got, want := m.operations(), "secrets/challenge=1 secrets/get=5"; got != want {
			t.Errorf("while one hangs: %s, want %s", got, want)
		}
		cancel()
		running.Wait()
	})
}

// TestOneFailureForAll has a vault that cannot be reached asked once in a call, and
// not by each object in turn; nor by a call that waits for the first.
func TestOneFailureForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, refs := manySecrets(20)
		m := &memoryVault{script: func(request) *reply { return &reply{err: errors.New("connection refused")} }}
		m.hold = func(context.Context, request) { synctest.Wait() } // until all others wait
		s := m.store()
		var running sync.WaitGroup
		for range 3 {
			running.Go(func() {
				answers, err := s.Read(t.Context(), as("web"), refs)
				if err != nil {
					t.Error(err)
					return
				}
				for i, answer := range answers {
					if e := asError(t, answer.Err); e.Kind != Unavailable || e.Object != refs[i].Name || e.Operation != "secrets/get" {
						t.Errorf("%s: %v", e.Kind, e)
					}
				}
			})
		}
		running.Wait()
		if got, want := m.operations(), fmt.Sprintf("secrets/challenge=%d", tries); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		m.hold = nil
		if e := refused(t, s, as("web"), refs[0]); e.Kind != Unavailable {
			t.Error(e)
		}
		if got, want := m.operations(), fmt.Sprintf("secrets/challenge=%d", tries); got != want {
			t.Errorf("the next call: %s, want %s", got, want)
		}
	})
}

func TestWhoWaitsGoesOnWhenTheFirstGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		objects, refs := manySecrets(1)
		var once sync.Once
		m := &memoryVault{objects: objects, hold: func(ctx context.Context, _ request) {
			once.Do(func() { <-ctx.Done() })
		}}
		s := m.store()
		ctx, giveUp := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if _, err := s.Read(ctx, as("web"), refs); !errors.Is(err, context.Canceled) {
				t.Errorf("the first: %v", err)
			}
		})
		synctest.Wait()
		waiting, stop := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		running.Go(func() {
			defer close(stopped)
			if _, err := s.Read(waiting, as("web"), refs); !errors.Is(err, context.Canceled) {
				t.Errorf("one that does not want to wait any more: %v", err)
			}
		})
		running.Go(func() { one(t, s, as("web"), refs[0]) })
		synctest.Wait()
		if got, want := m.operations(), "secrets/challenge=1"; got != want {
			t.Errorf("while the first waits: %s, want %s", got, want)
		}
		stop()
		<-stopped // while the first goes on
		giveUp()
		running.Wait()
		if got, want := m.operations(), "secrets/challenge=1 secrets/get=1"; got != want {
			t.Errorf("after that: %s, want %s", got, want)
		}
	})
}

// TestInvalidFirst has a first object that no request is made for: the others do not
// share its failure.
func TestInvalidFirst(t *testing.T) {
	t.Parallel()
	m := &memoryVault{objects: []*object{current(params.Secret, "a")}}
	answers, err := m.store().Read(t.Context(), as("web"), []Ref{secret(""), secret("a"), secret("")})
	if err != nil {
		t.Fatal(err)
	}
	if answers[1].Err != nil {
		t.Error(answers[1].Err)
	}
	if e := asError(t, answers[0].Err); e.Kind != Invalid {
		t.Error(e)
	}
}

func challenged(value string) *reply {
	return &reply{status: http.StatusUnauthorized, header: http.Header{"Www-Authenticate": {value}}}
}

const goodChallenge = `Bearer authorization="https://login.microsoftonline.com/t1", resource="https://vault.azure.net"`

func TestChallenges(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		challenge *reply
		kind      Kind
		text      string
	}{
		"none":                   {&reply{status: 401, body: "canary"}, Unavailable, "without saying of which tenant"},
		"no parts":               {challenged("Bearer"), Unavailable, "without saying of which tenant"},
		"other scheme":           {challenged(`Basic realm="kv"`), Unavailable, "without saying of which tenant"},
		"no resource":            {challenged(`Bearer authorization="https://login.microsoftonline.com/t1"`), Unavailable, "without saying"},
		"empty resource":         {challenged(`Bearer authorization="https://login.microsoftonline.com/t1", resource=""`), Unavailable, "without saying"},
		"no tenant":              {challenged(`Bearer resource="https://vault.azure.net"`), Unavailable, "without saying"},
		"authority without one":  {challenged(`Bearer authorization="https://login.microsoftonline.com", resource="https://vault.azure.net"`), Unavailable, "without saying"},
		"no authority":           {challenged(`Bearer authorization="x", resource="https://vault.azure.net"`), Unavailable, "without saying"},
		"authority with a query": {challenged(`Bearer authorization="https://l/t?a=b", resource="https://vault.azure.net"`), Unavailable, "without saying"},
		"other domain":           {challenged(`Bearer authorization="https://login.microsoftonline.com/t1", resource="https://vault.example.com"`), Denied, "another domain"},
		"part of the domain":     {challenged(`Bearer authorization="https://login.microsoftonline.com/t1", resource="https://lt.azure.net"`), Denied, "another domain"},
		"bad resource":           {challenged(`Bearer authorization="https://login.microsoftonline.com/t1", resource="https://%zz"`), Denied, "another domain"},
		"bad claims":             {challenged(`Bearer error="insufficient_claims", claims="canary!", authorization="https://l/t1", resource="https://vault.azure.net"`), Denied, "another domain"},
		"other tenant":           {challenged(strings.Replace(goodChallenge, "t1", "t2", 1)), Denied, "belongs to tenant t2"},
		"wider scope":            {challenged(strings.Replace(goodChallenge, "vault.azure.net", "azure.net", 1)), Denied, "another scope"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memoryVault{objects: []*object{current(params.Secret, "a")}, script: func(r request) *reply {
				if r.token == "" {
					return tt.challenge
				}
				return nil
			}}
			vault := as("web")
			vault.Credential = login{identity: "web", tenant: "t1"}
			e := refused(t, m.store(), vault, secret("a"))
			if e.Kind != tt.kind || !strings.Contains(e.Message, tt.text) {
				t.Errorf("%s: %v", e.Kind, e)
			}
			if got, want := m.operations(), "secrets/challenge=1"; got != want {
				t.Errorf("%s, want %s", got, want)
			}
			own, ok := errors.AsType[*otherTenantError](e)
			if ok != (name == "other tenant") || ok && own.asked != "t2" {
				t.Errorf("the credential's own error: %v", own)
			}
		})
	}
}

func TestGoodChallenges(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		goodChallenge,
		`Bearer authorization="https://login.windows.net/t1", resource="https://vault.azure.net"`,
		`Bearer authorization="https://adfs.local/t1" scope="https://vault.azure.net/.default" resource="x"`,
	} {
		m := &memoryVault{objects: []*object{current(params.Secret, "a")}, script: func(r request) *reply {
			if r.token == "" {
				return challenged(text)
			}
			return nil
		}}
		vault := as("web")
		vault.Credential = login{identity: "web", tenant: "t1"}
		one(t, m.store(), vault, secret("a"))
	}
}

// TestTokenNotTaken has a vault that refuses the token, with and without another
// challenge, and one that breaks the SDK's parser.
func TestTokenNotTaken(t *testing.T) {
	t.Parallel()
	body := `{"error":{"code":"Unauthorized","message":"AKV10032: Invalid issuer. Token ` + tokenOf + `web"}}`
	for name, tt := range map[string]struct {
		header http.Header
		body   string
		want   string
		text   string
	}{
		"again":      {http.Header{"Www-Authenticate": {goodChallenge}}, body, "secrets/get=2", "AKV10032: Invalid issuer. Token [redacted]"},
		"broken":     {http.Header{"Www-Authenticate": {`Bearer authorization="x"`}}, body, "secrets/get=1", "AKV10032: Invalid issuer"},
		"without":    {nil, body, "secrets/get=1", "AKV10032: Invalid issuer"},
		"no message": {nil, "<html>canary", "secrets/get=1", "does not take the token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memoryVault{objects: []*object{current(params.Secret, "a")}}
			s := m.store()
			one(t, s, as("web"), secret("a"))
			m.operations()
			m.script = func(request) *reply {
				return &reply{status: http.StatusUnauthorized, header: tt.header, body: tt.body}
			}
			e := refused(t, s, as("web"), secret("a"))
			if e.Kind != BadCredentials || e.Status != 401 || !strings.Contains(e.Message, tt.text) {
				t.Errorf("%s: %v", e.Kind, e)
			}
			if got := m.operations(); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
