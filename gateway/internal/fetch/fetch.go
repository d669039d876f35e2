// Package fetch takes one request of the driver to the provider that serves it,
// and brings back an answer that is safe to write.
package fetch

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/gateway/internal/cache"
	"github.com/postern-dev/postern/gateway/internal/flight"
	"github.com/postern-dev/postern/gateway/internal/key"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
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

// Policy says which fetches are allowed.
type Policy interface {
	// Check returns an [*rpc.Error] with POLICY_DENIED for one that is not.
	Check(ctx context.Context, req *gatewayv1.FetchRequest) error
}

// Config is what a Fetcher needs. Every field but LegacySharing is required.
type Config struct {
	Providers Providers
	Policy    Policy
	Budgets   *budget.Budgets
	Cache     *cache.Cache
	// Reuse is for SPCs that say nothing about it.
	Reuse Reuse
	// LegacySharing names the legacy providers whose answers may be served to
	// all pods of a service account that use the same SPC. It is for those who
	// know that the provider's answers depend on nothing else of the pod.
	LegacySharing []string
	// CallTimeout bounds one call of a provider.
	CallTimeout time.Duration
	// MaxResponseBytes bounds an answer: contents, paths and ids together.
	MaxResponseBytes int
	Logger           *slog.Logger
	Tracer           trace.Tracer
	Meter            metric.Meter
}

// maxVolumes bounds what is remembered of volumes: far more than a node's pods
// can have, at some 500 bytes each.
const maxVolumes = 8192

// Fetcher makes fetches and remembers their volumes until they are released.
// It is safe for concurrent use.
//
// Invariants:
//  1. Two service accounts never share a call or an answer: the identity is in
//     every key.
//  2. Before anything is called or served the policy has allowed it, and the
//     pod has shown tokens of its own for all that the provider asks for.
//  3. An answer that its provider does not let others have, and one with leases,
//     is for the volume that it was fetched for, and is not kept.
//  4. What the store refused is not served from memory: a refusal drops what is
//     kept.
//  5. Nobody is served what the store was asked for before the time that the
//     request names.
//  6. What is kept for refreshes only is kept while a volume that was served it
//     is not released.
type Fetcher struct {
	cfg          Config
	keys         *key.Maker
	flights      *flight.Group
	private      private
	descriptions descriptions
	volumes      *volumes
	metrics      *metrics
}

// New returns a fetcher.
func New(cfg Config) (*Fetcher, error) {
	switch {
	case cfg.Providers == nil:
		return nil, errors.New("fetch: no providers are given")
	case cfg.Policy == nil || cfg.Budgets == nil || cfg.Cache == nil:
		return nil, errors.New("fetch: policy, budgets and cache are required")
	case cfg.Reuse.MaxAge < 0 || cfg.Reuse.MaxStale < 0:
		return nil, errors.New("fetch: how old an answer may be is negative")
	case cfg.CallTimeout <= 0:
		return nil, errors.New("fetch: the time for a call must be more than 0")
	case cfg.MaxResponseBytes <= 0:
		return nil, errors.New("fetch: the maximum answer must be more than 0 bytes")
	case cfg.Logger == nil || cfg.Tracer == nil || cfg.Meter == nil:
		return nil, errors.New("fetch: logger, tracer and meter are required")
	}
	m, err := newMetrics(cfg.Meter)
	if err != nil {
		return nil, err
	}
	return &Fetcher{
		cfg: cfg, keys: key.NewMaker(), flights: flight.New(), volumes: newVolumes(maxVolumes, cfg.Cache.Shorten), metrics: m,
	}, nil
}

// Result is a checked answer.
type Result struct {
	// Answer is the caller's to release.
	Answer *answer.Answer
	// NotModified says that the answer is what the request says that the volume
	// holds.
	NotModified bool
	Source      gatewayv1.Source
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
func (f *Fetcher) Fetch(ctx context.Context, req *gatewayv1.FetchRequest) (Result, error) {
	started := time.Now()
	ctx, span := f.cfg.Tracer.Start(ctx, "gateway.Fetch")
	defer span.End()
	f.volumes.begin(req.GetProvider())
	defer f.volumes.end(req.GetProvider())
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("postern.provider", req.GetProvider()),
			attribute.String("postern.secret_provider_class", req.GetSecretProviderClass()),
			attribute.String("k8s.pod.name", req.GetPod().GetName()),
			attribute.String("k8s.namespace.name", req.GetPod().GetNamespace()),
			attribute.Bool("postern.refresh", req.GetRefresh()),
		)
	}
	one := &flow{fetcher: f, req: req, span: span, demand: demandOf(req, started)}
	result, err := one.run(ctx)
	if err != nil {
		span.SetStatus(otelcodes.Error, err.Error())
		span.SetAttributes(attribute.String("postern.reason", rpc.FromError(err).Reason))
	} else {
		one.use(result.Answer.Response())
		f.metrics.served(ctx, f.label(req.GetProvider()), result.Source)
		span.SetAttributes(attribute.String("postern.source", sourceName(result.Source)))
	}
	f.metrics.fetched(ctx, f.label(req.GetProvider()), err, time.Since(started))
	return result, err
}

// Flights are the fetches under way, the oldest first.
func (f *Fetcher) Flights() []flight.Flight { return f.flights.Flights() }

// Counts are what the kept answers were good for.
func (f *Fetcher) Counts() Counts { return f.metrics.counts.snapshot() }

// Wait returns when no call is under way any more. It is for the end of the
// process, after the last Fetch.
func (f *Fetcher) Wait() { f.flights.Wait() }

// acquire returns an instance that serves, whose Done has to be called. It waits
// for one inside ctx's deadline, in a span of its own. Errors are [*rpc.Error],
// except for ctx's own.
func (f *Fetcher) acquire(ctx context.Context, name string) (*registry.Handle, error) {
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
