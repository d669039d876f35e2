package registry_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/rpc"
)

// A new gateway takes over when it knows of each provider there whether it
// serves, and not before.
func TestSettled(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.registry.Settled(ctx); err != nil {
		t.Fatalf("with no provider: %v", err)
	}
	// One that accepts connections, and does not say a word.
	silent := n.socket("silent", "a")
	if err := os.MkdirAll(filepath.Dir(silent), 0o700); err != nil {
		t.Fatal(err)
	}
	// It listens before it can be found.
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", silent+".new")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(silent+".new", silent); err != nil {
		t.Fatal(err)
	}
	n.awaitStates(t, "silent", map[string]registry.State{"a.sock": registry.Connecting})
	short, cancelShort := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancelShort()
	if err := n.registry.Settled(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a provider that has not answered: %v", err)
	}
	// Its process dies and leaves the socket: then it is known that none serves.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.registry.Settled(ctx); err != nil {
		t.Errorf("with a dead provider: %v", err)
	}
	vault := filepath.Dir(n.socket("vault", "a"))
	described("1.0.0").Start(t, filepath.Join(vault+".new", "a.sock"))
	if err := os.Rename(vault+".new", vault); err != nil {
		t.Fatal(err)
	}
	providertest.Eventually(t, "the provider is found", func() bool { return n.registry.Known("vault") })
	if err := n.registry.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	if _, ok := n.states("vault")["a.sock"]; ok && n.states("vault")["a.sock"] != registry.Serving {
		t.Errorf("settled, but the provider is %v", n.states("vault"))
	}
}

// Who waits for a provider is sent away when the gateway ends, and so is who
// comes then. A provider that is there serves to the end.
func TestStopWaiting(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	described("1.0.0").Start(t, n.socket("vault", "a"))
	n.acquire(t, "vault")
	failed := make(chan error, 1)
	go func() {
		_, err := n.registry.Acquire(t.Context(), "absent")
		failed <- err
	}()
	n.registry.StopWaiting()
	for _, err := range []error{<-failed, func() error { _, err := n.registry.Acquire(t.Context(), "absent"); return err }()} {
		if e := rpc.FromError(err); e == nil || e.Code != codes.Unavailable || e.Reason != "" {
			t.Errorf("error = %v, want Unavailable without a reason: the driver asks the next gateway", err)
		}
	}
	n.acquire(t, "vault")
}
