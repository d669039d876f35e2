package charts_test

import (
	"path/filepath"
	"testing"

	"github.com/postern-dev/postern/test/charts"
)

func TestLint(t *testing.T) {
	t.Parallel()
	helm := newHelm(t)
	for name, test := range map[string]struct{ chart, values string }{
		"umbrella":   {charts.Umbrella, "{}"},
		"everything": {charts.Umbrella, everything},
		"CRDs":       {charts.CRDs, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := helm.Command(t.Context(), test.values, "lint", "--strict", "--values", "-", filepath.Join(helm.Root, "charts", test.chart))
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPackage: the chart that a release publishes holds all its parts.
func TestPackage(t *testing.T) {
	t.Parallel()
	helm := newHelm(t)
	for _, chart := range []string{charts.Umbrella, charts.CRDs} {
		dir := t.TempDir()
		if _, err := helm.Command(t.Context(), "", "package", "--destination", dir, filepath.Join(helm.Root, "charts", chart)); err != nil {
			t.Fatal(err)
		}
		archives, err := filepath.Glob(filepath.Join(dir, chart+"-*.tgz"))
		if err != nil || len(archives) != 1 {
			t.Fatalf("archives: %v, %v", archives, err)
		}
		packed, err := helm.Command(t.Context(), "", "template", charts.Release, archives[0], "--namespace", charts.Namespace)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := charts.Decode(packed)
		if err != nil {
			t.Fatal(err)
		}
		if want := renderWith(t, charts.Options{Chart: chart}); len(objects) != len(want) {
			t.Errorf("the packed chart makes %d objects, the tree's %d", len(objects), len(want))
		}
	}
}
