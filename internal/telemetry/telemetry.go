// Package telemetry makes a process's logger, tracer and meter. It is the only
// package that knows the OpenTelemetry SDK; all others use its API.
//
// Nothing here is global: no default logger, no global tracer provider, and the
// Prometheus registry is the process's own.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
)

// Config says who the process is and how it speaks.
type Config struct {
	// Service is the service's name, such as postern-driver. Required.
	// OTEL_SERVICE_NAME wins over it in traces.
	Service string
	// Version is the process's version.
	Version string
	// InstanceID tells the processes of one service apart.
	InstanceID string
	// LogLevel is debug, info, warn or error. Default info.
	LogLevel string
	// LogFormat is text or json. Default text.
	LogFormat string
	// Stderr is where log lines go. Default nowhere.
	Stderr io.Writer
	// Getenv reads the OTEL_ variables that decide on tracing, see New. Default:
	// none is set.
	Getenv func(string) string
}

// Telemetry is what a process tells about itself.
//
// Invariants:
//  1. All fields are non-nil and usable until the process ends, after Shutdown
//     too: what is recorded then is dropped.
//  2. While tracing is off there is no goroutine and no queue, and the trace
//     context of callers is still passed on.
type Telemetry struct {
	// Logger adds trace_id and span_id of the context to its lines.
	Logger *slog.Logger
	// TracerProvider records nothing while tracing is off.
	TracerProvider trace.TracerProvider
	// MeterProvider's metrics are those of MetricsHandler.
	MeterProvider metric.MeterProvider
	// Propagator passes W3C trace context and baggage on.
	Propagator propagation.TextMapPropagator

	registry *prometheus.Registry
	shutdown []func(context.Context) error
}

// New makes a process's telemetry. It connects to nothing.
//
// Traces are exported over OTLP if OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, unless OTEL_SDK_DISABLED is true or
// OTEL_TRACES_EXPORTER is none. OTEL_EXPORTER_OTLP_PROTOCOL (or
// OTEL_EXPORTER_OTLP_TRACES_PROTOCOL) is grpc or http/protobuf, the default as
// the specification has it. OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
// OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG are honoured. Headers,
// certificates, timeouts and batch sizes are read by the SDK from the process's
// environment. A value that makes no sense is an error that names the variable.
// See https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
func New(ctx context.Context, cfg Config) (*Telemetry, error) {
	if cfg.Service == "" {
		return nil, errors.New("telemetry: the service has no name")
	}
	if cfg.Getenv == nil {
		cfg.Getenv = func(string) string { return "" }
	}
	logger, err := newLogger(cfg)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	t := &Telemetry{
		Logger:         logger,
		TracerProvider: noop.NewTracerProvider(),
		Propagator: propagation.NewCompositeTextMapPropagator(
			propagation.TraceContext{}, propagation.Baggage{}),
	}
	if err := t.startMetrics(cfg); err != nil {
		return nil, fmt.Errorf("telemetry: make metrics: %w", err)
	}
	if err := t.startTracing(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("telemetry: make tracing: %w", err), t.Shutdown(ctx))
	}
	return t, nil
}

// Discard returns telemetry for tests: it logs and traces nothing, and its
// metrics work.
func Discard() *Telemetry {
	t := &Telemetry{
		Logger:         slog.New(slog.DiscardHandler),
		TracerProvider: noop.NewTracerProvider(),
		Propagator:     propagation.TraceContext{},
	}
	// Cannot fail: the registry is new, and so nothing is registered twice.
	_ = t.startMetrics(Config{Service: "test"})
	return t
}

// Tracer returns the tracer of an instrumented package, named by its path.
func (t *Telemetry) Tracer(name string) trace.Tracer { return t.TracerProvider.Tracer(name) }

// Meter returns the meter of an instrumented package, named by its path. The
// name does not show in the metrics.
func (t *Telemetry) Meter(name string) metric.Meter { return t.MeterProvider.Meter(name) }

// MetricsHandler serves the metrics in the text formats of Prometheus and, for
// those who ask, of OpenMetrics, which has the trace ids of exemplars.
func (t *Telemetry) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog:          promLog{logger: t.Logger},
		ErrorHandling:     promhttp.ContinueOnError,
		EnableOpenMetrics: true,
	})
}

// ServerOption traces and measures each call that a server gets, but health
// checks.
func (t *Telemetry) ServerOption() grpc.ServerOption {
	return grpc.StatsHandler(otelgrpc.NewServerHandler(t.grpcOptions()...))
}

// ClientOption traces and measures each call that a client makes, but health
// checks, and passes the trace context on.
func (t *Telemetry) ClientOption() grpc.DialOption {
	return grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.grpcOptions()...))
}

func (t *Telemetry) grpcOptions() []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.TracerProvider),
		otelgrpc.WithMeterProvider(t.MeterProvider),
		otelgrpc.WithPropagators(t.Propagator),
		otelgrpc.WithFilter(filters.Not(filters.HealthCheck())),
	}
}

// Shutdown exports what is recorded and stops exporting, within ctx.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var errs []error
	for _, f := range t.shutdown {
		errs = append(errs, f(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("shut telemetry down: %w", err)
	}
	return nil
}
