package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
	"github.com/postern-dev/postern/internal/unixsocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	echoMethod   = "/test.Echo/Echo"
	streamMethod = "/test.Echo/Stream"
)

// echo is the handler of the test service: it gets and returns a text.
type echo func(ctx context.Context, in string) (string, error)

var echoService = grpc.ServiceDesc{
	ServiceName: "test.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: echoMethod},
				func(ctx context.Context, req any) (any, error) {
					out, err := srv.(echo)(ctx, req.(*wrapperspb.StringValue).GetValue())
					return wrapperspb.String(out), err
				})
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName: "Stream", ServerStreams: true,
		Handler: func(srv any, ss grpc.ServerStream) error {
			in := new(wrapperspb.StringValue)
			if err := ss.RecvMsg(in); err != nil {
				return err
			}
			out, err := srv.(echo)(ss.Context(), in.GetValue())
			if err != nil {
				return err
			}
			return ss.SendMsg(wrapperspb.String(out))
		},
	}},
}

// logBuffer is where a server's log goes while it runs.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines returns the lines with all of the words.
func (b *logBuffer) lines(words ...string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.buf.String()) {
		missing := false
		for _, w := range words {
			missing = missing || !strings.Contains(line, w)
		}
		if !missing {
			found = append(found, line)
		}
	}
	return found
}

// running is a server under test.
type running struct {
	server *rpc.Server
	conn   *grpc.ClientConn
	log    *logBuffer
	stop   context.CancelFunc
	done   chan error
}

// run starts a server with the echo service; mutate may change its Config.
func run(t *testing.T, handler echo, mutate func(*rpc.Config)) *running {
	t.Helper()
	r := &running{log: new(logBuffer), done: make(chan error, 1)}
	cfg := rpc.Config{
		Name:      "test",
		Logger:    slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Telemetry: telemetry.Discard(),
	}
	if mutate != nil {
		mutate(&cfg)
	}
	var err error
	if r.server, err = rpc.NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	r.server.RegisterService(&echoService, handler)
	path := filepath.Join(t.TempDir(), "s")
	l, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.done <- r.server.Run(ctx, l) }()
	r.conn, err = unixsocket.Dial(path, unixsocket.DialConfig{Options: []grpc.DialOption{cfg.Telemetry.ClientOption()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.conn.Close()
		r.stop()
		if err := <-r.done; err != nil {
			t.Errorf("Run: %v", err)
		}
		r.done <- nil
	})
	return r
}

func (r *running) call(ctx context.Context, in string) (string, error) {
	out := new(wrapperspb.StringValue)
	err := r.conn.Invoke(ctx, echoMethod, wrapperspb.String(in), out)
	return out.GetValue(), err
}

func (r *running) callStream(ctx context.Context, in string) (string, error) {
	ss, err := r.conn.NewStream(ctx, &echoService.Streams[0], streamMethod)
	if err != nil {
		return "", err
	}
	if err := errors.Join(ss.SendMsg(wrapperspb.String(in)), ss.CloseSend()); err != nil {
		return "", err
	}
	out := new(wrapperspb.StringValue)
	if err := ss.RecvMsg(out); err != nil {
		return "", err
	}
	return out.GetValue(), ss.RecvMsg(new(wrapperspb.StringValue)) // until EOF
}

func TestServer_Call(t *testing.T) {
	t.Parallel()
	r := run(t, func(ctx context.Context, in string) (string, error) {
		rpc.AddLogAttrs(ctx, slog.String("pod", "web-1"))
		return "re: " + in, nil
	}, nil)
	got, err := r.call(t.Context(), "payload")
	if err != nil || got != "re: payload" {
		t.Fatalf("call = %q, %v", got, err)
	}
	if got, _ := r.callStream(t.Context(), "payload"); got != "re: payload" {
		t.Fatalf("stream = %q", got)
	}
	for _, method := range []string{echoMethod, streamMethod} {
		lines := r.log.lines("call handled", "level=DEBUG", "method="+method, "code=OK", "duration=",
			fmt.Sprintf("peer_uid=%d", os.Getuid()), fmt.Sprintf("peer_pid=%d", os.Getpid()), "pod=web-1")
		if len(lines) != 1 {
			t.Errorf("%d lines for %s in\n%s", len(lines), method, r.log.lines())
		}
	}
	if lines := r.log.lines("payload"); len(lines) != 0 {
		t.Errorf("a payload is in the log: %q", lines)
	}
	rpc.AddLogAttrs(t.Context(), slog.String("pod", "x")) // outside of a call: nothing
}

