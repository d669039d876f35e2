package app

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/registry"
)

// stateKey is the attribute for an instance's state.
const stateKey = attribute.Key("state")

// observe exports what the gateway knows of each provider. A provider that is
// there has all its series from the start, at 0.
func observe(meter metric.Meter, providers *registry.Registry, fetcher *fetch.Fetcher) error {
	instances, err := meter.Int64ObservableGauge("postern.gateway.provider.instances",
		metric.WithDescription("Instances of providers, by state."))
	if err != nil {
		return fmt.Errorf("create the metric of instances: %w", err)
	}
	inFlight, err := meter.Int64ObservableGauge("postern.gateway.fetch.in_flight",
		metric.WithDescription("Fetches under way, waiting ones included."))
	if err != nil {
		return fmt.Errorf("create the metric of fetches under way: %w", err)
	}
	volumes, err := meter.Int64ObservableGauge("postern.gateway.volumes",
		metric.WithDescription("Volumes that were fetched for and not released."))
	if err != nil {
		return fmt.Errorf("create the metric of volumes: %w", err)
	}
	// It lives as long as the meter.
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, p := range providers.Snapshot() {
			name := fetch.ProviderKey.String(p.Name)
			usage := fetcher.Usage(p.Name)
			o.ObserveInt64(inFlight, int64(usage.InFlight), metric.WithAttributes(name))
			o.ObserveInt64(volumes, int64(usage.Volumes), metric.WithAttributes(name))
			if p.Alias {
				// Its instances are counted under their own name.
				continue
			}
			count := map[registry.State]int64{}
			for _, i := range p.Instances {
				count[i.State]++
			}
			for _, state := range registry.States() {
				o.ObserveInt64(instances, count[state], metric.WithAttributes(name, stateKey.String(state.String())))
			}
		}
		return nil
	}, instances, inFlight, volumes)
	if err != nil {
		return fmt.Errorf("register the gateway's metrics: %w", err)
	}
	return nil
}
