package charts_test

import (
	"encoding/json"
	"regexp"
	"testing"

	"github.com/postern-dev/postern/test/charts"
	"github.com/postern-dev/postern/test/docs"
)

// TestTraces: every daemon gets the variables, in an order in which they refer
// to those before them.
func TestTraces(t *testing.T) {
	t.Parallel()
	for name, set := range daemonSets(t, everything) {
		containers := set.Spec.Template.Spec.Containers
		container := containers[len(containers)/2]
		defined := map[string]string{}
		for _, variable := range container.Env {
			for _, match := range regexp.MustCompile(`\$\((\w+)\)`).FindAllStringSubmatch(variable.Value, -1) {
				if _, ok := defined[match[1]]; !ok {
					t.Errorf("%s: %s refers to %s, which comes later", name, variable.Name, match[1])
				}
			}
			if _, ok := defined[variable.Name]; ok {
				t.Errorf("%s: %s is there twice", name, variable.Name)
			}
			defined[variable.Name] = variable.Value
		}
		if got := defined["OTEL_EXPORTER_OTLP_ENDPOINT"]; got != "http://otel-collector.observability:4318" {
			t.Errorf("%s: traces go to %q", name, got)
		}
		if _, ok := defined["OTEL_RESOURCE_ATTRIBUTES"]; !ok {
			t.Errorf("%s: its spans do not tell the node", name)
		}
	}
}

// TestAlerts holds the alerts to metrics that there are.
func TestAlerts(t *testing.T) {
	t.Parallel()
	root := repository(t)
	metrics, err := docs.Listed(root, "Metrics")
	if err != nil {
		t.Fatal(err)
	}
	var rule struct {
		Spec struct {
			Groups []struct {
				Name  string
				Rules []struct {
					Alert, Expr, For    string
					Labels, Annotations map[string]string
				}
			}
		}
	}
	objects := render(t, everything)
	encoded, err := json.Marshal(objects.Find("PrometheusRule", charts.Release))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(encoded, &rule); err != nil {
		t.Fatal(err)
	}
	alerts := 0
	for _, group := range rule.Spec.Groups {
		for _, alert := range group.Rules {
			alerts++
			if alert.For == "" || alert.Labels["severity"] == "" || alert.Annotations["summary"] == "" || alert.Annotations["description"] == "" {
				t.Errorf("alert %s lacks a duration, a severity, a summary or a description", alert.Alert)
			}
			names := regexp.MustCompile(`\b(node|postern)_\w+`).FindAllString(alert.Expr, -1)
			if len(names) == 0 {
				t.Errorf("alert %s is about no metric", alert.Alert)
			}
			for _, name := range names {
				if !has(metrics, regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")) && !has(metrics, name) {
					t.Errorf("alert %s: there is no metric %s", alert.Alert, name)
				}
			}
		}
	}
	if alerts == 0 {
		t.Error("there are no alerts")
	}
	parts := len(umbrella(t).Providers()) + 2 // and driver and gateway
	if monitors := objects.Kind("ServiceMonitor"); len(monitors) != parts {
		t.Errorf("ServiceMonitors: %d, want one for each of %d parts", len(monitors), parts)
	}
}
