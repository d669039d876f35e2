package keyvault

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

func TestClientsAreBounded(t *testing.T) {
	t.Parallel()
	m := &memoryVault{objects: []*object{current(params.Secret, "a")}}
	s := m.store(func(c *Config) { c.MaxClients = 2 })
	for _, tt := range []struct {
		identity string
		known    bool
	}{{"a", false}, {"b", false}, {"a", true}, {"c", false}, {"a", true}, {"b", false}, {"a", true}, {"c", false}} {
		one(t, s, as(tt.identity), secret("a"))
		want := "secrets/challenge=1 secrets/get=1"
		if tt.known {
			want = "secrets/get=1"
		}
		if got := m.operations(); got != want {
			t.Errorf("%s: %s, want %s", tt.identity, got, want)
		}
		if n := len(s.clients.byKey); n > 2 || n != s.clients.used.Len() {
			t.Errorf("%d clients, %d in order", n, s.clients.used.Len())
		}
	}
}

func TestIdleClientsGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memoryVault{objects: []*object{current(params.Secret, "a")}}
		s := m.store()
		one(t, s, as("a"), secret("a"))
		one(t, s, as("b"), secret("a"))
		for range 3 {
			<-time.After(idleClients / 2)
			one(t, s, as("a"), secret("a"))
		}
		if len(s.clients.byKey) != 1 || s.clients.used.Len() != 1 {
			t.Errorf("%d clients", len(s.clients.byKey))
		}
		if got, want := m.operations(), "secrets/challenge=2 secrets/get=5"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// TestManyIdentitiesAtATime has clients made, used and dropped all at once.
func TestManyIdentitiesAtATime(t *testing.T) {
	t.Parallel()
	m := &memoryVault{objects: []*object{current(params.Secret, "a")}}
	s := m.store(func(c *Config) { c.MaxClients = 3 })
	var running sync.WaitGroup
	for i := range 50 {
		running.Go(func() {
			answers, err := s.Read(t.Context(), as(fmt.Sprint(i%10)), []Ref{secret("a"), secret("a")})
			if err != nil || answers[0].Err != nil {
				t.Error(err, answers[0].Err)
			}
		})
	}
	running.Wait()
	if n := len(s.clients.byKey); n > 3 {
		t.Errorf("%d clients", n)
	}
}
