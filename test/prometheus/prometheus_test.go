package prometheus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/prometheus"
)

// source is something to scrape. It speaks OpenMetrics, with an exemplar, to
// who asks for that.
type source struct{ broken atomic.Bool }

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	value := 0
	if s.broken.Load() {
		value = 1
	}
	if !strings.Contains(r.Header.Get("Accept"), "application/openmetrics-text") {
		http.Error(w, "no OpenMetrics asked for", http.StatusNotAcceptable)
		return
	}
	w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
	_, _ = fmt.Fprintf(w, `# TYPE broken gauge
broken{part="axle"} %d
# TYPE took_seconds histogram
took_seconds_bucket{le="1.0"} 1 # {trace_id="abc"} 0.5
took_seconds_bucket{le="+Inf"} 1
took_seconds_count 1
took_seconds_sum 0.5
# EOF
`, value)
}

const rules = `groups:
- name: test
  rules:
  - alert: PartBroken
    expr: broken == 1
    for: 100ms
    labels: {severity: warning}
    annotations: {summary: 'The {{ $labels.part }} is broken.'}
`

func TestServer(t *testing.T) {
	t.Parallel()
	s := &source{}
	web := httptest.NewServer(s)
	defer web.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "rules.yaml")
	must(t, os.WriteFile(file, []byte(rules), 0o600))
	server, err := prometheus.Start(t.Context(), prometheus.Config{
		Dir: dir, Rules: []string{file}, Interval: 200 * time.Millisecond,
		Targets: []prometheus.Target{{Job: "cart", Address: web.Listener.Addr().String(), Labels: map[string]string{"pod": "cart-1"}}},
	})
	must(t, err)
	defer func() { must(t, server.Stop()) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	samples, err := server.Await(ctx, `broken{job="cart"} + 41`)
	must(t, err)
	want := []prometheus.Sample{{Value: 41, Labels: map[string]string{
		"job": "cart", "instance": web.Listener.Addr().String(), "pod": "cart-1", "part": "axle",
	}}}
	if diff := cmp.Diff(want, samples); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
	exemplars, err := server.Exemplars(ctx, "took_seconds_bucket")
	must(t, err)
	if len(exemplars) != 1 || exemplars[0].Labels["trace_id"] != "abc" || exemplars[0].Value != 0.5 || exemplars[0].Series["pod"] != "cart-1" {
		t.Errorf("exemplars %v, want the one of trace abc", exemplars)
	}
	alerts, err := server.Alerts(ctx)
	must(t, err)
	if len(alerts) != 0 {
		t.Errorf("alerts %v though nothing is broken", alerts)
	}
	s.broken.Store(true)
	_, err = server.Await(ctx, `ALERTS{alertname="PartBroken", alertstate="firing"}`)
	must(t, err)
	alerts, err = server.Alerts(ctx)
	must(t, err)
	if len(alerts) != 1 || alerts[0].State != "firing" || alerts[0].Annotations["summary"] != "The axle is broken." || alerts[0].Labels["pod"] != "cart-1" {
		t.Errorf("alerts %v", alerts)
	}
	wantErrors(t, server)
}

func wantErrors(t *testing.T, server *prometheus.Server) {
	t.Helper()
	if _, err := server.Query(t.Context(), "sum("); err == nil || !strings.Contains(err.Error(), "parse error") {
		t.Errorf("a query that is none: %v", err)
	}
	if _, err := server.Query(t.Context(), `"text"`); err == nil || !strings.Contains(err.Error(), "not a vector") {
		t.Errorf("a query whose result is a string: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := server.Await(ended, "nothing"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for nothing: %v", err)
	}
}

// What Prometheus refuses at start is said, with its own words.
func TestStart_Refused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "rules.yaml")
	must(t, os.WriteFile(file, []byte("groups: nonsense\n"), 0o600))
	server, err := prometheus.Start(t.Context(), prometheus.Config{Dir: dir, Rules: []string{file}})
	if err == nil {
		must(t, server.Stop())
		t.Fatal("it started with rules that are none")
	}
	if !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("the error does not say why: %v", err)
	}
}

func TestReadRules(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	must(t, os.WriteFile(path, []byte(rules), 0o600))
	read, err := prometheus.ReadRules(path)
	must(t, err)
	if len(read.Groups) != 1 || len(read.Groups[0].Rules) != 1 || read.Groups[0].Rules[0].For != "100ms" {
		t.Fatalf("read %v", read)
	}
	copied := path + ".copy"
	must(t, read.Write(copied))
	again, err := prometheus.ReadRules(copied)
	must(t, err)
	if diff := cmp.Diff(read, again); diff != "" {
		t.Errorf("written and read again (-before +after):\n%s", diff)
	}
	must(t, os.WriteFile(path, []byte("groups: [{name: a, rules: [{record: b, expr: c}]}]"), 0o600))
	if _, err := prometheus.ReadRules(path); err == nil {
		t.Error("a rule that is no alert was read")
	}
}

// What promtool finds wrong is an error, with its words.
func TestPromtool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, test := filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "test.yaml")
	must(t, os.WriteFile(file, []byte(rules), 0o600))
	must(t, prometheus.CheckRules(t.Context(), file))
	must(t, os.WriteFile(test, []byte(`{rule_files: [rules.yaml], evaluation_interval: 1s, tests: [{
  interval: 1s, input_series: [{series: 'broken{part="axle"}', values: '1x10'}],
  alert_rule_test: [{eval_time: 5s, alertname: PartBroken, exp_alerts: []}]}]}`), 0o600))
	if err := prometheus.TestRules(t.Context(), test); err == nil || !strings.Contains(err.Error(), "The axle is broken.") {
		t.Errorf("an alert that must not fire: %v", err)
	}
	must(t, os.WriteFile(file, []byte(strings.Replace(rules, "broken == 1", "broken ==", 1)), 0o600))
	if err := prometheus.CheckRules(t.Context(), file); err == nil || !strings.Contains(err.Error(), "parse expression") {
		t.Errorf("an expression that is none: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
