package unixsocket_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/postern-dev/postern/internal/unixsocket"
)

// childEnv makes the test binary play another process: "listen <path>" or "dial
// <path>".
const childEnv = "UNIXSOCKET_TEST_CHILD"

// otherUID is the user that children run as.
const otherUID = 54321

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		if err := child(role); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child(role string) error {
	verb, path, _ := strings.Cut(role, " ")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch verb {
	case "listen":
		l, err := unixsocket.Listen(ctx, unixsocket.ListenConfig{Path: path, Mode: 0o666})
		if err != nil {
			return err
		}
		server := newServer(unixsocket.CredentialsConfig{}, nil)
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it
			server.GracefulStop()
		}()
		fmt.Println("ready")
		return server.Serve(l)
	case "dial":
		conn, err := unixsocket.Dial(path, unixsocket.DialConfig{})
		if err != nil {
			return err
		}
		_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		return errors.Join(err, conn.Close())
	default:
		return fmt.Errorf("unknown role %q", role)
	}
}

// startChild runs the test binary as otherUID and returns its first line, or
// all it says if it ends at once.
func startChild(t *testing.T, dir, role string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to run a process as another user")
	}
	// The binary itself is where only this user gets at it.
	raw, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "child")
	if err := os.WriteFile(binary, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUID, Gid: otherUID}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return strings.TrimSpace(line)
}

// openDir returns a directory that every user may use.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "us")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// healthServer answers Check, and tells seen whose call it was.
type healthServer struct {
	healthpb.UnimplementedHealthServer
	seen func(peer unixsocket.Peer, known bool)
}

func (s *healthServer) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if s.seen != nil {
		s.seen(unixsocket.PeerFromContext(ctx))
	}
	_ = req.GetService() // tests of sizes make it large
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func newServer(cfg unixsocket.CredentialsConfig, seen func(unixsocket.Peer, bool)) *grpc.Server {
	server := grpc.NewServer(grpc.Creds(unixsocket.Credentials(cfg)), grpc.MaxRecvMsgSize(32<<20))
	healthpb.RegisterHealthServer(server, &healthServer{seen: seen})
	return server
}

// serve serves on l until the test ends.
func serve(t *testing.T, server *grpc.Server, l net.Listener) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func listen(t *testing.T, cfg unixsocket.ListenConfig) net.Listener {
	t.Helper()
	l, err := unixsocket.Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dial(t *testing.T, path string, cfg unixsocket.DialConfig) healthpb.HealthClient {
	t.Helper()
	conn, err := unixsocket.Dial(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return healthpb.NewHealthClient(conn)
}
