// Package providertest runs small real providers, of both protocols, on real
// sockets, for tests of the gateway.
package providertest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// Native is a provider that speaks postern.provider.v1. The fields are set
// before it is started.
type Native struct {
	providerv1.UnimplementedProviderServiceServer
	Description *providerv1.DescribeResponse
	// OnFetch answers; without it, Answer(version) does.
	OnFetch func(ctx context.Context, req *providerv1.FetchRequest) (*providerv1.FetchResponse, error)

	mu       sync.Mutex
	requests []*providerv1.FetchRequest
	released []string
}

// Describe implements the service.
func (n *Native) Describe(context.Context, *providerv1.DescribeRequest) (*providerv1.DescribeResponse, error) {
	if n.Description == nil {
		return &providerv1.DescribeResponse{}, nil
	}
	return n.Description, nil
}

// Fetch implements the service.
func (n *Native) Fetch(ctx context.Context, req *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
	n.mu.Lock()
	n.requests = append(n.requests, req)
	n.mu.Unlock()
	if n.OnFetch != nil {
		return n.OnFetch(ctx, req)
	}
	return Answer(n.Description.GetVersion()), nil
}

// Release implements the service.
func (n *Native) Release(_ context.Context, req *providerv1.ReleaseRequest) (*providerv1.ReleaseResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.released = append(n.released, req.GetVolumeId())
	return &providerv1.ReleaseResponse{}, nil
}

// Requests returns the fetches so far.
func (n *Native) Requests() []*providerv1.FetchRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.requests)
}

// Released returns the ids of released volumes so far.
func (n *Native) Released() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.released)
}

// Answer is one file "password" with this content, as version of an object too.
func Answer(content string) *providerv1.FetchResponse {
	return &providerv1.FetchResponse{
		Files:   []*secretv1.File{{Path: "password", Mode: 0o644, Contents: []byte(content)}},
		Objects: []*secretv1.ObjectVersion{{Id: "password", Version: content}},
	}
}

// Legacy is a provider that speaks the upstream driver's protocol.
type Legacy struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	// VersionError fails Version.
	VersionError error
	// Response answers Mount.
	Response *v1alpha1.MountResponse
	// Error fails Mount.
	Error error

	mu        sync.Mutex
	requests  []*v1alpha1.MountRequest
	authority []string
}

// Version implements the service.
func (l *Legacy) Version(_ context.Context, req *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	if l.VersionError != nil {
		return nil, l.VersionError
	}
	if req.GetVersion() != "v1alpha1" {
		return nil, status.Errorf(codes.InvalidArgument, "version %q", req.GetVersion())
	}
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "legacy", RuntimeVersion: "1.2.3"}, nil
}

// Mount implements the service.
func (l *Legacy) Mount(ctx context.Context, req *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = append(l.requests, req)
	l.authority = append(l.authority, md.Get(":authority")...)
	return l.Response, l.Error
}

// Requests returns the mounts so far.
func (l *Legacy) Requests() []*v1alpha1.MountRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests)
}

// Authorities returns the :authority of each mount so far.
func (l *Legacy) Authorities() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.authority)
}

// Server is a running provider.
type Server struct {
	// Health is its health service; nil for a legacy one.
	Health *health.Server

	server   *grpc.Server
	listener *net.UnixListener
	done     chan struct{}
	once     sync.Once
}

// Start serves the provider at path until the test ends.
func (n *Native) Start(t testing.TB, path string) *Server {
	t.Helper()
	s := &Server{Health: health.NewServer(), server: grpc.NewServer(), done: make(chan struct{})}
	providerv1.RegisterProviderServiceServer(s.server, n)
	healthv1.RegisterHealthServer(s.server, s.Health)
	s.start(t, path)
	return s
}

// Start serves the provider at path until the test ends.
func (l *Legacy) Start(t testing.TB, path string) *Server {
	t.Helper()
	s := &Server{server: grpc.NewServer(), done: make(chan struct{})}
	v1alpha1.RegisterCSIDriverProviderServer(s.server, l)
	s.start(t, path)
	return s
}

func (s *Server) start(t testing.TB, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	s.listener = listener
	go func() {
		defer close(s.done)
		if err := s.server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve %s: %v", path, err)
		}
	}()
	t.Cleanup(s.Crash)
}

// Stop ends the provider as a good one does: not healthy, no socket, and then
// its calls are finished.
func (s *Server) Stop() {
	s.once.Do(func() {
		if s.Health != nil {
			s.Health.Shutdown()
		}
		s.server.GracefulStop()
	})
	<-s.done
}

// Crash breaks all connections. The socket's file goes as well.
func (s *Server) Crash() {
	s.once.Do(s.server.Stop)
	<-s.done
}

// Kill is the end of a process that has no time for anything: it breaks all
// connections, and the socket's file stays.
func (s *Server) Kill() {
	s.once.Do(func() {
		s.listener.SetUnlinkOnClose(false)
		s.server.Stop()
	})
	<-s.done
}

// Request returns a valid request for a provider.
func Request(provider string) *gatewayv1.FetchRequest {
	return &gatewayv1.FetchRequest{
		VolumeId: "csi-0123",
		Provider: provider,
		Pod: &secretv1.Pod{
			Namespace: "shop", Name: "web-0", Uid: "8a6f",
			ServiceAccount: &secretv1.ServiceAccount{Name: "web"},
		},
		SecretProviderClass: "db",
		Parameters:          map[string]string{"roleName": "web"},
		DefaultFileMode:     0o644,
		TargetPath:          "/var/lib/kubelet/pods/8a6f/volumes/kubernetes.io~csi/secrets/mount",
	}
}

// Token is one as kubelet requests it for a request's pod, valid for an hour; of
// a signature it has none.
func Token(req *gatewayv1.FetchRequest, audience string) *secretv1.Token {
	pod, expiry := req.GetPod(), time.Now().Add(time.Hour)
	claims := fmt.Sprintf(`{"aud":[%q],"exp":%d,"sub":"system:serviceaccount:%s:%s","kubernetes.io":{"pod":{"uid":%q}}}`,
		audience, expiry.Unix(), pod.GetNamespace(), pod.GetServiceAccount().GetName(), pod.GetUid())
	return &secretv1.Token{
		Audience: audience,
		Token:    "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln",
		Expiry:   timestamppb.New(expiry),
	}
}

// Eventually waits until condition holds; it fails the test if that takes long.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited for too long: %s", what)
		case <-tick.C:
		}
	}
}
