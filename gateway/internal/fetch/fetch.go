// Package fetch takes one request of the driver to the provider that serves it,
// and brings back an answer that is safe to write.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/provider"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// Providers is where the fetcher gets instances of providers from.
type Providers interface {
	// Acquire waits for an instance inside ctx's deadline.
	Acquire(ctx context.Context, name string) (*registry.Handle, error)
	// TryAcquire does not wait.
	TryAcquire(name string) (*registry.Handle, bool)
	// Connected returns all that can be called now.
	Connected() []*registry.Handle
	// Known reports whether there is or was to be such a provider.
	Known(name string) bool
}

var _ Providers = (*registry.Registry)(nil)

// Config is what a Fetcher needs. Every field is required.
type Config struct {
	Providers Providers
	// MaxResponseBytes bounds an answer: contents, paths and ids together.
	MaxResponseBytes int
	Logger           *slog.Logger
	Tracer           trace.Tracer
	Meter            metric.Meter
}

// maxVolumes bounds what is remembered of volumes: far more than a node's pods
// can have, at some 200 bytes each.
const maxVolumes = 8192

// Fetcher makes fetches and remembers their volumes until they are released.
// It is safe for concurrent use.
type Fetcher struct {
	cfg     Config
	volumes *volumes
	metrics *metrics
}

// New returns a fetcher.
func New(cfg Config) (*Fetcher, error) {
	switch {
	case cfg.Providers == nil:
		return nil, errors.New("fetch: no providers are given")
	case cfg.MaxResponseBytes <= 0:
		return nil, errors.New("fetch: the maximum answer must be more than 0 bytes")
	case cfg.Logger == nil || cfg.Tracer == nil || cfg.Meter == nil:
		return nil, errors.New("fetch: logger, tracer and meter are required")
	}
	m, err := newMetrics(cfg.Meter)
	if err != nil {
		return nil, err
	}
	return &Fetcher{cfg: cfg, volumes: newVolumes(maxVolumes), metrics: m}, nil
}

// Result is a checked answer.
type Result struct {
	Answer *providerv1.FetchResponse
	// FetchedAt is when the provider gave it.
	FetchedAt time.Time
	Source    gatewayv1.Source
}

// Usage is how much a provider is used.
type Usage struct {
	// InFlight counts fetches under way, waiting ones included.
	InFlight uint32
	// Volumes counts those that were fetched for and not released.
	Volumes uint32
}

// Usage tells how much a provider is used under a name.
func (f *Fetcher) Usage(name string) Usage { return f.volumes.usage(name) }

// Fetch gets all objects of one SPC for one pod. It waits for the provider
// inside ctx's deadline. Errors are [*rpc.Error], except for ctx's own.
func (f *Fetcher) Fetch(ctx context.Context, req *gatewayv1.FetchRequest) (*Result, error) {
	started := time.Now()
	ctx, span := f.cfg.Tracer.Start(ctx, "gateway.Fetch")
	defer span.End()
	defer f.volumes.begin(req.GetProvider())()
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("postern.provider", req.GetProvider()),
			attribute.String("postern.secret_provider_class", req.GetSecretProviderClass()),
			attribute.String("k8s.pod.name", req.GetPod().GetName()),
			attribute.String("k8s.namespace.name", req.GetPod().GetNamespace()),
		)
	}
	one := &flow{fetcher: f, req: req, span: span}
	result, err := one.run(ctx)
	if err != nil {
		span.SetStatus(otelcodes.Error, err.Error())
		span.SetAttributes(attribute.String("postern.reason", rpc.FromError(err).Reason))
	} else {
		span.SetAttributes(attribute.String("postern.source", sourceName(result.Source)))
	}
	f.metrics.fetched(ctx, f.label(req.GetProvider()), err, time.Since(started))
	return result, err
}

