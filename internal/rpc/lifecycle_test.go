package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
	"github.com/postern-dev/postern/internal/unixsocket"
)

func TestServer_DrainWaitsForCalls(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	r := run(t, func(ctx context.Context, _ string) (string, error) {
		close(entered)
		select {
		case <-leave:
			return "done", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}, nil)
	result := make(chan error, 1)
	go func() {
		got, err := r.call(t.Context(), "")
		if err == nil && got != "done" {
			err = fmt.Errorf("got %q", got)
		}
		result <- err
	}()
	<-entered
	watch, err := healthpb.NewHealthClient(r.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, watch, healthpb.HealthCheckResponse_SERVING)
	r.stop()
	// Health says so while the call is still in progress.
	expect(t, watch, healthpb.HealthCheckResponse_NOT_SERVING)
	if err := r.server.Ready(t.Context()); err == nil {
		t.Error("the server is ready while it drains")
	}
	close(leave)
	if err := <-result; err != nil {
		t.Errorf("the call in progress: %v", err)
	}
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	r.done <- nil // for the cleanup
	if len(r.log.lines("gRPC server ended", "level=INFO")) != 1 {
		t.Errorf("log:\n%s", r.log.lines())
	}
}

func TestServer_DrainIsBounded(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	r := run(t, func(ctx context.Context, _ string) (string, error) {
		close(entered)
		<-ctx.Done() // which only the end of the drain brings
		return "", ctx.Err()
	}, func(cfg *rpc.Config) { cfg.DrainTimeout = time.Millisecond })
	result := make(chan error, 1)
	go func() {
		_, err := r.call(t.Context(), "")
		result <- err
	}()
	<-entered
	r.stop()
	if err := <-result; err == nil {
		t.Error("the call that never ends succeeded")
	}
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	r.done <- nil // for the cleanup
	if len(r.log.lines("calls did not end in time and are cancelled", "level=WARN")) != 1 {
		t.Errorf("log:\n%s", r.log.lines())
	}
}

func TestServer_RunFails(t *testing.T) {
	t.Parallel()
	newServer := func() *rpc.Server {
		s, err := rpc.NewServer(rpc.Config{Name: "test", Telemetry: telemetry.Discard()})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const nothing = `run gRPC server "test": nothing to listen on`
	if err := newServer().Run(t.Context()); err == nil || err.Error() != nothing {
		t.Errorf("without listeners: %v", err)
	}
	newListener := func() net.Listener {
		l, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: filepath.Join(t.TempDir(), "s")})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	broken, good := newListener(), newListener()
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	// One broken listener ends the server, with the other one closed too.
	if err := newServer().Run(t.Context(), broken, good); !errors.Is(err, net.ErrClosed) {
		t.Errorf("with a closed listener: %v", err)
	}
	if _, err := good.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the other listener: %v", err)
	}
	// A context that has ended already is a clean end.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := newServer()
	if err := s.Run(ctx, newListener()); err != nil {
		t.Errorf("with an ended context: %v", err)
	}
	again := newListener()
	const once = `run gRPC server "test": a server runs only once`
	if err := s.Run(t.Context(), again); err == nil || err.Error() != once {
		t.Errorf("the second Run: %v", err)
	}
	if _, err := again.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Run leaves its listener: %v", err)
	}
}

func TestNewServer_Refuses(t *testing.T) {
	t.Parallel()
	for want, mutate := range map[string]func(*rpc.Config){
		`make gRPC server "": the server has no name`:                      func(c *rpc.Config) { c.Name = "" },
		`make gRPC server "test": telemetry is missing`:                    func(c *rpc.Config) { c.Telemetry = nil },
		`make gRPC server "test": largest message of -1 bytes is negative`: func(c *rpc.Config) { c.MaxMessageBytes = -1 },
		`make gRPC server "test": drain timeout -1s is negative`:           func(c *rpc.Config) { c.DrainTimeout = -time.Second },
	} {
		cfg := rpc.Config{Name: "test", Telemetry: telemetry.Discard()}
		mutate(&cfg)
		if _, err := rpc.NewServer(cfg); err == nil || err.Error() != want {
			t.Errorf("error = %v, want %s", err, want)
		}
	}
}
