package telemetry

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// startTracing sets TracerProvider if the environment asks for traces.
func (t *Telemetry) startTracing(ctx context.Context, cfg Config) error {
	env := otelEnv{getenv: cfg.Getenv}
	if !env.tracing() {
		return nil
	}
	if exporter := env.get("OTEL_TRACES_EXPORTER"); exporter != "" && exporter != "otlp" {
		return fmt.Errorf("OTEL_TRACES_EXPORTER=%q is not otlp or none", exporter)
	}
	sampler, err := env.sampler()
	if err != nil {
		return err
	}
	attributes, err := env.resource(cfg)
	if err != nil {
		return err
	}
	exporter, err := env.exporter(ctx)
	if err != nil {
		return err
	}
	options := []sdktrace.TracerProviderOption{
		sdktrace.WithBatcher(newQuietExporter(exporter, t.Logger)),
		sdktrace.WithResource(resource.NewSchemaless(attributes...)),
	}
	if sampler != nil {
		options = append(options, sdktrace.WithSampler(sampler))
	}
	provider := sdktrace.NewTracerProvider(options...)
	t.TracerProvider = provider
	t.shutdown = append(t.shutdown, provider.Shutdown)
	return nil
}

// otelEnv reads the variables of the OpenTelemetry specification. As there, an
// empty variable is one that is not set.
type otelEnv struct{ getenv func(string) string }

func (e otelEnv) get(name string) string { return strings.TrimSpace(e.getenv(name)) }

// first returns the first of the variables that is set, and its name.
func (e otelEnv) first(names ...string) (name, value string) {
	for _, name := range names {
		if v := e.get(name); v != "" {
			return name, v
		}
	}
	return "", ""
}

// endpoint returns the variable that says where spans go.
func (e otelEnv) endpoint() (name, value string) {
	return e.first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
}

func (e otelEnv) tracing() bool {
	_, endpoint := e.endpoint()
	return endpoint != "" &&
		!strings.EqualFold(e.get("OTEL_SDK_DISABLED"), "true") &&
		e.get("OTEL_TRACES_EXPORTER") != "none"
}

func (e otelEnv) exporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	endpointName, endpoint := e.endpoint()
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		// The value is not shown: it may hold a password.
		return nil, fmt.Errorf("%s is not a URL; write http://host:port or https://host:port", endpointName)
	}
	name, protocol := e.first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	switch protocol {
	case "", "http/protobuf":
		if endpointName == "OTEL_EXPORTER_OTLP_ENDPOINT" {
			u = u.JoinPath("v1", "traces") // the base of all signals
		}
		return otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()))
	case "grpc":
		return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(u.String()))
	default:
		return nil, fmt.Errorf("%s=%q is not grpc or http/protobuf", name, protocol)
	}
}

// sampler returns nil for the SDK's default, parentbased_always_on.
func (e otelEnv) sampler() (sdktrace.Sampler, error) {
	name := e.get("OTEL_TRACES_SAMPLER")
	switch strings.TrimPrefix(name, "parentbased_") {
	case "":
		return nil, nil //nolint:nilnil // nil is the documented default
	case "always_on":
		return parentBased(name, sdktrace.AlwaysSample()), nil
	case "always_off":
		return parentBased(name, sdktrace.NeverSample()), nil
	case "traceidratio":
		ratio := 1.0
		if arg := e.get("OTEL_TRACES_SAMPLER_ARG"); arg != "" {
			var err error
			if ratio, err = strconv.ParseFloat(arg, 64); err != nil || ratio < 0 || ratio > 1 {
				return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG=%q is not a number from 0 to 1", arg)
			}
		}
		return parentBased(name, sdktrace.TraceIDRatioBased(ratio)), nil
	default:
		return nil, fmt.Errorf("OTEL_TRACES_SAMPLER=%q is not [parentbased_]always_on, always_off or traceidratio", name)
	}
}

func parentBased(name string, root sdktrace.Sampler) sdktrace.Sampler {
	if strings.HasPrefix(name, "parentbased_") {
		return sdktrace.ParentBased(root)
	}
	return root
}

// resource returns what spans say about the process. The environment wins.
func (e otelEnv) resource(cfg Config) ([]attribute.KeyValue, error) {
	attributes := []attribute.KeyValue{
		attribute.String("telemetry.sdk.language", "go"),
		attribute.String("telemetry.sdk.name", "opentelemetry"),
		attribute.String("service.name", cfg.Service),
	}
	if cfg.Version != "" {
		attributes = append(attributes, attribute.String("service.version", cfg.Version))
	}
	if cfg.InstanceID != "" {
		attributes = append(attributes, attribute.String("service.instance.id", cfg.InstanceID))
	}
	for pair := range strings.SplitSeq(e.get("OTEL_RESOURCE_ATTRIBUTES"), ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if key = strings.TrimSpace(key); !ok || key == "" {
			return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %q is not key=value", pair)
		}
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: value of %q: %w", key, err)
		}
		attributes = append(attributes, attribute.String(key, value))
	}
	if name := e.get("OTEL_SERVICE_NAME"); name != "" {
		attributes = append(attributes, attribute.String("service.name", name))
	}
	return attributes, nil // of equal keys the last wins
}
