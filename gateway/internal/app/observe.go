package app

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/registry"
)

// The attributes of what is observed.
const (
	stateKey  = attribute.Key("state")
	reasonKey = attribute.Key("reason")
)

// observe exports what the gateway knows of each provider and of kept answers.
// A provider that is there has all its series from the start, at 0.
func (g *gateway) observe(meter metric.Meter) error {
	var errs [7]error
	gauge := func(i int, name, unit, description string) metric.Int64ObservableGauge {
		instrument, err := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs[i] = err
		return instrument
	}
	instances := gauge(0, "postern.gateway.provider.instances", "", "Instances of providers, by state.")
	inFlight := gauge(1, "postern.gateway.fetch.in_flight", "", "Fetches under way, waiting ones included.")
	volumes := gauge(2, "postern.gateway.volumes", "", "Volumes that were fetched for and not released.")
	entries := gauge(3, "postern.gateway.cache.entries", "", "Answers kept in memory.")
	size := gauge(4, "postern.gateway.cache.size", "By", "How much memory kept answers take.")
	evictions, err := meter.Int64ObservableCounter("postern.gateway.cache.evictions",
		metric.WithDescription("Kept answers that were dropped, by reason: size (to make room), age, refused (the store refused a later fetch); too_large for those that were not kept."))
	errs[5] = err
	// It lives as long as the meter.
	_, errs[6] = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, p := range g.registry.Snapshot() {
			name := fetch.ProviderKey.String(p.Name)
			usage := g.fetcher.Usage(p.Name)
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
		g.observeCache(o, entries, size, evictions)
		return nil
	}, instances, inFlight, volumes, entries, size, evictions)
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("register the gateway's metrics: %w", err)
	}
	return nil
}

// observeCache exports what is kept.
func (g *gateway) observeCache(o metric.Observer, entries, size, evictions metric.Int64Observable) {
	stats := g.cache.Stats()
	o.ObserveInt64(entries, int64(stats.Entries))
	o.ObserveInt64(size, stats.Bytes)
	for reason, count := range map[string]uint64{
		"size": stats.Evictions.Size, "age": stats.Evictions.Age, "refused": stats.Evictions.Dropped, "too_large": stats.TooLarge,
	} {
		o.ObserveInt64(evictions, int64(count), metric.WithAttributes(reasonKey.String(reason)))
	}
}