func TestServer_Errors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err     error
		code    codes.Code
		reason  string
		message string
	}{
		"ours": {
			&rpc.Error{Reason: rpc.ReasonObjectNotFound, Message: `object "db" is not there; create it`},
			codes.NotFound, rpc.ReasonObjectNotFound, `object "db" is not there; create it`,
		},
		"ours wrapped": {
			fmt.Errorf("fetch: %w", &rpc.Error{Reason: rpc.ReasonAccessDenied, Message: "denied"}),
			codes.PermissionDenied, rpc.ReasonAccessDenied, "fetch: denied",
		},
		"status":   {status.Error(codes.AlreadyExists, "there"), codes.AlreadyExists, "", "there"},
		"plain":    {errors.New("disk full"), codes.Internal, rpc.ReasonInternal, "disk full"},
		"deadline": {context.DeadlineExceeded, codes.DeadlineExceeded, rpc.ReasonDeadlineExceeded, "context deadline exceeded"},
		"canceled": {context.Canceled, codes.Canceled, "", "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, func(context.Context, string) (string, error) { return "half an answer", tt.err }, nil)
			for kind, call := range map[string]func(context.Context, string) (string, error){"unary": r.call, "stream": r.callStream} {
				out, err := call(t.Context(), "payload")
				e := rpc.FromError(err)
				if e == nil {
					t.Fatalf("%s: no error", kind)
				}
				if out != "" || e.Code != tt.code || e.Reason != tt.reason || e.Message != tt.message {
					t.Errorf("%s: %q, %v %q %q, want %v %q %q", kind, out, e.Code, e.Reason, e.Message, tt.code, tt.reason, tt.message)
				}
			}
			lines := r.log.lines("call handled", "level=WARN", "code="+tt.code.String(), "error=")
			if len(lines) != 2 || len(r.log.lines("level=WARN")) != 2 {
				t.Errorf("want one line per call, got\n%s", r.log.lines())
			}
			if tt.reason != "" && !strings.Contains(lines[0], "reason="+tt.reason) {
				t.Errorf("no reason in %s", lines[0])
			}
		})
	}
}

// span is a recording span with an id of its own.
type span struct{ trace.Span }

func (s span) IsRecording() bool { return true }

var traceID = trace.TraceID{0xab, 15: 0xcd}

// spans is a tracer provider, and its tracer makes such spans.
type spans struct{ trace.TracerProvider }

func (p spans) Tracer(name string, options ...trace.TracerOption) trace.Tracer {
	return spanTracer{p.TracerProvider.Tracer(name, options...)}
}

type spanTracer struct{ trace.Tracer }

func (spanTracer) Start(ctx context.Context, _ string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	s := span{Span: trace.SpanFromContext(trace.ContextWithSpanContext(ctx, sc))}
	return trace.ContextWithSpan(ctx, s), s
}

func TestServer_TraceIDInErrors(t *testing.T) {
	t.Parallel()
	given := map[string]string{rpc.MetadataObject: "db"}
	r := run(t, func(_ context.Context, in string) (string, error) {
		if in == "status" {
			return "", status.Error(codes.NotFound, "plain")
		}
		return "", &rpc.Error{Reason: rpc.ReasonObjectNotFound, Metadata: given}
	}, func(cfg *rpc.Config) {
		cfg.Telemetry.TracerProvider = spans{cfg.Telemetry.TracerProvider}
	})
	_, err := r.call(t.Context(), "")
	got := rpc.FromError(err).Metadata
	if got[rpc.MetadataTraceID] != traceID.String() || got[rpc.MetadataObject] != "db" {
		t.Errorf("metadata = %q, want trace id %s", got, traceID)
	}
	if len(given) != 1 {
		t.Errorf("the handler's own metadata were changed: %q", given)
	}
	if _, err := r.call(t.Context(), "status"); len(status.Convert(err).Details()) != 0 {
		t.Errorf("another protocol's status got details: %v", status.Convert(err).Details())
	}
}

