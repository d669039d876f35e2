package secretsync

import (
	"context"
	"errors"
	"runtime"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// outcome is what became of one Secret.
type outcome string

const (
	outcomeCreated   outcome = "created"
	outcomeUpdated   outcome = "updated"
	outcomeUnchanged outcome = "unchanged"
	outcomeDeleted   outcome = "deleted"
	outcomeFailed    outcome = "failed"
)

const (
	labelOutcome  = attribute.Key("outcome")
	labelReason   = attribute.Key("reason")
	labelProvider = attribute.Key("provider")
	labelOSType   = attribute.Key("os_type")
)

// metrics count Secrets. The last two have the upstream driver's names.
type metrics struct {
	outcomes metric.Int64Counter
	written  metric.Int64Counter
	duration metric.Float64Histogram
}

func newMetrics(meter metric.Meter) (*metrics, error) {
	m := &metrics{}
	var errs [3]error
	m.outcomes, errs[0] = meter.Int64Counter("postern.driver.secret_syncs",
		metric.WithDescription("Kubernetes Secrets looked at, by what became of them and why."))
	m.written, errs[1] = meter.Int64Counter("sync_k8s_secret",
		metric.WithDescription("Kubernetes Secrets created and updated."))
	m.duration, errs[2] = meter.Float64Histogram("k8s_secret_duration_sec",
		metric.WithDescription("How long it takes to create or update a Kubernetes Secret, in seconds."),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120))
	return m, errors.Join(errs[:]...)
}

func (m *metrics) synced(ctx context.Context, volume *Volume, what outcome, err error) {
	m.outcomes.Add(ctx, 1, metric.WithAttributes(labelOutcome.String(string(what)), labelReason.String(Reason(err))))
	if what == outcomeCreated || what == outcomeUpdated {
		m.written.Add(ctx, 1, metric.WithAttributes(labelProvider.String(volume.Provider), osType()))
	}
}

func (m *metrics) took(ctx context.Context, started time.Time) {
	m.duration.Record(ctx, time.Since(started).Seconds(), metric.WithAttributes(osType()))
}

func osType() attribute.KeyValue { return labelOSType.String(runtime.GOOS) }
