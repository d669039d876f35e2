package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// identity is a CSI driver that is as the test says.
type identity struct {
	csi.UnimplementedIdentityServer

	probe atomic.Pointer[func(context.Context) (*csi.ProbeResponse, error)]
}

func (i *identity) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return (*i.probe.Load())(ctx)
}

func TestHealthIsWhatTheDriverSays(t *testing.T) {
	t.Parallel()
	driver := &identity{}
	h := health{driver: connect(t, driver), timeout: 200 * time.Millisecond}
	for _, test := range []struct {
		name     string
		probe    func(context.Context) (*csi.ProbeResponse, error)
		timeout  time.Duration
		want     int
		wantBody string
	}{
		{
			name: "says nothing against it", want: http.StatusOK, wantBody: "ok",
			probe: func(context.Context) (*csi.ProbeResponse, error) { return &csi.ProbeResponse{}, nil },
		},
		{
			name: "ready", want: http.StatusOK, wantBody: "ok",
			probe: func(context.Context) (*csi.ProbeResponse, error) {
				return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
			},
		},
		{
			name: "not ready", want: http.StatusInternalServerError, wantBody: "not ready",
			probe: func(context.Context) (*csi.ProbeResponse, error) {
				return &csi.ProbeResponse{Ready: wrapperspb.Bool(false)}, nil
			},
		},
		{
			name: "fails", want: http.StatusInternalServerError, wantBody: "no gateway",
			probe: func(context.Context) (*csi.ProbeResponse, error) {
				return nil, status.Error(codes.FailedPrecondition, "no gateway")
			},
		},
		{
			name: "hangs", want: http.StatusInternalServerError, wantBody: "DeadlineExceeded", timeout: 50 * time.Millisecond,
			probe: func(ctx context.Context) (*csi.ProbeResponse, error) { <-ctx.Done(); return nil, ctx.Err() },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			driver.probe.Store(&test.probe)
			h.timeout = time.Minute
			if test.timeout != 0 {
				h.timeout = test.timeout
			}
			answer := httptest.NewRecorder()
			h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", http.NoBody))
			if answer.Code != test.want || !strings.Contains(answer.Body.String(), test.wantBody) {
				t.Errorf("answers %d %q, want %d %q", answer.Code, answer.Body, test.want, test.wantBody)
			}
		})
	}
}

func TestServesAtItsEndpoint(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	// Arguments as a chart gives them: the address is in use, which it says.
	err = run(t.Context(), []string{"--v=2", "--csi-address=/csi.sock", "--probe-timeout=3s", "--http-endpoint=" + taken.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("run() = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{"--http-endpoint=127.0.0.1:0"}); err != nil {
		t.Errorf("run() until ctx ends = %v", err)
	}
}

func connect(t *testing.T, driver csi.IdentityServer) csi.IdentityClient {
	t.Helper()
	dir, err := os.MkdirTemp("", "live-") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "csi.sock")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, driver)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return csi.NewIdentityClient(conn)
}
