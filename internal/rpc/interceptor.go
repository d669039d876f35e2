package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/unixsocket"
)

// maxStackFrames bounds the stack of a panic in the log.
const maxStackFrames = 32

// interceptors returns the fixed order of the package's documentation, outermost
// first.
func (s *Server) interceptors() ([]grpc.UnaryServerInterceptor, []grpc.StreamServerInterceptor) {
	reports := interceptors.CommonReportableFunc(s.report)
	exceptHealth := selector.MatchFunc(func(_ context.Context, c interceptors.CallMeta) bool {
		return c.Service != healthpb.Health_ServiceDesc.ServiceName
	})
	recovers := recovery.WithRecoveryHandlerContext(s.recovered)
	unary := []grpc.UnaryServerInterceptor{
		selector.UnaryServerInterceptor(interceptors.UnaryServerInterceptor(reports), exceptHealth),
		unaryStatus,
		recovery.UnaryServerInterceptor(recovers),
		auth.UnaryServerInterceptor(s.authorized),
	}
	stream := []grpc.StreamServerInterceptor{
		selector.StreamServerInterceptor(interceptors.StreamServerInterceptor(reports), exceptHealth),
		streamStatus,
		recovery.StreamServerInterceptor(recovers),
		auth.StreamServerInterceptor(s.authorized),
	}
	return unary, stream
}

// report is called as each call begins.
func (s *Server) report(ctx context.Context, meta interceptors.CallMeta) (interceptors.Reporter, context.Context) {
	ctx, extra := withAttrs(ctx)
	return &reporter{server: s, ctx: ctx, method: meta.FullMethod(), extra: extra}, ctx
}

// reporter logs one line as its call ends, and no payload.
type reporter struct {
	interceptors.NoopReporter

	server *Server
	ctx    context.Context //nolint:containedctx // the call's; a reporter lives as long as its call
	method string
	extra  *callAttrs
}

// PostCall is called as the call ends.
func (r *reporter) PostCall(err error, took time.Duration) {
	level := slog.LevelDebug
	if err != nil {
		level = slog.LevelWarn
	}
	logger := r.server.cfg.Logger
	if !logger.Enabled(r.ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String(logkey.Method, r.method),
		slog.String(logkey.Code, status.Code(err).String()),
		slog.Duration(logkey.Duration, took),
	}
	if peer, ok := unixsocket.PeerFromContext(r.ctx); ok {
		attrs = append(attrs,
			slog.Uint64(logkey.PeerUID, uint64(peer.UID)), slog.Int64(logkey.PeerPID, int64(peer.PID)))
	}
	if err != nil {
		e := FromError(err)
		if e.Reason != "" {
			attrs = append(attrs, slog.String(logkey.Reason, e.Reason))
		}
		attrs = append(attrs, slog.String(logkey.Error, e.Message))
	}
	logger.LogAttrs(r.ctx, level, "call handled", append(attrs, r.extra.all()...)...)
}

func unaryStatus(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, toStatus(ctx, err)
}

func streamStatus(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return toStatus(ss.Context(), handler(srv, ss))
}

// toStatus is the one place where errors become statuses. Statuses that a
// handler made itself stay as they are.
func toStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	_, ours := errors.AsType[*Error](err)
	if st, ok := status.FromError(err); ok && !ours && FromError(err).Reason == "" {
		return st.Err() // another protocol's
	}
	e := *FromError(err)
	if e.Reason == "" && e.Code == codes.Unknown {
		e.Reason, e.Code = ReasonInternal, codes.Internal
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() && e.Metadata[MetadataTraceID] == "" {
		metadata := map[string]string{MetadataTraceID: span.SpanContext().TraceID().String()}
		for k, v := range e.Metadata {
			if k != MetadataTraceID {
				metadata[k] = v
			}
		}
		e.Metadata = metadata
	}
	return e.GRPCStatus().Err()
}

// recovered turns a panic into an error and logs where it was. What was thrown
// is logged only if it is the runtime's own: any other value may hold a request.
func (s *Server) recovered(ctx context.Context, thrown any) error {
	what := fmt.Sprintf("%T", thrown)
	if re, ok := thrown.(runtime.Error); ok {
		what = re.Error()
	}
	method, _ := grpc.Method(ctx)
	s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "handler panicked",
		slog.String(logkey.Method, method),
		slog.String(logkey.Error, what),
		slog.String(logkey.Stack, PanicStack()))
	return &Error{
		Reason:  ReasonInternal,
		Message: "the handler panicked, which is a defect; its log has the stack",
	}
}

// PanicStack returns the functions and lines of a goroutine that panicked, for
// the function that recovers it to call. Unlike debug.Stack it has no arguments.
func PanicStack() string {
	pcs := make([]uintptr, maxStackFrames)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var b strings.Builder
	for {
		frame, more := frames.Next()
		fmt.Fprintf(&b, "%s %s:%d\n", frame.Function, frame.File, frame.Line)
		if !more {
			return strings.TrimSuffix(b.String(), "\n")
		}
	}
}

// authorized asks Config.Authorize.
func (s *Server) authorized(ctx context.Context) (context.Context, error) {
	if s.cfg.Authorize == nil {
		return ctx, nil
	}
	peer, ok := unixsocket.PeerFromContext(ctx)
	if !ok {
		// A zero Peer would be root.
		return nil, &Error{Reason: ReasonCallerRefused, Message: "caller refused: its unix credentials are not known"}
	}
	method, _ := grpc.Method(ctx)
	if err := s.cfg.Authorize(ctx, peer, method); err != nil {
		return nil, &Error{
			Reason:  ReasonCallerRefused,
			Message: fmt.Sprintf("caller with uid %d refused: %v", peer.UID, err),
			Err:     err,
		}
	}
	return ctx, nil
}

// attrsKey is the context's key for callAttrs.
type attrsKey struct{}

// callAttrs are what a handler adds to its call's log line.
type callAttrs struct {
	mu    sync.Mutex
	attrs []slog.Attr
}

func (a *callAttrs) all() []slog.Attr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.attrs
}

func withAttrs(ctx context.Context) (context.Context, *callAttrs) {
	a := new(callAttrs)
	return context.WithValue(ctx, attrsKey{}, a), a
}

// AddLogAttrs adds attributes, such as which pod it is about, to the line that
// is logged when the call of ctx is done. Outside of a call it does nothing.
func AddLogAttrs(ctx context.Context, attrs ...slog.Attr) {
	if a, ok := ctx.Value(attrsKey{}).(*callAttrs); ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.attrs = append(a.attrs, attrs...)
	}
}
