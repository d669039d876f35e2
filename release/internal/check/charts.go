package check

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/release/internal/versions"
)

// Chart is a Helm chart of the tree.
type Chart struct {
	// Dir is its directory, Top the directory of the chart that it is part of:
	// its own if it is no subchart.
	Dir, Top                  string
	Name, Version, AppVersion string
	Library                   bool
	// Dependencies are its subcharts' versions.
	Dependencies map[string]string
}

// chartsDir is where charts are.
const chartsDir = "charts"

func findCharts(root string) ([]Chart, error) {
	dirs, err := find(root, chartsDir, "Chart.yaml")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var charts []Chart
	for _, dir := range dirs {
		chart, err := readChart(root, dir)
		if err != nil {
			return nil, err
		}
		charts = append(charts, chart)
	}
	return charts, nil
}

func readChart(root, dir string) (Chart, error) {
	file := filepath.Join(root, dir, "Chart.yaml")
	contents, err := os.ReadFile(file)
	if err != nil {
		return Chart{}, err
	}
	var read struct {
		Name         string                           `json:"name"`
		Version      string                           `json:"version"`
		AppVersion   string                           `json:"appVersion"`
		Type         string                           `json:"type"`
		Dependencies []struct{ Name, Version string } `json:"dependencies"`
	}
	if err := yaml.Unmarshal(contents, &read); err != nil {
		return Chart{}, fmt.Errorf("%s: %w", file, err)
	}
	top, _, _ := strings.Cut(dir, "/"+chartsDir+"/")
	chart := Chart{
		Dir: dir, Top: top, Name: read.Name, Version: read.Version, AppVersion: read.AppVersion,
		Library: read.Type == "library", Dependencies: map[string]string{},
	}
	for _, dependency := range read.Dependencies {
		chart.Dependencies[dependency.Name] = dependency.Version
	}
	return chart, nil
}

// chartProblems: a chart has its set's version, the appVersion of the image that
// it is for, and its subcharts as they are.
func (t *tree) chartProblems() []string {
	var problems []string
	byTop := map[string]map[string]string{} // versions by name, of charts with the same top
	for _, chart := range t.charts {
		if byTop[chart.Top] == nil {
			byTop[chart.Top] = map[string]string{}
		}
		byTop[chart.Top][chart.Name] = chart.Version
		if chart.Dir == chart.Top {
			problems = append(problems, t.membership("chart "+chart.Dir, chart.Dir)...)
		}
		if sets := t.file.SetsOf(chart.Top); len(sets) > 0 {
			problems = append(problems, t.versionProblems(chart, sets[0])...)
		}
	}
	for _, chart := range t.charts {
		for _, name := range slices.Sorted(maps.Keys(chart.Dependencies)) {
			want, ok := byTop[chart.Top][name]
			if ok && chart.Dependencies[name] != want {
				problems = append(problems, fmt.Sprintf("%s/Chart.yaml depends on %s %s, which is %s",
					chart.Dir, name, chart.Dependencies[name], want))
			}
		}
	}
	for _, set := range t.file.Sets {
		for _, dir := range set.Charts {
			if byTop[dir] == nil {
				problems = append(problems, fmt.Sprintf("set %s has chart %s, but there is no %s/Chart.yaml", set.Name, dir, dir))
			}
		}
	}
	return problems
}

func (t *tree) versionProblems(chart Chart, set *versions.Set) []string {
	var problems []string
	if want := strings.TrimPrefix(set.Version, "v"); chart.Version != want {
		problems = append(problems, fmt.Sprintf("%s/Chart.yaml has version %s, but set %s is %s", chart.Dir, chart.Version, set.Name, want))
	}
	if chart.Library {
		return problems
	}
	app := t.file.Set(set.AppVersion)
	for _, daemon := range t.daemons {
		if daemon.Name == "postern-"+chart.Name {
			app = daemon.Set
		}
	}
	if chart.AppVersion != app.Version {
		problems = append(problems, fmt.Sprintf("%s/Chart.yaml has appVersion %s, but set %s is %s",
			chart.Dir, chart.AppVersion, app.Name, app.Version))
	}
	return problems
}

// uidProblems: the charts run each image as the user that it is made for.
func (t *tree) uidProblems() ([]string, error) {
	var problems []string
	for _, chart := range t.charts {
		if chart.Dir != chart.Top {
			continue
		}
		values, err := readUIDs(filepath.Join(t.cfg.Root, chart.Dir, "values.yaml"))
		if err != nil {
			return nil, err
		}
		for _, image := range slices.Sorted(maps.Keys(values)) {
			declared, ok := t.file.Images[image]
			if !ok || *declared.UID != values[image] {
				problems = append(problems, fmt.Sprintf("%s/values.yaml runs %s as uid %d, which is not its uid in %s",
					chart.Dir, image, values[image], versions.FileName))
			}
		}
	}
	return problems, nil
}

// readUIDs returns the uids in a chart's values, by image.
func readUIDs(file string) (map[string]int, error) {
	contents, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var values struct {
		Global struct {
			GatewayUID   *int           `json:"gatewayUid"`
			ProviderUIDs map[string]int `json:"providerUids"`
		} `json:"global"`
	}
	if err := yaml.Unmarshal(contents, &values); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	uids := map[string]int{}
	if values.Global.GatewayUID != nil {
		uids["postern-gateway"] = *values.Global.GatewayUID
	}
	for name, uid := range values.Global.ProviderUIDs {
		uids["postern-provider-"+name] = uid
	}
	return uids, nil
}
