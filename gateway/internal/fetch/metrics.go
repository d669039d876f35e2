package fetch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// The attributes of the gateway's metrics.
const (
	ProviderKey = attribute.Key("provider")
	reasonKey   = attribute.Key("reason")
	resultKey   = attribute.Key("result")
)

// durationBuckets are in seconds: a fetch takes milliseconds from a store near
// by, and up to kubelet's two minutes where it waits.
func durationBuckets() metric.HistogramOption {
	return metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120)
}

// metrics are the instruments of fetches.
type metrics struct {
	duration metric.Float64Histogram
	wait     metric.Float64Histogram
	results  metric.Int64Counter
	counts   counts
	labels   labels
}

// labels keeps the attributes of what is counted for each fetch: there are few,
// and to make them anew costs more than the fetch of a kept answer.
type labels struct {
	mu      sync.RWMutex
	options map[labelValues]metric.MeasurementOption
}

type labelValues struct{ provider, key, other string }

// of returns the option for a provider and another attribute.
func (l *labels) of(provider string, other attribute.KeyValue) metric.MeasurementOption {
	values := labelValues{provider, string(other.Key), other.Value.AsString()}
	l.mu.RLock()
	option, ok := l.options[values]
	l.mu.RUnlock()
	if ok {
		return option
	}
	option = metric.WithAttributeSet(attribute.NewSet(ProviderKey.String(provider), other))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.options == nil {
		l.options = map[labelValues]metric.MeasurementOption{}
	}
	l.options[values] = option
	return option
}

// Counts are how many fetches were served from where.
type Counts struct {
	// Hits were served a kept answer.
	Hits uint64
	// Joins joined another fetch under way.
	Joins uint64
	// Misses had the provider called.
	Misses uint64
	// Stale were served a kept answer because the store is unreachable.
	Stale uint64
}

// counts are Counts that grow.
type counts struct{ hits, joins, misses, stale atomic.Uint64 }

// of returns the count of a source, and its name in metrics.
func (c *counts) of(source gatewayv1.Source) (count *atomic.Uint64, name string) {
	switch source {
	case gatewayv1.Source_SOURCE_CACHE:
		return &c.hits, "hit"
	case gatewayv1.Source_SOURCE_JOINED:
		return &c.joins, "join"
	case gatewayv1.Source_SOURCE_STALE:
		return &c.stale, "stale"
	default:
		return &c.misses, "miss"
	}
}

func (c *counts) snapshot() Counts {
	return Counts{Hits: c.hits.Load(), Joins: c.joins.Load(), Misses: c.misses.Load(), Stale: c.stale.Load()}
}

func newMetrics(meter metric.Meter) (*metrics, error) {
	duration, err := meter.Float64Histogram("postern.gateway.fetch.duration",
		metric.WithUnit("s"),
		metric.WithDescription("How long fetches took, by provider and by the reason of their failure; OK for none."),
		durationBuckets())
	if err != nil {
		return nil, fmt.Errorf("create the metric of fetches: %w", err)
	}
	wait, err := meter.Float64Histogram("postern.gateway.provider.wait.duration",
		metric.WithUnit("s"),
		metric.WithDescription("How long fetches waited for a provider that did not serve when they came."),
		durationBuckets())
	if err != nil {
		return nil, fmt.Errorf("create the metric of waits: %w", err)
	}
	results, err := meter.Int64Counter("postern.gateway.cache.results",
		metric.WithDescription("Fetches that succeeded, by where the answer came from: hit (kept), join (another fetch under way), miss (the provider was called), stale (kept, and the store is unreachable)."))
	if err != nil {
		return nil, fmt.Errorf("create the metric of kept answers: %w", err)
	}
	return &metrics{duration: duration, wait: wait, results: results}, nil
}

func (m *metrics) fetched(ctx context.Context, provider string, err error, took time.Duration) {
	m.duration.Record(ctx, took.Seconds(), m.labels.of(provider, reasonKey.String(reasonLabel(err))))
}

// served counts a fetch that succeeded.
func (m *metrics) served(ctx context.Context, provider string, source gatewayv1.Source) {
	count, name := m.counts.of(source)
	count.Add(1)
	m.results.Add(ctx, 1, m.labels.of(provider, resultKey.String(name)))
}

func (m *metrics) waited(ctx context.Context, provider string, took time.Duration) {
	m.wait.Record(ctx, took.Seconds(), metric.WithAttributeSet(attribute.NewSet(ProviderKey.String(provider))))
}

// reasonLabel is bounded: a reason of the contract, or one of three words.
func reasonLabel(err error) string {
	switch {
	case err == nil:
		return "OK"
	case errors.Is(err, context.Canceled):
		return "CANCELED"
	}
	reason := rpc.FromError(err).Reason
	if _, ok := secretv1.ErrorReason_value["ERROR_REASON_"+strings.ToUpper(reason)]; ok && reason != "" {
		return reason
	}
	return "OTHER"
}
