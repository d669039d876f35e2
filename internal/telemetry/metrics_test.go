package telemetry_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-dev/postern/internal/telemetry"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	for name, tel := range map[string]*telemetry.Telemetry{"New": newTelemetry(t, nil), "Discard": telemetry.Discard()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			counter, err := tel.Meter("github.com/postern-dev/postern/test").Int64Counter("node_publish",
				metric.WithDescription("Volumes that were mounted."))
			if err != nil {
				t.Fatal(err)
			}
			counter.Add(t.Context(), 0, metric.WithAttributes(attribute.String("provider", "vault")))
			text := scrape(t, tel)
			for _, want := range []string{
				"# HELP node_publish_total Volumes that were mounted.",
				`node_publish_total{provider="vault"} 0`,
				"go_goroutines ", "process_resident_memory_bytes ", "postern_build_info{service=",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("metrics lack %q", want)
				}
			}
			for _, no := range []string{"otel_scope", "target_info"} {
				if strings.Contains(text, no) {
					t.Errorf("metrics have %s:\n%s", no, grep(text, no))
				}
			}
			shutdown(t, tel)
		})
	}
}

// TestExemplars: a latency leads to a trace.
func TestExemplars(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": newReceiver().overHTTP(t)})
	histogram, err := tel.Meter("test").Float64Histogram("wait", metric.WithUnit("s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.Tracer("test").Start(t.Context(), "work")
	histogram.Record(ctx, 0.3)
	span.End()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	w := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(w, req)
	if want := `trace_id="` + span.SpanContext().TraceID().String(); !strings.Contains(w.Body.String(), want) {
		t.Errorf("no %s in\n%s", want, grep(w.Body.String(), "^wait"))
	}
	shutdown(t, tel)
}

func scrape(t *testing.T, tel *telemetry.Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// grep returns the lines that match.
func grep(text, pattern string) string {
	expr := regexp.MustCompile(pattern)
	var b strings.Builder
	for line := range strings.Lines(text) {
		if expr.MatchString(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}
