//go:build linux

package gateway_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/driver/internal/gateway"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
	"github.com/postern-dev/postern/internal/unixsocket"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a gateway whose Fetch is a function.
type server struct {
	gatewayv1.UnimplementedGatewayServiceServer

	fetch func(context.Context) (*gatewayv1.FetchResponse, error)
	calls atomic.Int32
}

func (s *server) Fetch(ctx context.Context, _ *gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) {
	s.calls.Add(1)
	return s.fetch(ctx)
}

func answer(context.Context) (*gatewayv1.FetchResponse, error) {
	return &gatewayv1.FetchResponse{Source: gatewayv1.Source_SOURCE_PROVIDER}, nil
}

// start serves in dir until the returned function is called. Then calls under
// way are cut off.
func start(t *testing.T, dir string, s *server) (stop func()) {
	t.Helper()
	return startDraining(t, dir, s, time.Millisecond)
}

func startDraining(t *testing.T, dir string, s *server, drain time.Duration) (stop func()) {
	t.Helper()
	listener, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{
		Path: filepath.Join(dir, gateway.SocketName), UID: unixsocket.Unowned, GID: unixsocket.Unowned, TakeOver: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	served, err := rpc.NewServer(rpc.Config{Name: "gateway", Logger: telemetry.Discard().Logger, Telemetry: telemetry.Discard(), DrainTimeout: drain})
	if err != nil {
		t.Fatal(err)
	}
	served.RegisterService(&gatewayv1.GatewayService_ServiceDesc, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- served.Run(ctx, listener) }()
	var stopped atomic.Bool
	stop = func() {
		if stopped.Swap(true) {
			return
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func newClient(t *testing.T, dir string) *gateway.Client {
	t.Helper()
	client, err := gateway.New(gateway.Config{Dir: dir, Telemetry: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

func TestFetch_WaitsForTheGateway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	client := newClient(t, dir)
	result := make(chan error, 1)
	go func() {
		_, err := client.Fetch(t.Context(), &gatewayv1.FetchRequest{})
		result <- err
	}()
	start(t, dir, &server{fetch: answer})
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if !client.Connected() {
		t.Error("the client says that it is not connected")
	}
}

func TestFetch_NoGateway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := newClient(t, dir).Fetch(ctx, &gatewayv1.FetchRequest{})
	failure := rpc.FromError(err)
	if failure == nil || failure.Reason != rpc.ReasonGatewayUnavailable || status.Code(err) != codes.Unavailable {
		t.Fatalf("error: %+v", failure)
	}
	want := "no gateway answers at " + dir + "/gateway.sock: check that the gateway's pod runs on this node"
	if !strings.HasPrefix(failure.Message, want) {
		t.Errorf("message %q, want %q", failure.Message, want)
	}
}

func TestFetch_NotToAProcessThatIsNotTheOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chown(dir, 65001, 65001); err != nil {
		t.Fatal(err)
	}
	impostor := &server{fetch: answer} // it runs as this test does, as root
	start(t, dir, impostor)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := newClient(t, dir).Fetch(ctx, &gatewayv1.FetchRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "has uid 0, but the directory belongs to uid 65001") {
		t.Errorf("error: %v", err)
	}
	if impostor.calls.Load() != 0 {
		t.Error("the impostor was called")
	}
}

func TestFetch_AgainWhenTheGatewayGoesAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	called := make(chan struct{})
	first := &server{fetch: func(ctx context.Context) (*gatewayv1.FetchResponse, error) {
		close(called)
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}}
	stop := start(t, dir, first)
	client := newClient(t, dir)
	result := make(chan error, 1)
	go func() {
		_, err := client.Fetch(t.Context(), &gatewayv1.FetchRequest{})
		result <- err
	}()
	<-called
	stop()
	second := &server{fetch: answer}
	start(t, dir, second)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if second.calls.Load() != 1 {
		t.Errorf("the new gateway was called %d times", second.calls.Load())
	}
}

// A call that an older gateway refuses because it ends is made again at the
// newer one, and one that it has begun is finished there.
func TestFetch_GatewayIsReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	began, finish := make(chan struct{}), make(chan struct{})
	older := &server{}
	older.fetch = func(ctx context.Context) (*gatewayv1.FetchResponse, error) {
		if older.calls.Load() > 1 {
			return nil, &rpc.Error{Code: codes.Unavailable, Message: "it ends"}
		}
		close(began)
		<-finish
		return answer(ctx)
	}
	stop := startDraining(t, dir, older, time.Minute)
	client := newClient(t, dir)
	fetch := func() <-chan error {
		result := make(chan error, 1)
		go func() {
			_, err := client.Fetch(t.Context(), &gatewayv1.FetchRequest{})
			result <- err
		}()
		return result
	}
	first := fetch()
	<-began
	second := fetch() // is refused as long as there is the older one alone
	newer := &server{fetch: answer}
	start(t, dir, newer)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	if err := <-second; err != nil {
		t.Errorf("the call that was refused: %v", err)
	}
	if newer.calls.Load() != 1 {
		t.Errorf("the newer gateway was called %d times, want once", newer.calls.Load())
	}
	close(finish)
	if err := <-first; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	<-stopped
}

// The connection is there again before anybody calls.
func TestRun_Reconnects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	client := newClient(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	for range 3 {
		stop := start(t, dir, &server{fetch: answer})
		awaitConnected(t, client, true)
		stop()
		awaitConnected(t, client, false)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func awaitConnected(t *testing.T, client *gateway.Client, want bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for client.Connected() != want {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("after 20 s: connected %t, want %t", !want, want)
		}
	}
}

func TestFetch_FailuresOfTheProviderAreFinal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &server{fetch: func(context.Context) (*gatewayv1.FetchResponse, error) {
		return nil, &rpc.Error{Reason: rpc.ReasonStoreUnavailable, Code: codes.Unavailable, Message: "the store is down"}
	}}
	start(t, dir, s)
	_, err := newClient(t, dir).Fetch(t.Context(), &gatewayv1.FetchRequest{})
	if failure := rpc.FromError(err); failure.Reason != rpc.ReasonStoreUnavailable || failure.Message != "the store is down" {
		t.Errorf("error: %+v", failure)
	}
	if s.calls.Load() != 1 {
		t.Errorf("called %d times: the store's failure was taken for the gateway's", s.calls.Load())
	}
}

func TestFetch_ReturnsWhyTheCallerGaveUp(t *testing.T) {
	t.Parallel()
	gone := errors.New("the pod is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	if _, err := newClient(t, t.TempDir()).Fetch(ctx, &gatewayv1.FetchRequest{}); !errors.Is(err, gone) {
		t.Errorf("error: %v", err)
	}
}

func TestNew_Refuses(t *testing.T) {
	t.Parallel()
	if _, err := gateway.New(gateway.Config{Dir: "gateway", Telemetry: telemetry.Discard()}); err == nil ||
		err.Error() != `gateway directory "gateway" is not an absolute path` {
		t.Errorf("error: %v", err)
	}
}
