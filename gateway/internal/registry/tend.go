package registry

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/gateway/internal/provider"
	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/unixsocket"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

const (
	// describeTimeout bounds Describe, which does not reach a store.
	describeTimeout = 5 * time.Second
	// firstRetry and lastRetry bound the pause before an instance that answered
	// badly is asked again.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// connectParams makes a lost connection come back quickly: an attempt on a unix
// socket costs microseconds, and a socket's file is there a moment before its
// process listens.
func connectParams() grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 2 * time.Second},
		MinConnectTimeout: 5 * time.Second,
	})
}

// tending is the work of an instance's goroutine.
type tending struct {
	registry *Registry
	inst     *instance
	conn     *grpc.ClientConn
	// refuse ends the work with a *refusedError. It is called by a handshake:
	// gRPC's own state does not tell one failure from the next.
	refuse context.CancelCauseFunc
	// pause is the next one after a bad answer.
	pause time.Duration
}

// refusedError says that the wrong process listens.
type refusedError struct{ message string }

func (e *refusedError) Error() string { return e.message }

// tend connects an instance and follows how it is, until ctx ends.
func (r *Registry) tend(ctx context.Context, inst *instance) {
	r.logger.LogAttrs(ctx, slog.LevelInfo, "provider socket found", inst.attrs()...)
	accepted, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	t := &tending{registry: r, inst: inst, refuse: refuse, pause: firstRetry}
	if err := t.dial(); err != nil {
		t.became(ctx, NotServing, err.Error())
		<-ctx.Done()
		return
	}
	for accepted.Err() == nil {
		t.step(accepted)
	}
	_ = t.conn.Close() // closing again is its only error
	// A refused instance is not tried again: another process needs another
	// socket, or its directory another owner, and is another instance then.
	if refused, ok := errors.AsType[*refusedError](context.Cause(accepted)); ok {
		t.became(ctx, Refused, refused.message)
		<-ctx.Done()
	}
}

// step goes from one connection to the next.
func (t *tending) step(ctx context.Context) {
	if !t.connect(ctx) {
		return
	}
	description, err := t.describe(ctx)
	if err != nil {
		t.answeredBadly(ctx, err)
		return
	}
	t.follow(ctx, description)
}

// dial prepares the connection. Nothing goes out yet.
func (t *tending) dial() error {
	options := append([]grpc.DialOption{
		connectParams(),
		grpc.WithDisableServiceConfig(),
		// Neither a retry nor a hedge: a call may issue credentials.
		grpc.WithDisableRetry(),
		// Health is followed all the time, so idleness means nothing.
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(t.registry.cfg.MaxMessageBytes)),
	}, t.registry.cfg.DialOptions...)
	conn, err := unixsocket.Dial(t.inst.socket.path, unixsocket.DialConfig{RequireUID: t.requireUID, Options: options})
	if err != nil {
		return err
	}
	t.conn = conn
	made := provider.Provider(provider.NewNative(conn))
	if t.inst.socket.protocol == Legacy {
		made = provider.NewLegacy(conn)
	}
	t.registry.update(t.inst, func(inst *instance) { inst.provider = made })
	return nil
}

// requireUID is called in each handshake.
func (t *tending) requireUID(uid uint32) error {
	refusal := t.inst.socket.refusal(uid)
	if refusal == "" {
		return nil
	}
	err := &refusedError{message: refusal}
	t.refuse(err)
	return err
}

// connect waits for the connection to change, and reports whether it is up.
func (t *tending) connect(ctx context.Context) bool {
	if !t.isGone() {
		t.conn.Connect()
	}
	state := t.conn.GetState()
	switch state {
	case connectivity.Ready:
		return true
	case connectivity.TransientFailure:
		t.became(ctx, Connecting, t.connectionError(ctx))
	}
	t.conn.WaitForStateChange(ctx, state)
	return false
}

// isGone reports whether the socket is gone. What listens at its path then, if
// anything, is another instance.
func (t *tending) isGone() bool {
	t.registry.mu.Lock()
	defer t.registry.mu.Unlock()
	return t.inst.gone
}

