package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/postern-dev/postern/internal/logkey"
)

const (
	// watchInterval is how often a Watch asks again.
	watchInterval = time.Second
	// healthTimeout bounds all checks of one question.
	healthTimeout = 5 * time.Second
)

// errNotRunning is why a server that does not run, or drains, is not ready.
var errNotRunning = errors.New("the server is starting or draining")

// health answers grpc.health.v1 by asking the checks each time.
//
// Invariants:
//  1. Between serving(true) and serving(false) the answer is what the checks
//     say; at all other times it is NOT_SERVING.
//  2. done is closed by the first serving(false), which ends every Watch, so
//     that none holds up a drain.
//  3. failed holds the names of the checks that failed when last asked; a line
//     is logged only when that changes.
type health struct {
	healthpb.UnimplementedHealthServer

	logger *slog.Logger
	checks map[string]func(context.Context) error
	done   chan struct{}

	mu       sync.Mutex
	running  bool
	services map[string]bool
	failed   map[string]bool
}

func newHealth(cfg Config) *health {
	return &health{
		logger:   cfg.Logger,
		checks:   maps.Clone(cfg.Health),
		done:     make(chan struct{}),
		services: map[string]bool{"": true},
		failed:   make(map[string]bool),
	}
}

// add makes a service's name one that may be asked for.
func (h *health) add(service string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.services[service] = true
}

func (h *health) serving(yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running && !yes {
		close(h.done)
	}
	h.running = yes
}

// ready returns why the service cannot be used, and nil if it can. A check's
// name asks that check; all other known names ask all of them.
func (h *health) ready(ctx context.Context, service string) error {
	h.mu.Lock()
	running := h.running
	h.mu.Unlock()
	if !running {
		return errNotRunning
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if check, ok := h.checks[service]; ok {
		return h.ask(ctx, service, check)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(h.checks)) {
		errs = append(errs, h.ask(ctx, name, h.checks[name]))
	}
	return errors.Join(errs...)
}

func (h *health) ask(ctx context.Context, name string, check func(context.Context) error) error {
	err := check(ctx)
	h.mu.Lock()
	changed := h.failed[name] != (err != nil)
	h.failed[name] = err != nil
	h.mu.Unlock()
	switch {
	case err == nil && changed:
		h.logger.LogAttrs(ctx, slog.LevelInfo, "health check passes again", slog.String(logkey.Name, name))
	case err != nil && changed:
		h.logger.LogAttrs(ctx, slog.LevelWarn, "health check fails",
			slog.String(logkey.Name, name), slog.String(logkey.Error, err.Error()))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// status asks for one service's status.
func (h *health) status(ctx context.Context, service string) healthpb.HealthCheckResponse_ServingStatus {
	if !h.knows(service) {
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	}
	if h.ready(ctx, service) != nil {
		return healthpb.HealthCheckResponse_NOT_SERVING
	}
	return healthpb.HealthCheckResponse_SERVING
}

func (h *health) knows(service string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, isCheck := h.checks[service]
	return isCheck || h.services[service]
}

// Check implements grpc.health.v1.Health.
func (h *health) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s := h.status(ctx, req.GetService())
	if s == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, &Error{Code: codes.NotFound, Message: fmt.Sprintf("unknown service %q", req.GetService())}
	}
	return &healthpb.HealthCheckResponse{Status: s}, nil
}

// List implements grpc.health.v1.Health.
func (h *health) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	h.mu.Lock()
	names := slices.Collect(maps.Keys(h.services))
	h.mu.Unlock()
	names = slices.AppendSeq(names, maps.Keys(h.checks))
	resp := &healthpb.HealthListResponse{Statuses: make(map[string]*healthpb.HealthCheckResponse, len(names))}
	for _, name := range names {
		resp.Statuses[name] = &healthpb.HealthCheckResponse{Status: h.status(ctx, name)}
	}
	return resp, nil
}

// Watch implements grpc.health.v1.Health. It sends a status when it changes.
func (h *health) Watch(req *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	ctx := stream.Context()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	last := healthpb.HealthCheckResponse_UNKNOWN
	for {
		if s := h.status(ctx, req.GetService()); s != last {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: s}); err != nil {
				return err
			}
			last = s
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.done:
			if last == healthpb.HealthCheckResponse_NOT_SERVING {
				return nil
			}
			return stream.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING})
		case <-tick.C:
		}
	}
}
