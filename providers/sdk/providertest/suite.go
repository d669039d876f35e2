package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/postern-dev/postern/internal/unixsocket"
	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	"github.com/postern-dev/postern/providers/sdk"
)

// stopTimeout is the patience of a suite.
const stopTimeout = 10 * time.Second

// suite is one run of the checks. It keeps what the provider has let out, to
// look through at the end.
type suite struct {
	h     Harness
	dir   string
	spans *collector
	logs  buffer
	// patience is how long a provider without calls may take to end.
	patience time.Duration

	mu       sync.Mutex
	running  *instance
	texts    map[string]string // of errors and metrics, by where they came from
	canaries map[string]string // what must not show up, to what it is
	labels   map[string]string // what must not show up in metrics
}

func newSuite(ctx context.Context, h Harness) (*suite, error) {
	switch {
	case h.Definition == nil:
		return nil, errors.New("harness has no Definition")
	case h.Valid.Request == nil:
		return nil, errors.New("harness has no Valid request")
	case h.Mutate == nil:
		return nil, errors.New("harness has no Mutate")
	}
	// Not below a test's own directory: that is too long for a socket's path.
	dir, err := os.MkdirTemp("", "pt")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	spans, err := newCollector(ctx)
	if err != nil {
		return nil, err
	}
	s := &suite{
		h: h, dir: dir, spans: spans, patience: stopTimeout,
		texts: map[string]string{}, canaries: map[string]string{}, labels: map[string]string{},
	}
	for i, canary := range h.Canaries {
		s.canary(fmt.Sprintf("canary %d", i), canary)
	}
	return s, nil
}

func (s *suite) close() error {
	return errors.Join(s.stop(), s.spans.close(), os.RemoveAll(s.dir))
}

// instance is one run of the provider.
type instance struct {
	conn     *grpc.ClientConn
	provider providerv1.ProviderServiceClient
	upstream v1alpha1.CSIDriverProviderClient
	health   grpc_health_v1.HealthClient
	logs     buffer
	cancel   context.CancelFunc
	done     chan struct{}
	err      error // of Run, when done is closed
}

// started returns the provider, which it starts unless it runs.
func (s *suite) started(ctx context.Context) (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return s.running, nil
	}
	p, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	s.running = p
	return p, nil
}

// stop ends the provider, if it runs, and waits for it.
func (s *suite) stop() error {
	s.mu.Lock()
	p := s.running
	s.running = nil
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.stop(s.patience)
}

// start starts the provider and waits until it is there. It lives until stop,
// not until ctx ends.
func (s *suite) start(ctx context.Context) (*instance, error) {
	const name = "conformance"
	conn, err := dial(filepath.Join(s.dir, name+".sock"))
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &instance{
		conn: conn, cancel: cancel, done: make(chan struct{}),
		provider: providerv1.NewProviderServiceClient(conn),
		upstream: v1alpha1.NewCSIDriverProviderClient(conn),
		health:   grpc_health_v1.NewHealthClient(conn),
	}
	env := sdk.Env{
		Args: append([]string{
			"--listen-dir=" + s.dir, "--instance=" + name, "--health-addr=127.0.0.1:0",
			"--log-level=debug", "--log-format=json", "--drain-timeout=" + checkTimeout.String(),
			"--allowed-uids=" + strconv.Itoa(os.Getuid()),
		}, s.h.Args...),
		Getenv: s.getenv, Stdout: &s.logs, Stderr: io.MultiWriter(&s.logs, &p.logs),
	}
	go func() {
		defer close(p.done)
		p.err = sdk.Run(life, s.h.Definition(), env)
	}()
	if err := p.wait(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start the provider: %w", err), p.stop(s.patience))
	}
	return p, nil
}

// wait waits until the provider answers, or has ended.
func (p *instance) wait(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.done:
			cancel(errors.New("it has ended"))
		case <-ctx.Done():
		}
	}()
	_, err := p.provider.Describe(ctx, &providerv1.DescribeRequest{}, grpc.WaitForReady(true))
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

func (p *instance) stop(patience time.Duration) error {
	p.cancel()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
		return errors.Join(p.err, p.conn.Close())
	case <-timer.C:
		return errors.Join(fmt.Errorf("the provider has not ended after %s", patience), p.conn.Close())
	}
}

func dial(socket string) (*grpc.ClientConn, error) {
	return unixsocket.Dial(socket, unixsocket.DialConfig{Options: []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, MaxDelay: 50 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16 << 20)),
	}})
}

// adminAddress finds the address of the health server in the logs.
var adminAddress = regexp.MustCompile(`"admin server listens".*"address":"([^"]+)"`)

// address waits until the health server listens.
func (p *instance) address(ctx context.Context) (string, error) {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		if found := adminAddress.FindStringSubmatch(p.logs.String()); found != nil {
			return found[1], nil
		}
		select {
		case <-again.C:
		case <-p.done:
			return "", errors.New("the provider has ended")
		case <-ctx.Done():
			return "", fmt.Errorf("the health server does not listen: %w", ctx.Err())
		}
	}
}

func (s *suite) getenv(key string) string {
	switch key {
	case "OTEL_EXPORTER_OTLP_ENDPOINT":
		return "http://" + s.spans.address
	case "OTEL_EXPORTER_OTLP_PROTOCOL":
		return "http/protobuf"
	}
	if s.h.Getenv == nil {
		return ""
	}
	return s.h.Getenv(key)
}

// buffer is a bytes.Buffer for several writers.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns all that was written.
func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
