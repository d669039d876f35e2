package telemetry_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/postern-dev/postern/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is an OTLP collector for gRPC and HTTP.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	requests chan *collector.ExportTraceServiceRequest
	paths    chan string
}

func newReceiver() *receiver {
	return &receiver{
		requests: make(chan *collector.ExportTraceServiceRequest, 100),
		paths:    make(chan string, 100),
	}
}

func (r *receiver) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.requests <- req
	return &collector.ExportTraceServiceResponse{}, nil
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.paths <- req.URL.Path
	body, err := io.ReadAll(req.Body)
	export := new(collector.ExportTraceServiceRequest)
	if err := errors.Join(err, proto.Unmarshal(body, export)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.requests <- export
}

// overGRPC and overHTTP return the receiver's URL.
func (r *receiver) overGRPC(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, r)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func (r *receiver) overHTTP(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return server.URL
}

// got returns the spans by name, and the resource of the last.
func (r *receiver) got() (spans map[string]*tracepb.Span, resource map[string]string) {
	spans, resource = make(map[string]*tracepb.Span), make(map[string]string)
	close(r.requests)
	for req := range r.requests {
		for _, rs := range req.GetResourceSpans() {
			for _, kv := range rs.GetResource().GetAttributes() {
				resource[kv.GetKey()] = kv.GetValue().GetStringValue()
			}
			for _, ss := range rs.GetScopeSpans() {
				for _, s := range ss.GetSpans() {
					spans[s.GetName()] = s
				}
			}
		}
	}
	return spans, resource
}

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func newTelemetry(t *testing.T, vars map[string]string) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(t.Context(), telemetry.Config{
		Service: "postern-test", Version: "v1.2.3", InstanceID: "i-1", Getenv: env(vars),
	})
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

func shutdown(t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTracing_Exports(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		protocol string
		variable string
		suffix   string
		wantPath string
	}{
		"gRPC":                 {protocol: "grpc", variable: "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"gRPC traces endpoint": {protocol: "grpc", variable: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"},
		"HTTP":                 {protocol: "http/protobuf", variable: "OTEL_EXPORTER_OTLP_ENDPOINT", wantPath: "/v1/traces"},
		"HTTP below a path":    {protocol: "http/protobuf", variable: "OTEL_EXPORTER_OTLP_ENDPOINT", suffix: "/otlp/", wantPath: "/otlp/v1/traces"},
		"HTTP traces endpoint": {protocol: "http/protobuf", variable: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", suffix: "/as/it/is", wantPath: "/as/it/is"},
		"default is HTTP":      {variable: "OTEL_EXPORTER_OTLP_ENDPOINT", wantPath: "/v1/traces"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver()
			var url string
			if tt.wantPath == "" {
				url = r.overGRPC(t)
			} else {
				url = r.overHTTP(t)
			}
			tel := newTelemetry(t, map[string]string{
				tt.variable:                   url + tt.suffix,
				"OTEL_EXPORTER_OTLP_PROTOCOL": tt.protocol,
				"OTEL_RESOURCE_ATTRIBUTES":    "k8s.node.name=node-1, team=a%20b,service.version=v9,",
				"OTEL_SERVICE_NAME":           "renamed",
			})
			_, span := tel.Tracer("test").Start(t.Context(), "work")
			span.End()
			shutdown(t, tel)
			spans, resource := r.got()
			if spans["work"] == nil {
				t.Fatalf("exported %v, want the span", slices.Collect(maps.Keys(spans)))
			}
			want := map[string]string{
				"service.name": "renamed", "service.version": "v9", "service.instance.id": "i-1",
				"k8s.node.name": "node-1", "team": "a b",
				"telemetry.sdk.language": "go", "telemetry.sdk.name": "opentelemetry",
			}
			if diff := cmp.Diff(want, resource); diff != "" {
				t.Errorf("resource (-want +got):\n%s", diff)
			}
			if tt.wantPath != "" {
				if got := <-r.paths; got != tt.wantPath {
					t.Errorf("exported to %s, want %s", got, tt.wantPath)
				}
			}
		})
	}
}

func TestTracing_Off(t *testing.T) {
	t.Parallel()
	for name, vars := range map[string]map[string]string{
		"nothing set":      {},
		"empty endpoint":   {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
		"SDK disabled":     {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1", "OTEL_SDK_DISABLED": "True"},
		"no exporter":      {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1", "OTEL_TRACES_EXPORTER": "none"},
		"nonsense ignored": {"OTEL_TRACES_SAMPLER": "nonsense"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tel := newTelemetry(t, vars) // not shut down: goleak would see an exporter
			ctx, span := tel.Tracer("test").Start(remote(t.Context()), "work")
			if span.IsRecording() {
				t.Error("the span is recorded")
			}
			if got := trace.SpanContextFromContext(ctx).TraceID(); got != traceID {
				t.Errorf("trace id %s is not passed on: %s", traceID, got)
			}
		})
	}
}

func TestTracing_Sampler(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sampler, arg     string
		root, underTrace bool
	}{
		"default":                {root: true, underTrace: true},
		"always_on":              {sampler: "always_on", root: true, underTrace: true},
		"always_off":             {sampler: "always_off"},
		"parentbased_always_on":  {sampler: "parentbased_always_on", root: true, underTrace: true},
		"parentbased_always_off": {sampler: "parentbased_always_off", underTrace: true},
		"ratio 0":                {sampler: "traceidratio", arg: "0"},
		"ratio 1":                {sampler: "traceidratio", arg: "1", root: true, underTrace: true},
		"ratio without argument": {sampler: "traceidratio", root: true, underTrace: true},
		"parentbased ratio 0":    {sampler: "parentbased_traceidratio", arg: "0.0", underTrace: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tel := newTelemetry(t, map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": newReceiver().overHTTP(t),
				"OTEL_TRACES_SAMPLER":         tt.sampler,
				"OTEL_TRACES_SAMPLER_ARG":     tt.arg,
			})
			_, root := tel.Tracer("test").Start(t.Context(), "work")
			_, under := tel.Tracer("test").Start(remote(t.Context()), "work")
			if root.IsRecording() != tt.root || under.IsRecording() != tt.underTrace {
				t.Errorf("recording: root %t, in a sampled trace %t, want %t, %t",
					root.IsRecording(), under.IsRecording(), tt.root, tt.underTrace)
			}
			shutdown(t, tel)
		})
	}
}

