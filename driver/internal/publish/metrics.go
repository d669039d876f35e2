package publish

import (
	"context"
	"errors"
	"runtime"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-dev/postern/internal/rpc"
)

// Metrics counts publishes and refreshes, and tells how fresh volumes are. Those
// without the prefix postern have the upstream driver's names and labels.
type Metrics struct {
	publish         metric.Int64Counter
	publishErrors   metric.Int64Counter
	unpublish       metric.Int64Counter
	unpublishErrors metric.Int64Counter
	refresh         metric.Int64Counter
	refreshErrors   metric.Int64Counter
	refreshDuration metric.Float64Histogram
	refreshes       metric.Int64Counter
	duration        metric.Float64Histogram
	freshness       freshness
}

const (
	labelProvider  = attribute.Key("provider")
	labelClass     = attribute.Key("secret_provider_class")
	labelState     = attribute.Key("state")
	labelOutcome   = attribute.Key("outcome")
	labelReason    = attribute.Key("reason")
	labelErrorType = attribute.Key("error_type")
	labelOSType    = attribute.Key("os_type")
	labelRotated   = attribute.Key("rotated")
)

// NewMetrics registers the metrics with meter.
func NewMetrics(meter metric.Meter) (*Metrics, error) {
	m := &Metrics{}
	// Up to kubelet's limit, in seconds.
	buckets := metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120)
	var errs [10]error
	m.publish, errs[0] = meter.Int64Counter("node_publish",
		metric.WithDescription("Volumes published."))
	m.publishErrors, errs[1] = meter.Int64Counter("node_publish_error",
		metric.WithDescription("Publish calls that failed."))
	m.unpublish, errs[2] = meter.Int64Counter("node_unpublish",
		metric.WithDescription("Volumes unpublished."))
	m.unpublishErrors, errs[3] = meter.Int64Counter("node_unpublish_error",
		metric.WithDescription("Unpublish calls that failed."))
	m.refresh, errs[4] = meter.Int64Counter("rotation_reconcile",
		metric.WithDescription("Mounted volumes fetched again, by whether something had changed."))
	m.refreshErrors, errs[5] = meter.Int64Counter("rotation_reconcile_error",
		metric.WithDescription("Mounted volumes that could not be fetched again and keep their content."))
	m.duration, errs[6] = meter.Float64Histogram("postern.driver.publish.duration",
		metric.WithUnit("s"),
		metric.WithDescription("How long publish calls take, up to kubelet's limit of two minutes."),
		buckets)
	m.refreshDuration, errs[7] = meter.Float64Histogram("rotation_reconcile_duration_sec",
		metric.WithDescription("How long fetching a mounted volume again takes."),
		buckets)
	m.refreshes, errs[8] = meter.Int64Counter("postern.driver.refreshes",
		metric.WithDescription("Attempts to fetch mounted volumes again, by outcome and why they failed."))
	m.freshness, errs[9] = newFreshness(meter)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return m, nil
}

// start makes those series that are known, so that alerts see them at zero.
func (m *Metrics) start(ctx context.Context) {
	m.unpublish.Add(ctx, 0, metric.WithAttributes(osType()))
	m.unpublishErrors.Add(ctx, 0, metric.WithAttributes(osType()))
}

func osType() attribute.KeyValue { return labelOSType.String(runtime.GOOS) }

// published counts one call, by its failure or by its provider.
func (m *Metrics) published(ctx context.Context, provider string, started time.Time, err error) {
	byProvider := metric.WithAttributes(labelProvider.String(provider), osType())
	m.duration.Record(ctx, time.Since(started).Seconds(), byProvider)
	if err == nil {
		m.publish.Add(ctx, 1, byProvider)
		return
	}
	m.publishErrors.Add(ctx, 1, metric.WithAttributes(labelProvider.String(provider), labelErrorType.String(errorType(err)), osType()))
}

func (m *Metrics) unpublished(ctx context.Context, err error) {
	if err == nil {
		m.unpublish.Add(ctx, 1, metric.WithAttributes(osType()))
		return
	}
	m.unpublishErrors.Add(ctx, 1, metric.WithAttributes(osType()))
}

// refreshed counts one refresh.
func (m *Metrics) refreshed(ctx context.Context, provider string, started time.Time, o outcome, err error) {
	outcome, reason := "unchanged", "OK"
	switch {
	case err != nil:
		outcome, reason = "failed", reasonLabel(err)
	case o.changed:
		outcome = "changed"
	}
	m.refreshes.Add(ctx, 1, metric.WithAttributes(labelProvider.String(provider), labelOutcome.String(outcome), labelReason.String(reason)))
	attributes := []attribute.KeyValue{labelProvider.String(provider), labelRotated.Bool(o.changed), osType()}
	if err == nil {
		m.refresh.Add(ctx, 1, metric.WithAttributes(attributes...))
		m.refreshDuration.Record(ctx, time.Since(started).Seconds(), metric.WithAttributes(osType()))
		return
	}
	attributes = append(attributes, labelErrorType.String(errorType(err)))
	m.refreshErrors.Add(ctx, 1, metric.WithAttributes(attributes...))
}

func reasonLabel(err error) string {
	if reason := rpc.FromError(err).Reason; reason != "" {
		return reason
	}
	return "UNKNOWN"
}
