package prometheus_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/prometheus"
)

const (
	ruleFile  = "../../charts/postern/files/rules.yaml"
	alertDocs = "../../docs/alerts.md"
	ruleTests = "testdata/alerts"
	// runbooks is where the sections of alertDocs are.
	runbooks = "https://github.com/postern-dev/postern/blob/main/docs/alerts.md#"
)

// Each alert fires when it has to and does not when it has not, by the tests of
// Prometheus' own tool.
func TestAlerts(t *testing.T) {
	t.Parallel()
	must(t, prometheus.CheckRules(t.Context(), ruleFile))
	tested := map[string]bool{}
	for _, rule := range alerts(t) {
		path := filepath.Join(ruleTests, rule.Alert+".yaml")
		tested[path] = true
		if fires, quiet := expectations(t, path, rule); !fires || !quiet {
			t.Errorf("%s: the tests show that %s (%s) fires: %t, that it does not: %t; both have to be",
				path, rule.Alert, rule.Labels["severity"], fires, quiet)
		}
	}
	files, err := filepath.Glob(filepath.Join(ruleTests, "*"))
	must(t, err)
	for _, file := range files {
		if !tested[file] {
			t.Errorf("%s tests no alert: its name has to be one's", file)
		}
	}
	if err := prometheus.TestRules(t.Context(), files...); err != nil {
		t.Error(err)
	}
}

// expectations tells whether the tests of a file expect an alert to fire, and
// whether they expect it not to.
func expectations(t *testing.T, path string, rule prometheus.Rule) (fires, quiet bool) {
	t.Helper()
	contents, err := os.ReadFile(path)
	must(t, err)
	var file struct {
		Tests []struct {
			Expected []struct {
				Name   string `json:"alertname"`
				Alerts []struct {
					Labels map[string]string `json:"exp_labels"`
				} `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	must(t, yaml.Unmarshal(contents, &file))
	for _, test := range file.Tests {
		for _, expected := range test.Expected {
			if expected.Name != rule.Alert {
				t.Errorf("%s tests %s", path, expected.Name)
			}
			found := false
			for _, alert := range expected.Alerts {
				found = found || alert.Labels["severity"] == rule.Labels["severity"]
			}
			fires, quiet = fires || found, quiet || !found
		}
	}
	return fires, quiet
}

// Each alert has a section of the document, by that name and in that order, and
// says where it is.
func TestAlertsAreDocumented(t *testing.T) {
	t.Parallel()
	contents, err := os.ReadFile(alertDocs)
	must(t, err)
	var sections []string
	bodies := map[string]string{}
	for _, section := range strings.Split(string(contents), "\n## ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		sections = append(sections, title)
		bodies[title] = body
	}
	var names []string
	for _, rule := range alerts(t) {
		names = append(names, rule.Alert)
		if want := runbooks + strings.ToLower(rule.Alert); rule.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url is %q, want %q", rule.Alert, rule.Annotations["runbook_url"], want)
		}
		for _, part := range []string{"**Means.**", "**Look.**", "**Do.**"} {
			if !strings.Contains(bodies[rule.Alert], part) {
				t.Errorf("%s: the section of %s has no %s", alertDocs, rule.Alert, part)
			}
		}
	}
	if names = slices.Compact(names); !slices.Equal(names, sections) {
		t.Errorf("%s has sections for\n%v, want\n%v", alertDocs, sections, names)
	}
}

// An expression relies on the labels that a daemon gives, and on namespace and
// pod, which whoever scrapes gives, and on no others.
func TestAlertsRelyOnFewLabels(t *testing.T) {
	t.Parallel()
	known := []string{"namespace", "pod", "provider", "secret_provider_class", "reason", "error_type", "le"}
	for _, rule := range alerts(t) {
		for _, list := range regexp.MustCompile(`\b(?:by|on) \(([^)]*)\)`).FindAllStringSubmatch(rule.Expr, -1) {
			for label := range strings.SplitSeq(list[1], ",") {
				if label = strings.TrimSpace(label); !slices.Contains(known, label) {
					t.Errorf("%s goes by the label %q, which may not be there", rule.Alert, label)
				}
			}
		}
		for _, word := range []string{"by (", "without", "ignoring", "group_left", "group_right"} {
			if has, want := strings.Contains(rule.Expr, word), word == "by ("; has != want {
				t.Errorf("%s: %q in the expression: %t, want %t: a target that is scraped twice must not break it", rule.Alert, word, has, want)
			}
		}
	}
}

// alerts are the chart's.
func alerts(t *testing.T) []prometheus.Rule {
	t.Helper()
	file, err := prometheus.ReadRules(ruleFile)
	must(t, err)
	var all []prometheus.Rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no alerts")
	}
	return all
}