func TestNew_Refuses(t *testing.T) {
	t.Parallel()
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	for name, tt := range map[string]struct {
		mutate func(*telemetry.Config)
		vars   map[string]string
		want   string
	}{
		"service": {mutate: func(c *telemetry.Config) { c.Service = "" }, want: "telemetry: the service has no name"},
		"level":   {mutate: func(c *telemetry.Config) { c.LogLevel = "loud" }, want: `telemetry: log level "loud" is not debug, info, warn or error`},
		"format":  {mutate: func(c *telemetry.Config) { c.LogFormat = "xml" }, want: `telemetry: log format "xml" is not text or json`},
		"no scheme": {
			vars: map[string]string{endpoint: "user:pass@collector:4317"},
			want: "telemetry: make tracing: OTEL_EXPORTER_OTLP_ENDPOINT is not a URL; write http://host:port or https://host:port",
		},
		"protocol": {
			vars: map[string]string{endpoint: "http://x:1", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "smoke"},
			want: `telemetry: make tracing: OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="smoke" is not grpc or http/protobuf`,
		},
		"exporter": {
			vars: map[string]string{endpoint: "http://x:1", "OTEL_TRACES_EXPORTER": "zipkin"},
			want: `telemetry: make tracing: OTEL_TRACES_EXPORTER="zipkin" is not otlp or none`,
		},
		"sampler": {
			vars: map[string]string{endpoint: "http://x:1", "OTEL_TRACES_SAMPLER": "coin"},
			want: `telemetry: make tracing: OTEL_TRACES_SAMPLER="coin" is not [parentbased_]always_on, always_off or traceidratio`,
		},
		"ratio": {
			vars: map[string]string{endpoint: "http://x:1", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.5"},
			want: `telemetry: make tracing: OTEL_TRACES_SAMPLER_ARG="1.5" is not a number from 0 to 1`,
		},
		"attributes": {
			vars: map[string]string{endpoint: "http://x:1", "OTEL_RESOURCE_ATTRIBUTES": "a=b,c"},
			want: `telemetry: make tracing: OTEL_RESOURCE_ATTRIBUTES: "c" is not key=value`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := telemetry.Config{Service: "postern-test", Getenv: env(tt.vars)}
			if tt.mutate != nil {
				tt.mutate(&cfg)
			}
			if _, err := telemetry.New(t.Context(), cfg); err == nil || err.Error() != tt.want {
				t.Errorf("error\n got %v\nwant %s", err, tt.want)
			}
		})
	}
}

// TestGRPC: one trace covers client and server, and health checks are in
// neither traces nor metrics.
func TestGRPC(t *testing.T) {
	t.Parallel()
	r := newReceiver()
	tel := newTelemetry(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": r.overHTTP(t)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(tel.ServerOption(), grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		return ss.SendMsg(wrapperspb.String(trace.SpanContextFromContext(ss.Context()).TraceID().String()))
	}))
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), tel.ClientOption())
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.Tracer("test").Start(t.Context(), "caller")
	seen := new(wrapperspb.StringValue)
	if err := conn.Invoke(ctx, "/test.Service/Do", wrapperspb.String("x"), seen); err != nil {
		t.Fatal(err)
	}
	if err := conn.Invoke(ctx, healthpb.Health_Check_FullMethodName, wrapperspb.String("x"), new(wrapperspb.StringValue)); err != nil {
		t.Fatal(err)
	}
	span.End()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	server.GracefulStop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	metrics := scrape(t, tel)
	shutdown(t, tel)

	if want := span.SpanContext().TraceID().String(); seen.GetValue() != want {
		t.Errorf("the server is in trace %s, want %s", seen.GetValue(), want)
	}
	spans, _ := r.got()
	if got := slices.Sorted(maps.Keys(spans)); !slices.Equal(got, []string{"caller", "test.Service/Do"}) {
		t.Errorf("spans = %q", got)
	}
	for _, want := range []string{"rpc_server_call_duration_seconds_count", "rpc_client_call_duration_seconds_count"} {
		if !strings.Contains(metrics, want+"{") || !strings.Contains(metrics, "test.Service/Do") {
			t.Errorf("metrics lack %s:\n%s", want, grep(metrics, "^rpc_"))
		}
	}
	if strings.Contains(metrics, "server_address") || strings.Contains(metrics, "server_port") {
		t.Errorf("hosts are labels, of which there may be any number:\n%s", grep(metrics, "server_"))
	}
	if strings.Contains(metrics, "health") {
		t.Errorf("health checks are measured:\n%s", grep(metrics, "health"))
	}
}

var traceID = trace.TraceID{1, 2, 3}

// remote is the context of a call that came in as part of a sampled trace.
func remote(ctx context.Context) context.Context {
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: trace.SpanID{4}, TraceFlags: trace.FlagsSampled, Remote: true,
	}))
}
