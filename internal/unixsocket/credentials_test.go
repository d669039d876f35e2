package unixsocket_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/internal/unixsocket"
)

func self() unixsocket.Peer {
	return unixsocket.Peer{PID: int32(os.Getpid()), UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
}

// only accepts one uid.
func only(want uint32) func(uint32) error {
	return func(uid uint32) error {
		if uid != want {
			return fmt.Errorf("want uid %d", want)
		}
		return nil
	}
}

func TestPeer_BothSides(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	seen := make(chan unixsocket.Peer, 1)
	server := newServer(unixsocket.CredentialsConfig{RequireUID: only(self().UID)}, func(p unixsocket.Peer, known bool) {
		if !known {
			t.Error("the server does not know its peer")
		}
		seen <- p
	})
	serve(t, server, listen(t, unixsocket.ListenConfig{Path: path}))
	client := dial(t, path, unixsocket.DialConfig{RequireUID: only(self().UID)})

	var p peer.Peer
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.Peer(&p)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(self(), <-seen); diff != "" {
		t.Errorf("the server's peer (-want +got):\n%s", diff)
	}
	got, ok := unixsocket.PeerFromContext(peer.NewContext(t.Context(), &p))
	if diff := cmp.Diff(self(), got); !ok || diff != "" {
		t.Errorf("the client's peer (-want +got), known %t:\n%s", ok, diff)
	}
	if p.Addr.String() != path {
		t.Errorf("the server's address = %s, want %s", p.Addr, path)
	}
}

func TestServer_RefusesUID(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	path := filepath.Join(dir, "x.sock")
	called := func(unixsocket.Peer, bool) { t.Error("the handler was called") }
	server := newServer(unixsocket.CredentialsConfig{RequireUID: only(self().UID)}, called)
	serve(t, server, listen(t, unixsocket.ListenConfig{Path: path, Mode: 0o666}))
	got := startChild(t, dir, "dial "+path)
	if !strings.HasPrefix(got, "error: rpc error: code = Unavailable") {
		t.Errorf("the other user's call: %q, want Unavailable", got)
	}
}

func TestServer_SeesOtherUID(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	path := filepath.Join(dir, "x.sock")
	seen := make(chan unixsocket.Peer, 1)
	server := newServer(unixsocket.CredentialsConfig{}, func(p unixsocket.Peer, _ bool) { seen <- p })
	serve(t, server, listen(t, unixsocket.ListenConfig{Path: path, Mode: 0o666}))
	if got := startChild(t, dir, "dial "+path); got != "" {
		t.Fatalf("the other user's call: %q", got)
	}
	if p := <-seen; p.UID != otherUID || p.GID != otherUID {
		t.Errorf("peer = %+v, want uid and gid %d", p, otherUID)
	}
}

func TestClient_RefusesUID(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	path := filepath.Join(dir, "x.sock")
	if got := startChild(t, dir, "listen "+path); got != "ready" {
		t.Fatalf("the other user's server: %q", got)
	}
	_, err := dial(t, path, unixsocket.DialConfig{RequireUID: only(self().UID)}).
		Check(t.Context(), &healthpb.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable ||
		!strings.Contains(fmt.Sprint(err), fmt.Sprintf("peer with uid %d refused: want uid %d", otherUID, self().UID)) {
		t.Errorf("error = %v, want Unavailable with the uid", err)
	}
	_, err = dial(t, path, unixsocket.DialConfig{RequireUID: only(otherUID)}).
		Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Errorf("with the right uid: %v", err)
	}
}

// TestUnknownPeer: a connection that has no credentials is accepted only where
// nobody asks for them.
func TestUnknownPeer(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	strict := unixsocket.Credentials(unixsocket.CredentialsConfig{RequireUID: func(uint32) error { return nil }})
	if _, _, err := strict.ServerHandshake(a); err == nil {
		t.Error("the server accepts a peer that it does not know")
	}
	if _, _, err := strict.ClientHandshake(t.Context(), "", a); err == nil {
		t.Error("the client accepts a peer that it does not know")
	}
	lax := unixsocket.Credentials(unixsocket.CredentialsConfig{})
	_, info, err := lax.ServerHandshake(a)
	if err != nil {
		t.Fatal(err)
	}
	ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: info})
	if p, ok := unixsocket.PeerFromContext(ctx); ok {
		t.Errorf("PeerFromContext = %+v, want none", p)
	}
	if p, ok := unixsocket.PeerFromContext(t.Context()); ok {
		t.Errorf("PeerFromContext outside of a call = %+v, want none", p)
	}
}

func TestCredentials_Interface(t *testing.T) {
	t.Parallel()
	c := unixsocket.Credentials(unixsocket.CredentialsConfig{RequireUID: only(1)})
	if got := c.Info().SecurityProtocol; got != "unix" {
		t.Errorf("protocol = %q", got)
	}
	if err := c.OverrideServerName("x"); err != nil { //nolint:staticcheck // part of the interface
		t.Error(err)
	}
	a, b := net.Pipe()
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	if _, _, err := c.Clone().ServerHandshake(a); err == nil {
		t.Error("the clone forgot whom to refuse")
	}
}

func TestDial_Paths(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	for _, name := range []string{"x.sock", "a b%20c?d#e.sock", "é.sock"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(dir, name)
			serve(t, newServer(unixsocket.CredentialsConfig{}, nil), listen(t, unixsocket.ListenConfig{Path: path}))
			if _, err := dial(t, path, unixsocket.DialConfig{}).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	for path, want := range map[string]error{"": nil, "x.sock": nil, "/" + strings.Repeat("x", 107): unixsocket.ErrPathTooLong} {
		if _, err := unixsocket.Dial(path, unixsocket.DialConfig{}); err == nil || (want != nil && !errors.Is(err, want)) {
			t.Errorf("Dial(%q) = %v", path, err)
		}
	}
}

func TestDial_MessageSize(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	serve(t, newServer(unixsocket.CredentialsConfig{}, nil), listen(t, unixsocket.ListenConfig{Path: path}))
	for name, tt := range map[string]struct {
		limit, size int
		want        codes.Code
	}{
		"default":       {size: unixsocket.DefaultMaxMessageBytes - 16, want: codes.OK},
		"above default": {size: unixsocket.DefaultMaxMessageBytes + 1, want: codes.ResourceExhausted},
		"above limit":   {limit: 1000, size: 1001, want: codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := dial(t, path, unixsocket.DialConfig{MaxMessageBytes: tt.limit}).
				Check(t.Context(), &healthpb.HealthCheckRequest{Service: strings.Repeat("x", tt.size)})
			if got := status.Code(err); got != tt.want {
				t.Errorf("code = %v, want %v", got, tt.want)
			}
		})
	}
}

// TestDial_Reconnects: a client outlives its server, and finds the next one.
func TestDial_Reconnects(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	client := dial(t, path, unixsocket.DialConfig{})
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("without a server: %v, want Unavailable", err)
	}
	for range 2 {
		l := listen(t, unixsocket.ListenConfig{Path: path})
		server := newServer(unixsocket.CredentialsConfig{}, nil)
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		_, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		for status.Code(err) == codes.Unavailable && t.Context().Err() == nil {
			// It may meet the end of the connection that was.
			_, err = client.Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		}
		if err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
