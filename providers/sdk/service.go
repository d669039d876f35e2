package sdk

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// Names of the protocols, in metrics.
const (
	protocolV1       = "provider.v1"
	protocolV1alpha1 = "v1alpha1"
)

// instrumentation is the name of the sdk's tracer and meter.
const instrumentation = "github.com/postern-dev/postern/providers/sdk"

// service turns calls of both protocols into Fetch and Release.
type service struct {
	def      *Definition
	provider Provider
	tracer   trace.Tracer
	duration metric.Float64Histogram
	releases metric.Int64Counter
}

// v1Server serves provider.v1, mountServer v1alpha1: their methods would
// otherwise share one namespace.
type (
	v1Server struct {
		providerv1.UnimplementedProviderServiceServer
		*service
	}
	mountServer struct {
		v1alpha1.UnimplementedCSIDriverProviderServer
		*service
	}
)

var (
	_ providerv1.ProviderServiceServer = (*v1Server)(nil)
	_ v1alpha1.CSIDriverProviderServer = (*mountServer)(nil)
)

func newService(def *Definition, p Provider, env Environment) (*service, error) {
	meter := env.MeterProvider.Meter(instrumentation)
	duration, err := meter.Float64Histogram("postern.provider.fetch.duration",
		metric.WithUnit("s"),
		metric.WithDescription("How long fetches take, by reason of failure; OK is none."),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60))
	if err != nil {
		return nil, fmt.Errorf("make fetch metric: %w", err)
	}
	releases, err := meter.Int64Counter("postern.provider.releases",
		metric.WithDescription("Volumes released, by reason of failure; OK is none."))
	if err != nil {
		return nil, fmt.Errorf("make release metric: %w", err)
	}
	return &service{
		def: def, provider: p, tracer: env.TracerProvider.Tracer(instrumentation),
		duration: duration, releases: releases,
	}, nil
}

// Describe answers of what the definition says.
func (s *v1Server) Describe(context.Context, *providerv1.DescribeRequest) (*providerv1.DescribeResponse, error) {
	return describe(s.def, s.provider), nil
}

// Fetch serves provider.v1.
func (s *v1Server) Fetch(ctx context.Context, in *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
	req := requestOf(in)
	resp, err := s.fetch(ctx, protocolV1, req, nil)
	if err != nil {
		return nil, s.toRPC(ctx, req, err)
	}
	return resp.toV1(req), nil
}

// Release tells the provider that a volume is gone, if it wants to know.
func (s *v1Server) Release(ctx context.Context, in *providerv1.ReleaseRequest) (*providerv1.ReleaseResponse, error) {
	err := s.release(ctx, in.GetVolumeId())
	s.releases.Add(ctx, 1, metric.WithAttributes(
		attribute.String(logkey.Provider, s.def.Name), attribute.String(logkey.Reason, reasonOf(ctx, err))))
	if err != nil {
		return nil, s.toRPC(ctx, &Request{VolumeID: in.GetVolumeId()}, err)
	}
	return &providerv1.ReleaseResponse{}, nil
}

func (s *service) release(ctx context.Context, volumeID string) error {
	if volumeID == "" {
		return InvalidParameters(FieldViolation{Field: "volume_id", Description: "is not set: this is a defect of the caller"})
	}
	if r, ok := s.provider.(Releaser); ok {
		return r.Release(ctx, volumeID)
	}
	return nil
}

// Version serves the upstream protocol.
func (s *mountServer) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{
		Version: protocolV1alpha1, RuntimeName: s.def.Name, RuntimeVersion: s.def.Version,
	}, nil
}

// Mount serves the upstream protocol: a failure is a gRPC status, never the
// response's error code.
func (s *mountServer) Mount(ctx context.Context, in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	req, malformed := requestOfMount(in)
	resp, err := s.fetch(ctx, protocolV1alpha1, req, malformed)
	if err != nil {
		return nil, s.toRPC(ctx, req, err)
	}
	return resp.toV1alpha1(req), nil
}

// fetch calls the provider for a request, unless that is malformed, and checks
// its answer. It leaves a span and a measurement.
func (s *service) fetch(ctx context.Context, protocol string, req *Request, malformed error) (resp *Response, err error) {
	ctx, span := s.tracer.Start(ctx, "provider.Fetch", trace.WithAttributes(
		attribute.String("postern.provider", s.def.Name),
		attribute.String("postern.secret_provider_class", req.SecretProviderClass),
		attribute.String("k8s.namespace.name", req.Pod.Namespace),
		attribute.String("k8s.pod.name", req.Pod.Name),
		attribute.String("k8s.pod.uid", req.Pod.UID),
	))
	rpc.AddLogAttrs(ctx,
		slog.String(logkey.Namespace, req.Pod.Namespace), slog.String(logkey.Pod, req.Pod.Name),
		slog.String(logkey.SecretProviderClass, req.SecretProviderClass), slog.String(logkey.VolumeID, req.VolumeID))
	start := time.Now()
	reason := string(ReasonInternal) // where Fetch panics
	defer func() {
		s.duration.Record(ctx, time.Since(start).Seconds(), metric.WithAttributes(
			attribute.String(logkey.Provider, s.def.Name),
			attribute.String("protocol", protocol),
			attribute.String(logkey.Reason, reason)))
		if reason != reasonOK && reason != reasonCanceled {
			span.SetStatus(codes.Error, reason)
		}
		span.End()
	}()
	resp, err = s.answer(ctx, req, malformed)
	reason = reasonOf(ctx, err)
	if err == nil {
		span.SetAttributes(
			attribute.Int("postern.objects", len(resp.Objects)),
			attribute.Bool("postern.not_modified", resp.NotModified))
	}
	return resp, err
}

func (s *service) answer(ctx context.Context, req *Request, malformed error) (*Response, error) {
	if malformed != nil {
		return nil, malformed
	}
	if err := req.complete(s.def); err != nil {
		return nil, err
	}
	resp, err := s.provider.Fetch(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := validateResponse(s.def, req, resp); err != nil {
		return nil, err
	}
	return resp, nil
}

func reasonOf(ctx context.Context, err error) string {
	switch {
	case err == nil:
		return reasonOK
	case canceled(ctx, err):
		return reasonCanceled
	default:
		return string(typed(ctx, err).Reason)
	}
}
