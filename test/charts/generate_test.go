package charts_test

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/charts"
)

var update = flag.Bool("update", false, "write what is generated from the charts")

// TestGenerated holds each chart's README and schema to its values.yaml.
func TestGenerated(t *testing.T) {
	t.Parallel()
	root := repository(t)
	for _, chart := range list(t) {
		if chart.Type == "library" {
			continue
		}
		t.Run(chart.Name, func(t *testing.T) {
			t.Parallel()
			files, err := chart.Generated(root)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range files {
				compare(t, "generate-charts", filepath.Join(root, "charts", name), want)
			}
		})
	}
}

// TestDeploy holds the plain manifests to the charts.
func TestDeploy(t *testing.T) {
	t.Parallel()
	helm := newHelm(t)
	files, err := helm.Deploy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(helm.Root, "deploy")
	for name, want := range files {
		compare(t, "deploy", filepath.Join(dir, name), want)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(files)), found); diff != "" {
		t.Errorf("files in deploy (-made +there):\n%s", diff)
	}
}

// TestCRDFiles holds the resources in the chart to those that are made from the
// Go types.
func TestCRDFiles(t *testing.T) {
	t.Parallel()
	root := repository(t)
	source := filepath.Join(root, "driver/api/crds")
	copied := filepath.Join(root, "charts", charts.CRDs, "files")
	want, err := filepath.Glob(filepath.Join(source, "*.yaml"))
	if err != nil || len(want) == 0 {
		t.Fatalf("CRDs in %s: %v, %v", source, want, err)
	}
	for _, file := range want {
		compare(t, "generate-charts", filepath.Join(copied, filepath.Base(file)), read(t, file))
	}
	got, err := filepath.Glob(filepath.Join(copied, "*.yaml"))
	if err != nil || len(got) != len(want) {
		t.Errorf("the chart has the files %v, want those of %v (%v)", got, want, err)
	}
}

// compare fails unless a file has the content that it should have, or writes it
// if the test is run with -update, as the make target does.
func compare(t *testing.T, target, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("run \"make %s\": %v", target, err)
		return
	}
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Errorf("%s is not current, run \"make %s\" (-there +made):\n%s", path, target, diff)
	}
}
