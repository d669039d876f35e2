package bench

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMeasure(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name            string
		measure         Measure
		upstream, ratio string
		target, verdict string
	}{
		{
			"a time that is met", duration("x", pair[time.Duration]{4 * time.Second, 140 * time.Millisecond}).under(150 * time.Millisecond),
			"4.00 s", "28.6×", "< 150 ms", "yes",
		},
		{
			"a time that is not less", duration("x", pair[time.Duration]{48_800 * time.Millisecond, 150 * time.Millisecond}).under(150 * time.Millisecond),
			"48.8 s", "325×", "< 150 ms", "no",
		},
		{"a short time", duration("x", pair[time.Duration]{1500, 750}), "1.50 µs", "2.00×", "", ""},
		{"a number that is met", count("x", pair[int]{1000, 1}).atMost(1), "1000", "1000×", "≤ 1", "yes"},
		{"a number that is missed", count("x", pair[int]{110, 2}).atMost(1), "110", "55.0×", "≤ 1", "no"},
		{"nothing left", count("x", pair[int]{20, 0}).atMost(0), "20", "–", "≤ 0", "yes"},
		{"nothing on both sides", count("x", pair[int]{0, 0}), "0", "1", "", ""},
		{"worse than upstream's", count("x", pair[int]{1, 2}), "1", "0.50×", "", ""},
		{"less memory", size("x", pair[int64]{38 << 20, 19 << 20}).belowUpstream(), "38.0 MiB", "2.00×", "< upstream", "yes"},
		{"as much memory", size("x", pair[int64]{38 << 20, 38 << 20}).belowUpstream(), "38.0 MiB", "1", "< upstream", "no"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := test.measure
			got := []string{m.format(m.Upstream), m.Ratio(), m.Target, m.Verdict()}
			if diff := cmp.Diff([]string{test.upstream, test.ratio, test.target, test.verdict}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReport_Missed(t *testing.T) {
	t.Parallel()
	report := &Report{Results: []Result{{
		Name: "storm", Title: "a storm",
		Measures: []Measure{
			duration("total", pair[time.Duration]{time.Second, 200 * time.Millisecond}).under(150 * time.Millisecond),
			count("calls", pair[int]{110, 1}).atMost(1),
			count("free", pair[int]{1, 2}),
		},
	}}}
	if diff := cmp.Diff([]string{"storm: total is 200 ms, not < 150 ms"}, report.Missed()); diff != "" {
		t.Errorf("Missed() (-want +got):\n%s", diff)
	}
	var printed strings.Builder
	report.Print(&printed)
	for where, text := range map[string]string{"Print": printed.String(), "Markdown": report.Markdown()} {
		if !strings.Contains(text, "1 of 2 targets are missed: storm: total is 200 ms, not < 150 ms.") {
			t.Errorf("%s does not say what is missed:\n%s", where, text)
		}
	}
	if row := "| total | 1.00 s | 200 ms | 5.00× | < 150 ms | no |\n"; !strings.Contains(report.Markdown(), row) {
		t.Errorf("the document lacks the row %s", row)
	}
}

func TestRun_Quantile(t *testing.T) {
	t.Parallel()
	r := run{took: make([]time.Duration, 110)}
	for i := range r.took {
		r.took[i] = time.Duration(i + 1)
	}
	for q, want := range map[float64]time.Duration{0: 1, .5: 55, .99: 109, 1: 110} {
		if got := r.quantile(q); got != want {
			t.Errorf("quantile(%v) of 1 to 110 = %d, want %d", q, got, want)
		}
	}
	if got := (run{}).quantile(.5); got != 0 {
		t.Errorf("quantile of nothing = %d", got)
	}
	if got := median([]time.Duration{9, 1, 5}); got != 5 {
		t.Errorf("median(9, 1, 5) = %d", got)
	}
}

func TestTraffic_Hourly(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		traffic traffic
		want    int
	}{
		{traffic{republished: 110, calls: 110}, 5280}, // each of 48 calls of 110 volumes
		{traffic{republished: 1000, calls: 25}, 132},
		{traffic{republished: 10}, 0},
	} {
		if got := test.traffic.hourly(110); got != test.want {
			t.Errorf("%+v: %d calls an hour, want %d", test.traffic, got, test.want)
		}
	}
}

func TestSide_CountCalls(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`# TYPE postern_provider_fetch_duration_seconds histogram
postern_provider_fetch_duration_seconds_bucket{protocol="v1alpha1",provider="bench",reason="OK",le="+Inf"} 100
postern_provider_fetch_duration_seconds_count{protocol="v1alpha1",provider="bench",reason="OK"} 100
postern_provider_fetch_duration_seconds_count{protocol="v1alpha1",provider="bench",reason="RATE_LIMITED"} 7
postern_provider_fetch_duration_seconds_count{protocol="provider.v1",provider="bench",reason="OK"} 1e+03
postern_provider_releases_total{provider="bench",reason="OK"} 5
`))
	}))
	t.Cleanup(server.Close)
	s := &side{metrics: strings.TrimPrefix(server.URL, "http://")}
	got, err := s.countCalls(t.Context())
	if want := (calls{all: 1107, refused: 7}); err != nil || got != want {
		t.Errorf("countCalls() = %+v, %v, want %+v", got, err, want)
	}
}
