package bench_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/bench"
	"github.com/postern-dev/postern/test/build"
)

// A quick run of everything. How long something takes is for nobody to say in a
// test; how many calls it makes, and what is in a volume, is.
func TestRun(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	builder, err := build.Here(os.Getenv, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	report, err := bench.Run(t.Context(), bench.Config{Builder: builder, Quick: true, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, result := range report.Results {
		names = append(names, result.Name)
	}
	if diff := cmp.Diff(bench.Names(), names); diff != "" {
		t.Errorf("scenarios (-want +got):\n%s", diff)
	}
	type counts struct{ Upstream, Postern int }
	for _, test := range []struct {
		scenario, measure string
		want              counts
	}{
		{"storm", "provider calls", counts{8, 1}},
		{"thousand", "provider calls", counts{12, 1}},
		// Nothing may be shared: a call for each.
		{"limited", "of these, served by the store", counts{6, 6}},
		// What upstream's driver says is published is not there.
		{"empty", "published and empty", counts{3, 0}},
		{"hour", "kubelet's calls", counts{192, 192}},
		{"cpu", "requests to the API server", counts{4, 8}},
	} {
		m := measure(t, report, test.scenario, test.measure)
		if got := (counts{int(m.Upstream), int(m.Postern)}); got != test.want {
			t.Errorf("%s: %s are %+v, want %+v", test.scenario, test.measure, got, test.want)
		}
	}
	// Upstream's driver fetches although nothing is due, each time. A refresh of
	// Postern's may fall into a round.
	for _, name := range []string{"its provider calls, after the interval", "its provider calls, a moment later"} {
		if m := measure(t, report, "republish", name); m.Upstream != 4 || m.Postern > 1 {
			t.Errorf("republish: %s are %v and %v, want 4 and one at most", name, m.Upstream, m.Postern)
		}
	}
	for _, result := range report.Results {
		for _, m := range result.Measures {
			if m.Kind != bench.Count && (m.Upstream <= 0 || m.Postern <= 0) {
				t.Errorf("%s: %s: %v and %v: it was not measured", result.Name, m.Name, m.Upstream, m.Postern)
			}
		}
	}
	if hour := measure(t, report, "hour", "provider calls"); hour.Postern > hour.Upstream || hour.Postern <= 0 {
		t.Errorf("hour: %v provider calls, upstream's driver %v", hour.Postern, hour.Upstream)
	}
	checkDocument(t, report)
}

func measure(t *testing.T, report *bench.Report, scenario, name string) bench.Measure {
	t.Helper()
	for _, result := range report.Results {
		i := slices.IndexFunc(result.Measures, func(m bench.Measure) bool { return m.Name == name })
		if result.Name == scenario && i >= 0 {
			return result.Measures[i]
		}
	}
	t.Fatalf("%s does not measure %q", scenario, name)
	return bench.Measure{}
}

// checkDocument checks that the document has each scenario and says that it is
// of a quick run.
func checkDocument(t *testing.T, report *bench.Report) {
	t.Helper()
	document := report.Markdown()
	for _, result := range report.Results {
		if !strings.Contains(document, "| **"+result.Title+"** |") || !strings.Contains(document, "(`--only "+result.Name+"`). "+result.About) {
			t.Errorf("the document lacks %s", result.Name)
		}
	}
	if !strings.Contains(document, "its figures mean nothing") {
		t.Error("the document does not say that it is of a quick run")
	}
}

func TestRun_RefusesAnUnknownScenario(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	builder, err := build.Here(os.Getenv, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = bench.Run(ctx, bench.Config{Builder: builder, Only: []string{"strom"}, Progress: os.Stderr})
	if err == nil || !strings.Contains(err.Error(), `"strom"`) || !strings.Contains(err.Error(), "storm, thousand") {
		t.Errorf("Run() = %v, want it to name the scenario and those that there are", err)
	}
}
