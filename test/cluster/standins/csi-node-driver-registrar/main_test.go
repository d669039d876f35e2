package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/postern-dev/postern/test/ports"
)

const (
	driver   = "it.example.com"
	patience = time.Minute
)

// identity is a CSI driver that knows its name.
type identity struct {
	csi.UnimplementedIdentityServer
}

func (identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driver}, nil
}

// started is a registrar that runs, and the kubelet's view of it.
type started struct {
	kubelet registration.RegistrationClient
	socket  string
	stop    context.CancelFunc
	ended   chan error
}

func start(t *testing.T, more ...string) started {
	t.Helper()
	dir, err := os.MkdirTemp("", "reg-") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(t.Context())
	s := started{socket: filepath.Join(dir, driver+"-reg.sock"), stop: cancel, ended: make(chan error, 1)}
	args := append([]string{
		"--v=5", "--csi-address=" + filepath.Join(dir, "csi.sock"), "--kubelet-registration-path=/kubelet/csi.sock",
		"--plugin-registration-path=" + dir,
	}, more...)
	go func() { s.ended <- run(ctx, args) }()
	t.Cleanup(cancel)

	listener, err := new(net.ListenConfig).Listen(ctx, "unix", filepath.Join(dir, "csi.sock")) // the registrar waits for it
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, identity{})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	conn, err := grpc.NewClient("unix:"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s.kubelet = registration.NewRegistrationClient(conn)
	return s
}

func (s started) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(patience):
		t.Fatal("it has not ended")
		return nil
	}
}

func TestRegistersTheDriver(t *testing.T) {
	t.Parallel()
	free, err := ports.Free(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	health := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: free[0]}).String()
	s := start(t, "--http-endpoint="+health)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	info, err := s.kubelet.GetInfo(ctx, &registration.InfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if info.GetType() != registration.CSIPlugin || info.GetName() != driver || info.GetEndpoint() != "/kubelet/csi.sock" {
		t.Errorf("it says %v", info)
	}
	if mode, err := os.Stat(s.socket); err != nil || mode.Mode().Perm() != 0o700 {
		t.Errorf("the socket's mode is %v, %v, want it for its owner alone", mode, err)
	}
	if _, err := s.kubelet.NotifyRegistrationStatus(ctx, &registration.RegistrationStatus{PluginRegistered: true}); err != nil {
		t.Fatal(err)
	}
	if got := body(ctx, t, "http://"+health+"/healthz"); got != "ok\n" {
		t.Errorf("/healthz says %q", got)
	}
	s.stop()
	if err := s.end(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := os.Stat(s.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket is there: %v", err)
	}
}

func TestEndsWhenTheKubeletRefusesTheDriver(t *testing.T) {
	t.Parallel()
	s := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	refusal := &registration.RegistrationStatus{Error: "no room"}
	if _, err := s.kubelet.NotifyRegistrationStatus(ctx, refusal, grpc.WaitForReady(true)); err != nil {
		t.Logf("the answer got lost: %v", err) // it is ending
	}
	if err := s.end(t); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("it ended with %v", err)
	}
}

func TestRegistrationPathIsRequired(t *testing.T) {
	t.Parallel()
	if err := run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "--kubelet-registration-path") {
		t.Errorf("run() = %v", err)
	}
}

// body reads from a server that is about to listen.
func body(ctx context.Context, t *testing.T, url string) string {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultTransport.RoundTrip(request)
		if err == nil {
			contents, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			return string(contents)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("GET %s: %v", url, err)
		case <-ticker.C:
		}
	}
}
