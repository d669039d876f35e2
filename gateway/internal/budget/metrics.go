package budget

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-dev/postern/internal/rpc"
)

// The attributes of the metrics, all bounded: names of known providers, the
// three reasons of refusals and the four states of stores.
const (
	providerKey = attribute.Key("provider")
	reasonKey   = attribute.Key("reason")
	stateKey    = attribute.Key("state")
)

// metrics are the instruments of all providers.
type metrics struct {
	wait     metric.Float64Histogram
	refusals metric.Int64Counter
}

// newMetrics registers the instruments. They observe what all returns for as
// long as the meter lives.
func newMetrics(meter metric.Meter, all func() []*provider) (*metrics, error) {
	wait, err := meter.Float64Histogram("postern.gateway.budget.wait.duration",
		metric.WithUnit("s"),
		metric.WithDescription("How long calls waited for their turn in a provider's budget, of those that had to wait."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120))
	if err != nil {
		return nil, err
	}
	refusals, err := meter.Int64Counter("postern.gateway.budget.refused",
		metric.WithDescription("Calls that a provider's budget refused, by reason: BUDGET_EXHAUSTED, STORE_UNAVAILABLE (its breaker is open), RATE_LIMITED (the store asked to slow down for longer than the call had time)."))
	if err != nil {
		return nil, err
	}
	return &metrics{wait: wait, refusals: refusals}, observe(meter, all)
}

// observe registers what is looked at when it is asked for.
func observe(meter metric.Meter, all func() []*provider) error {
	calls, err := meter.Int64ObservableGauge("postern.gateway.budget.calls",
		metric.WithDescription("Calls of a provider under way, out of its budget."))
	if err != nil {
		return err
	}
	queued, err := meter.Int64ObservableGauge("postern.gateway.budget.queued",
		metric.WithDescription("Calls that wait for their turn in a provider's budget."))
	if err != nil {
		return err
	}
	stores, err := meter.Int64ObservableGauge("postern.gateway.stores",
		metric.WithDescription("Stores behind a provider, by state: closed (asked), open (failed time and again, left alone), half_open (one call tries), throttled (asked to slow down)."))
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, p := range all() {
			u := p.usage()
			o.ObserveInt64(calls, int64(u.calls), p.metrics.labels)
			o.ObserveInt64(queued, int64(u.queued), p.metrics.labels)
			for _, state := range States() {
				o.ObserveInt64(stores, int64(u.stores[state]), metric.WithAttributes(
					providerKey.String(p.name), stateKey.String(state.String())))
			}
		}
		return nil
	}, calls, queued, stores)
	return err
}

// providerMetrics are those of one provider.
type providerMetrics struct {
	*metrics
	name string
	// labels has the provider.
	labels metric.MeasurementOption
	// count is of refusals, for Status.
	count atomic.Uint64
}

func (m *metrics) of(name string) *providerMetrics {
	return &providerMetrics{
		metrics: m, name: name,
		labels: metric.WithAttributeSet(attribute.NewSet(providerKey.String(name))),
	}
}

func (m *providerMetrics) waited(ctx context.Context, took time.Duration) {
	if took > 0 {
		m.wait.Record(ctx, took.Seconds(), m.labels)
	}
}

// refused counts a refusal. A caller that left was not refused.
func (m *providerMetrics) refused(ctx context.Context, err error) {
	if refusal, ok := errors.AsType[*rpc.Error](err); ok {
		m.count.Add(1)
		m.refusals.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(
			providerKey.String(m.name), reasonKey.String(refusal.Reason))))
	}
}