// connectionError is why the connection is down; gRPC tells that only to calls,
// which fail at once in this state.
func (t *tending) connectionError(ctx context.Context) string {
	_, err := healthv1.NewHealthClient(t.conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err == nil {
		return ""
	}
	return status.Convert(err).Message()
}

// describe asks the instance what it is. A legacy instance need not answer
// well: the upstream driver never asks on the way to a mount.
func (t *tending) describe(ctx context.Context) (*providerv1.DescribeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	description, err := t.inst.provider.Describe(ctx)
	if err != nil && t.inst.socket.protocol == Legacy && status.Code(err) != codes.Unavailable && !notSent(err) {
		return &providerv1.DescribeResponse{}, nil
	}
	return description, err
}

func notSent(err error) bool {
	_, ok := errors.AsType[*provider.NotSentError](err)
	return ok
}

// answeredBadly records the failure of Describe and pauses. A connection that
// broke meanwhile is no bad answer.
func (t *tending) answeredBadly(ctx context.Context, err error) {
	if t.conn.GetState() != connectivity.Ready {
		return
	}
	message := err.Error()
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		message = e.Message
	}
	t.became(ctx, NotServing, "Describe failed: "+message)
	pause, cancel := context.WithTimeout(ctx, t.pause)
	defer cancel()
	t.pause = min(2*t.pause, lastRetry)
	t.conn.WaitForStateChange(pause, connectivity.Ready)
}

// follow keeps the state that of the instance's health service as long as the
// connection is up. The stream is left as soon as it is not: an instance that
// shuts down waits for its streams to end.
func (t *tending) follow(ctx context.Context, description *providerv1.DescribeResponse) {
	t.registry.update(t.inst, func(inst *instance) {
		inst.description = description
		inst.connectedAt = time.Now()
	})
	up, down := context.WithCancel(ctx)
	defer down()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for up.Err() == nil {
			t.watchHealth(up)
		}
	}()
	t.conn.WaitForStateChange(ctx, connectivity.Ready)
	down()
	<-watched
	t.registry.update(t.inst, func(inst *instance) { inst.connectedAt = time.Time{} })
	if ctx.Err() == nil {
		t.became(ctx, Connecting, "the connection was lost")
	}
}

// watchHealth follows one stream to its end. An instance without the service
// serves while it is connected.
func (t *tending) watchHealth(ctx context.Context) {
	stream, err := healthv1.NewHealthClient(t.conn).Watch(ctx, &healthv1.HealthCheckRequest{})
	for err == nil {
		var answer *healthv1.HealthCheckResponse
		if answer, err = stream.Recv(); err != nil {
			break
		}
		t.pause = firstRetry
		switch answer.GetStatus() {
		case healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_SERVICE_UNKNOWN:
			t.became(ctx, Serving, "")
		default:
			t.became(ctx, NotServing, "its health service says "+answer.GetStatus().String())
		}
	}
	if ctx.Err() != nil {
		return
	}
	switch code := status.Code(err); {
	case code == codes.Unimplemented || (t.inst.socket.protocol == Legacy && code != codes.Unavailable):
		t.became(ctx, Serving, "")
		<-ctx.Done()
		return
	case code != codes.Unavailable:
		t.became(ctx, NotServing, "its health service failed: "+status.Convert(err).Message())
	}
	// The connection's end comes as an error of the stream first; where it is
	// not that, the instance is asked again.
	pause, cancel := context.WithTimeout(ctx, t.pause)
	defer cancel()
	t.pause = min(2*t.pause, lastRetry)
	<-pause.Done()
}

// became records a state and logs a change of it.
func (t *tending) became(ctx context.Context, state State, message string) {
	if ctx.Err() != nil {
		return
	}
	var before State
	var beforeMessage string
	t.registry.update(t.inst, func(inst *instance) {
		before, beforeMessage = inst.state, inst.message
		inst.state, inst.message = state, message
	})
	if before == state && (state == Connecting || beforeMessage == message) {
		return
	}
	level := slog.LevelInfo
	if state == Refused || state == NotServing {
		level = slog.LevelWarn
	}
	t.registry.logger.LogAttrs(ctx, level, "provider instance changed state", t.inst.attrs(
		slog.String(logkey.State, state.String()),
		slog.String(logkey.Error, message),
	)...)
}
