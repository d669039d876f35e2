package grafana_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/docs"
	"github.com/postern-dev/postern/test/grafana"
)

const root = "../.."

// Grafana shows a dashboard with such mistakes, and shows it wrong.
func TestLayout(t *testing.T) {
	t.Parallel()
	d := read(t)
	ids, titles := map[int]string{}, map[string]bool{}
	for i, p := range d.Panels {
		if other, ok := ids[p.ID]; ok || p.ID <= 0 {
			t.Errorf("%s: id %d is that of %q, or none", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		if p.Title == "" || titles[p.Title] {
			t.Errorf("panel %d: the title %q is there twice, or empty", p.ID, p.Title)
		}
		titles[p.Title] = true
		if p := p.Position; p.W <= 0 || p.H <= 0 || p.X < 0 || p.Y < 0 || p.X+p.W > grafana.Columns {
			t.Errorf("%s: position %+v is outside of the grid", ids[d.Panels[i].ID], p)
		}
		if p.Type == "row" && (p.Position.X != 0 || p.Position.W != grafana.Columns || p.Position.H != 1 || len(p.Panels) > 0) {
			t.Errorf("row %s: position %+v, %d collapsed panels; want a line, and its panels below it", p.Title, p.Position, len(p.Panels))
		}
		for _, other := range d.Panels[:i] {
			if p.Position.Overlaps(other.Position) {
				t.Errorf("%s covers %s", p.Title, other.Title)
			}
		}
	}
	if d.UID == "" || d.SchemaVersion < 39 {
		t.Errorf("uid %q, schema %d: want a uid that links can name, and a schema of Grafana 11", d.UID, d.SchemaVersion)
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	d := read(t)
	defined := []string{"__rate_interval"}
	source := grafana.Datasource{Type: "prometheus", UID: "${datasource}"}
	for _, v := range d.Templating.List {
		defined = append(defined, v.Name)
		if v.Type == "query" && v.Datasource != source {
			t.Errorf("variable %s: data source %v", v.Name, v.Datasource)
		}
	}
	used, seen := []string{"datasource", "__rate_interval"}, map[string]string{}
	for _, p := range panels(d) {
		if p.Datasource != source || len(p.Targets) == 0 {
			t.Errorf("%s: data source %v, %d queries", p.Title, p.Datasource, len(p.Targets))
		}
		what := fmt.Sprint(p.Targets)
		if other, ok := seen[what]; ok {
			t.Errorf("%s shows what %s shows", p.Title, other)
		}
		seen[what] = p.Title
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.RefID == "" || target.Datasource != source {
				t.Errorf("%s: query %q of %v: its name is there twice, or its data source is not the one that is chosen", p.Title, target.RefID, target.Datasource)
			}
			refs[target.RefID] = true
			for _, name := range grafana.Variables(target.Expr) {
				used = append(used, name)
				if !slices.Contains(defined, name) {
					t.Errorf("%s: there is no variable %q: %s", p.Title, name, target.Expr)
				}
			}
			if !strings.Contains(target.Expr, `node=~"$node"`) && !strings.Contains(target.Expr, "ALERTS{") {
				t.Errorf("%s: the variable node makes no difference: %s", p.Title, target.Expr)
			}
		}
	}
	for _, name := range defined {
		if !slices.Contains(used, name) {
			t.Errorf("no query has the variable %q", name)
		}
	}
}

// The latencies of the daemons' own histograms lead to traces.
func TestExemplars(t *testing.T) {
	t.Parallel()
	var with []string
	for _, p := range panels(read(t)) {
		for _, target := range p.Targets {
			if target.Exemplar && !strings.Contains(target.Expr, "_bucket{") {
				t.Errorf("%s: only histograms have exemplars here: %s", p.Title, target.Expr)
			}
			if target.Exemplar != p.Targets[0].Exemplar {
				t.Errorf("%s: only some of its queries have exemplars", p.Title)
			}
			if target.Exemplar {
				with = append(with, p.Title)
			}
		}
	}
	want := []string{"Fetch latency", "Latency of stores", "Provider latency", "Publish latency", "Refresh latency"}
	slices.Sort(with)
	if diff := cmp.Diff(want, slices.Compact(with)); diff != "" {
		t.Errorf("panels with exemplars (-want +got):\n%s", diff)
	}
}

// What operators look at first is there: each of these is in some panel.
func TestMetricsAreShown(t *testing.T) {
	t.Parallel()
	all := ""
	for _, p := range panels(read(t)) {
		for _, target := range p.Targets {
			all += target.Expr + "\n"
		}
	}
	metrics, err := docs.Listed(root, "Metrics")
	if err != nil {
		t.Fatal(err)
	}
	// Not shown: what other panels show with more detail, and the plumbing.
	left := []string{
		"rotation_reconcile_total", "rotation_reconcile_error_total", "postern_gateway_policy_reloads_total", "postern_gateway_volumes",
		"postern_provider_releases_total", "http_client_request_body_size_bytes", "rpc_server_call_duration_seconds", "rpc_client_call_duration_seconds",
	}
	for _, name := range metrics {
		shown := strings.Contains(all, name)
		if shown == slices.Contains(left, name) {
			t.Errorf("%s is in the dashboard: %t; show it, or say here why not", name, shown)
		}
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	const expression = `sum(rate(a{node=~"$node", provider=~"$provider"}[$__rate_interval]))`
	if diff := cmp.Diff([]string{"node", "provider", "__rate_interval"}, grafana.Variables(expression)); diff != "" {
		t.Errorf("Variables (-want +got):\n%s", diff)
	}
	got := grafana.Expand(expression, map[string]string{"node": ".*", "provider": "vault", "__rate_interval": "1m"})
	if want := `sum(rate(a{node=~".*", provider=~"vault"}[1m]))`; got != want {
		t.Errorf("Expand = %s, want %s", got, want)
	}
}

func read(t *testing.T) grafana.Dashboard {
	t.Helper()
	d, err := grafana.Read(filepath.Join(root, grafana.Path))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 {
		t.Fatal("the dashboard is empty")
	}
	return d
}

// panels are those that show something.
func panels(d grafana.Dashboard) []grafana.Panel {
	return slices.DeleteFunc(slices.Clone(d.Panels), func(p grafana.Panel) bool { return p.Type == "row" })
}
