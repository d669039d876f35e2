package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/telemetry"
	"github.com/postern-dev/postern/internal/unixsocket"
)

const (
	// defaultDrainTimeout is below the 30 s that Kubernetes gives a pod to end.
	defaultDrainTimeout = 25 * time.Second
	// cancelTimeout is what handlers have to return in after their calls were
	// cancelled.
	cancelTimeout = 2 * time.Second
)

// Config says how a server behaves.
type Config struct {
	// Name is for logs and errors. Required.
	Name string
	// Logger defaults to Telemetry's.
	Logger *slog.Logger
	// Telemetry traces and measures the calls. Required.
	Telemetry *telemetry.Telemetry
	// Authorize decides about each call by who makes it. Its error becomes
	// PermissionDenied with reason CALLER_REFUSED. Callers whose credentials
	// are not known are refused without asking. Nil lets everybody call.
	Authorize func(ctx context.Context, peer unixsocket.Peer, fullMethod string) error
	// MaxMessageBytes is the largest message either way. Default
	// unixsocket.DefaultMaxMessageBytes.
	MaxMessageBytes int
	// DrainTimeout is how long calls in progress may take at the end. Default
	// 25 s.
	DrainTimeout time.Duration
	// Health are checks behind grpc.health.v1. Each is asked when somebody
	// asks, and returns nil if what it stands for can be used. The empty
	// service name and the services' own ask all checks, a check's name only
	// that one.
	Health map[string]func(ctx context.Context) error
}

func (c *Config) complete() error {
	switch {
	case c.Name == "":
		return errors.New("the server has no name")
	case c.Telemetry == nil:
		return errors.New("telemetry is missing")
	case c.MaxMessageBytes < 0:
		return fmt.Errorf("largest message of %d bytes is negative", c.MaxMessageBytes)
	case c.DrainTimeout < 0:
		return fmt.Errorf("drain timeout %v is negative", c.DrainTimeout)
	}
	if c.Logger == nil {
		c.Logger = c.Telemetry.Logger
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = unixsocket.DefaultMaxMessageBytes
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = defaultDrainTimeout
	}
	return nil
}

// Server is a gRPC server for unix sockets with health, logs, traces and
// metrics. It can run once.
type Server struct {
	cfg    Config
	grpc   *grpc.Server
	health *health
	ran    atomic.Bool
}

var _ grpc.ServiceRegistrar = (*Server)(nil)

// NewServer returns a server which has only the health service yet.
func NewServer(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("make gRPC server %q: %w", cfg.Name, err)
	}
	s := &Server{cfg: cfg, health: newHealth(cfg)}
	unary, stream := s.interceptors()
	s.grpc = grpc.NewServer(
		grpc.Creds(unixsocket.Credentials(unixsocket.CredentialsConfig{})),
		cfg.Telemetry.ServerOption(),
		grpc.StatsHandler(replies{}),
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(stream...),
		grpc.MaxRecvMsgSize(cfg.MaxMessageBytes),
		grpc.MaxSendMsgSize(cfg.MaxMessageBytes),
	)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	return s, nil
}

// RegisterService implements grpc.ServiceRegistrar. Call it before Run.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
	s.health.add(desc.ServiceName)
}

// Ready returns why the server is not ready, as its health service sees it; nil
// if it is. It suits daemon.AdminConfig.
func (s *Server) Ready(ctx context.Context) error { return s.health.ready(ctx, "") }

// Run serves on the listeners until ctx ends, and closes them. Then health says
// NOT_SERVING, new calls are refused, and calls in progress have DrainTimeout to
// finish before they are cancelled. It returns nil after that, and an error if a
// listener fails.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	if len(listeners) == 0 {
		return fmt.Errorf("run gRPC server %q: nothing to listen on", s.cfg.Name)
	}
	if s.ran.Swap(true) {
		err := fmt.Errorf("run gRPC server %q: a server runs only once", s.cfg.Name)
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- s.grpc.Serve(l) }()
		s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "gRPC server listens",
			slog.String(logkey.Name, s.cfg.Name), slog.String(logkey.Address, l.Addr().String()))
	}
	s.health.serving(true)

	var err error
	pending := len(listeners)
	select {
	case err = <-failed:
		pending--
	case <-ctx.Done():
	}
	s.drain(context.WithoutCancel(ctx))
	for range pending {
		// A drain that came before Serve is a clean end too.
		if e := <-failed; !errors.Is(e, grpc.ErrServerStopped) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("run gRPC server %q: %w", s.cfg.Name, err)
	}
	return nil
}

// drain ends the server in order: health first, so that nobody new comes.
func (s *Server) drain(ctx context.Context) {
	start := time.Now()
	s.health.serving(false)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
	}()
	if !within(s.cfg.DrainTimeout, drained) {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "calls did not end in time and are cancelled", slog.String(logkey.Name, s.cfg.Name))
		s.grpc.Stop()
		if !within(cancelTimeout, drained) {
			s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "calls that do not end when cancelled are left behind", slog.String(logkey.Name, s.cfg.Name))
		}
	}
	s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "gRPC server ended",
		slog.String(logkey.Name, s.cfg.Name), slog.Duration(logkey.Duration, time.Since(start)))
}

// within waits for done, and reports false if that takes longer than d.
func within(d time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
