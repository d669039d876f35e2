package e2e_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/otlp"
	"github.com/postern-dev/postern/test/prometheus"
)

// watch starts a Prometheus that scrapes the node's daemons as it does in a
// cluster: with the labels that the chart's ServiceMonitors give.
func (n *node) watch(t *testing.T, rules ...string) *prometheus.Server {
	t.Helper()
	cfg := prometheus.Config{Dir: t.TempDir(), Rules: rules}
	for _, daemon := range n.Daemons() {
		cfg.Targets = append(cfg.Targets, prometheus.Target{
			Job: daemon.Name(), Address: daemon.Admin,
			Labels: map[string]string{
				"namespace": "postern-system", "pod": daemon.Name() + "-1", "container": "main",
				"service": daemon.Name(), "endpoint": "metrics", "node": "node-1",
			},
		})
	}
	server, err := prometheus.Start(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, server.Stop()) })
	return server
}

// A latency in Prometheus leads to the trace of the mount that took so long.
func TestExemplarsLeadToTraces(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	metrics := n.watch(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	trace := n.trace(t, v, "postern-driver", "postern-gateway", "postern-provider-vault")
	for _, histogram := range []struct{ name, span string }{
		{"postern_driver_publish_duration_seconds", "csi.NodePublishVolume"},
		{"postern_gateway_fetch_duration_seconds", "gateway.Fetch"},
		{"postern_provider_fetch_duration_seconds", "provider.Fetch"},
		{"http_client_request_duration_seconds", "vault GET"},
	} {
		t.Run(histogram.name, func(t *testing.T) {
			t.Parallel()
			wantExemplar(t, metrics, histogram.name, trace)
			if !trace.Has(histogram.span) {
				t.Errorf("the trace has no span %s, which that histogram measures:\n%s", histogram.span, trace.Tree())
			}
		})
	}
}

// wantExemplar waits until a histogram has an exemplar of the trace, with the
// value that a span of the trace took.
func wantExemplar(t *testing.T, metrics *prometheus.Server, histogram string, trace otlp.Trace) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		exemplars, err := metrics.Exemplars(t.Context(), histogram+"_bucket")
		must(t, err)
		i := slices.IndexFunc(exemplars, func(e prometheus.Exemplar) bool { return e.Labels["trace_id"] == trace.ID })
		if i >= 0 {
			if id := exemplars[i].Labels["span_id"]; !slices.ContainsFunc(trace.Spans, func(s otlp.Span) bool { return s.SpanID == id }) {
				t.Errorf("the exemplar names span %q, which the trace has not:\n%s", id, trace.Tree())
			}
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s has no exemplar of trace %s, but %v", histogram, trace.ID, exemplars)
		}
	}
}
