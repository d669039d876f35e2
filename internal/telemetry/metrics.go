package telemetry

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// startMetrics sets MeterProvider and registry. It starts no goroutine: metrics
// are collected when they are asked for.
func (t *Telemetry) startMetrics(cfg Config) error {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "postern_build_info",
		Help: "Always 1; the labels say what is running.",
	}, []string{"service", "version"})
	build.WithLabelValues(cfg.Service, cfg.Version).Set(1)
	for _, c := range []prometheus.Collector{
		build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	exporter, err := otelprom.New(
		otelprom.WithRegisterer(registry),
		otelprom.WithoutScopeInfo(),
		otelprom.WithoutTargetInfo(),
	)
	if err != nil {
		return err
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithView(withoutHosts()))
	t.registry = registry
	t.MeterProvider = provider
	t.shutdown = append(t.shutdown, provider.Shutdown)
	return nil
}

// withoutHosts takes the host and the port out of the metrics of clients. Which
// stores there are is said by whoever writes classes: any number of names.
func withoutHosts() sdkmetric.View {
	hosts := attribute.NewDenyKeysFilter("server.address", "server.port")
	return func(i sdkmetric.Instrument) (sdkmetric.Stream, bool) {
		of := strings.HasPrefix(i.Name, "http.client.") || strings.HasPrefix(i.Name, "rpc.client.")
		return sdkmetric.Stream{Name: i.Name, Description: i.Description, Unit: i.Unit, AttributeFilter: hosts}, of
	}
}
