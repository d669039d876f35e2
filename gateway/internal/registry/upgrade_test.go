package registry_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/gateway/internal/registry"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// The newer instance takes over once it serves; the older one is the fallback.
func TestUpgrade_NewestServes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	described("1.0.0").Start(t, n.socket("vault", "old"))
	n.acquire(t, "vault")
	fresh := described("2.0.0").Start(t, n.socket("vault", "fresh"))
	n.awaitStates(t, "vault", map[string]registry.State{"old.sock": registry.Draining, "fresh.sock": registry.Serving})
	if got := n.acquire(t, "vault").Description.GetVersion(); got != "2.0.0" {
		t.Errorf("version %s serves, want 2.0.0", got)
	}
	fresh.Crash()
	n.awaitStates(t, "vault", map[string]registry.State{"old.sock": registry.Serving})
	if got := n.acquire(t, "vault").Description.GetVersion(); got != "1.0.0" {
		t.Errorf("after the crash version %s serves, want 1.0.0", got)
	}
}

// A process that was killed leaves its socket's file, and nobody answers there.
func TestUpgrade_NewestIsKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	described("1.0.0").Start(t, n.socket("vault", "old"))
	n.acquire(t, "vault")
	fresh := described("2.0.0").Start(t, n.socket("vault", "fresh"))
	n.awaitStates(t, "vault", map[string]registry.State{"old.sock": registry.Draining, "fresh.sock": registry.Serving})
	fresh.Kill()
	n.awaitStates(t, "vault", map[string]registry.State{"old.sock": registry.Serving, "fresh.sock": registry.Connecting})
	if got := n.acquire(t, "vault").Description.GetVersion(); got != "1.0.0" {
		t.Errorf("version %s serves, want 1.0.0", got)
	}
	providertest.Eventually(t, "the reason is known", func() bool {
		instances := n.registry.Snapshot()[0].Instances
		return len(instances) == 2 && strings.Contains(instances[1].Message+instances[0].Message, "connection refused")
	})
}

func TestUpgrade_SamePath(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	path := n.socket("vault", "vault")
	first := described("1.0.0").Start(t, path)
	before := n.acquire(t, "vault").ID
	first.Stop()
	described("2.0.0").Start(t, path)
	providertest.Eventually(t, "the second process serves", func() bool {
		handle, ok := n.registry.TryAcquire("vault")
		if ok {
			defer handle.Done()
		}
		return ok && handle.Description.GetVersion() == "2.0.0" && handle.ID != before
	})
}

// A handle keeps the connection of an instance whose socket is gone.
func TestDrain_CallUnderWayFinishes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	entered, finish := make(chan struct{}), make(chan struct{})
	old := described("1.0.0")
	old.OnFetch = func(context.Context, *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		close(entered)
		<-finish
		return providertest.Answer("1.0.0"), nil
	}
	old.Start(t, n.socket("vault", "old"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	handle, err := n.registry.Acquire(ctx, "vault")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		defer handle.Done()
		_, err := handle.Provider.Fetch(ctx, providertest.Request("vault"))
		done <- err
	}()
	<-entered
	described("2.0.0").Start(t, n.socket("vault", "fresh"))
	if err := os.Remove(n.socket("vault", "old")); err != nil {
		t.Fatal(err)
	}
	n.awaitStates(t, "vault", map[string]registry.State{"old.sock": registry.Draining, "fresh.sock": registry.Serving})
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
	n.awaitStates(t, "vault", map[string]registry.State{"fresh.sock": registry.Serving})
}