func TestServer_Panics(t *testing.T) {
	t.Parallel()
	var none map[string]int
	for name, tt := range map[string]struct {
		panic func(in string)
		want  string
	}{
		"value":   {func(in string) { panic("request was " + in) }, "error=string"},
		"error":   {func(in string) { panic(errors.New(in)) }, "error=*errors.errorString"},
		"runtime": {func(string) { none["x"] = 1 }, `error="assignment to entry in nil map"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, func(_ context.Context, in string) (string, error) {
				tt.panic(in)
				return "", nil
			}, nil)
			for _, call := range []func(context.Context, string) (string, error){r.call, r.callStream} {
				_, err := call(t.Context(), "s3cret")
				e := rpc.FromError(err)
				if e == nil || e.Code != codes.Internal || e.Reason != rpc.ReasonInternal ||
					e.Message != "the handler panicked, which is a defect; its log has the stack" {
					t.Errorf("error = %v", err)
				}
			}
			if lines := r.log.lines("handler panicked", "level=ERROR", tt.want, "stack=", "server_test.go"); len(lines) != 2 {
				t.Errorf("log:\n%s", r.log.lines())
			}
			if lines := r.log.lines("s3cret"); len(lines) != 0 {
				t.Errorf("the request is in the log: %s", lines)
			}
		})
	}
}

func TestServer_Authorize(t *testing.T) {
	t.Parallel()
	type question struct {
		peer   unixsocket.Peer
		method string
	}
	asked := make(chan question, 1)
	r := run(t, func(context.Context, string) (string, error) {
		t.Error("the handler was called")
		return "", nil
	}, func(cfg *rpc.Config) {
		cfg.Authorize = func(_ context.Context, peer unixsocket.Peer, method string) error {
			asked <- question{peer, method}
			return errors.New("only the driver may call this")
		}
	})
	for method, call := range map[string]func(context.Context, string) (string, error){echoMethod: r.call, streamMethod: r.callStream} {
		_, err := call(t.Context(), "")
		e := rpc.FromError(err)
		want := fmt.Sprintf("caller with uid %d refused: only the driver may call this", os.Getuid())
		if e == nil || e.Code != codes.PermissionDenied || e.Reason != rpc.ReasonCallerRefused || e.Message != want {
			t.Errorf("error = %v, want %s", err, want)
		}
		if got := <-asked; got.method != method || int(got.peer.UID) != os.Getuid() || int(got.peer.PID) != os.Getpid() {
			t.Errorf("asked about %+v", got)
		}
	}
}

// TestServer_AuthorizeUnknownPeer: over TCP nobody knows who calls, and the zero
// Peer would be root.
func TestServer_AuthorizeUnknownPeer(t *testing.T) {
	t.Parallel()
	server, err := rpc.NewServer(rpc.Config{
		Name: "test", Telemetry: telemetry.Discard(),
		Authorize: func(context.Context, unixsocket.Peer, string) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, l) }()
	conn, err := grpc.NewClient(l.Addr().String(),
		grpc.WithTransportCredentials(unixsocket.Credentials(unixsocket.CredentialsConfig{})))
	if err != nil {
		t.Fatal(err)
	}
	_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if e := rpc.FromError(err); e == nil || e.Reason != rpc.ReasonCallerRefused {
		t.Errorf("error = %v, want CALLER_REFUSED", err)
	}
	_ = conn.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServer_MessageSize(t *testing.T) {
	t.Parallel()
	r := run(t, func(_ context.Context, in string) (string, error) { return strings.Repeat(in, 2), nil },
		func(cfg *rpc.Config) { cfg.MaxMessageBytes = 1000 })
	for size, want := range map[int]codes.Code{400: codes.OK, 600: codes.ResourceExhausted, 1001: codes.ResourceExhausted} {
		if _, err := r.call(t.Context(), strings.Repeat("x", size)); status.Code(err) != want {
			t.Errorf("%d bytes: %v, want %v", size, err, want)
		}
	}
}
