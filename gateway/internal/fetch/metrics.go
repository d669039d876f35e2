package fetch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-dev/postern/internal/rpc"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// The attributes of the gateway's metrics.
const (
	ProviderKey = attribute.Key("provider")
	reasonKey   = attribute.Key("reason")
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
	return &metrics{duration: duration, wait: wait}, nil
}

func (m *metrics) fetched(ctx context.Context, provider string, err error, took time.Duration) {
	m.duration.Record(ctx, took.Seconds(), metric.WithAttributeSet(
		attribute.NewSet(ProviderKey.String(provider), reasonKey.String(reasonLabel(err)))))
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