// Acquire returns an instance that serves, whose Done has to be called. It waits
// for one inside ctx's deadline, in a span of its own. Errors are [*rpc.Error],
// except for ctx's own.
func (f *Fetcher) Acquire(ctx context.Context, name string) (*registry.Handle, error) {
	if handle, ok := f.cfg.Providers.TryAcquire(name); ok {
		return handle, nil
	}
	started := time.Now()
	ctx, span := f.cfg.Tracer.Start(ctx, "gateway.AcquireProvider",
		trace.WithAttributes(attribute.String("postern.provider", name)))
	defer span.End()
	handle, err := f.cfg.Providers.Acquire(ctx, name)
	if err != nil {
		span.SetStatus(otelcodes.Error, err.Error())
	}
	f.metrics.waited(ctx, f.label(name), time.Since(started))
	return handle, err
}

// label is a provider's name as a metric's label. Whoever may create an SPC
// can write any name into it, so unknown ones are one.
func (f *Fetcher) label(name string) string {
	if f.cfg.Providers.Known(name) {
		return name
	}
	return "unknown"
}

func sourceName(source gatewayv1.Source) string {
	switch source {
	case gatewayv1.Source_SOURCE_PROVIDER:
		return "provider"
	case gatewayv1.Source_SOURCE_JOINED:
		return "joined"
	case gatewayv1.Source_SOURCE_CACHE:
		return "cache"
	case gatewayv1.Source_SOURCE_STALE:
		return "stale"
	default:
		return "unspecified"
	}
}

// flow is one fetch on its way. Its steps stand in the order in which they
// have to be: policy, key, flight and cache, budget, provider, check. Each is
// a method, called by run.
type flow struct {
	fetcher *Fetcher
	req     *gatewayv1.FetchRequest
	span    trace.Span
}

// run takes the steps.
func (o *flow) run(ctx context.Context) (*Result, error) {
	resp, err := o.askProvider(ctx)
	if err != nil {
		return nil, err
	}
	if err := o.check(resp); err != nil {
		return nil, err
	}
	return &Result{Answer: resp, FetchedAt: time.Now(), Source: gatewayv1.Source_SOURCE_PROVIDER}, nil
}

const (
	// firstPause and lastPause bound the pause before an instance is acquired
	// again after a call did not get out: the registry needs that long to see
	// what the call saw.
	firstPause = 2 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// askProvider calls the instance that serves. A call that never got out is
// made again, of whichever instance serves then; any other is not.
func (o *flow) askProvider(ctx context.Context) (*providerv1.FetchResponse, error) {
	inside, cancel := rpc.WithMargin(ctx, registry.Margin)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		handle, err := o.fetcher.Acquire(ctx, o.req.GetProvider())
		if err != nil {
			return nil, err
		}
		resp, err := o.ask(inside, handle)
		notSent, again := errors.AsType[*provider.NotSentError](err)
		if !again {
			return resp, err
		}
		o.span.AddEvent("provider instance was not reached")
		select {
		case <-time.After(pause):
		case <-inside.Done():
			return nil, unreached(inside, handle.Socket(), notSent)
		}
	}
}

// ask makes one call of one instance.
func (o *flow) ask(ctx context.Context, handle *registry.Handle) (*providerv1.FetchResponse, error) {
	defer handle.Done()
	if o.span.IsRecording() {
		o.span.SetAttributes(attribute.String("postern.instance", handle.Socket()))
	}
	// Before the call: one that fails half way may have issued something too.
	o.fetcher.volumes.asked(o.req.GetVolumeId(), o.req.GetProvider(), handle.ID())
	return handle.Provider.Fetch(ctx, o.req)
}

// check holds an answer against the rules.
func (o *flow) check(resp *providerv1.FetchResponse) error {
	return answer.Check(resp, answer.Rules{
		MaxBytes:       o.fetcher.cfg.MaxResponseBytes,
		CurrentObjects: o.req.GetCurrentObjects(),
	})
}

// unreached is the failure of a fetch whose time ran out before it got out.
func unreached(ctx context.Context, socket string, cause error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return &rpc.Error{
		Reason:  rpc.ReasonProviderUnavailable,
		Message: fmt.Sprintf("the provider's instance %s cannot be reached: check that its pod runs on this node", socket),
		Err:     cause,
	}
}
