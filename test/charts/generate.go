package charts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/charts/values"
)

// Umbrella is the chart that installs all parts.
const Umbrella = "postern"

// CRDs is the chart of the custom resources.
const CRDs = "postern-crds"

// Chart is one chart of the tree.
type Chart struct {
	// Dir below charts.
	Dir string
	// Name, Type, Version and AppVersion, as its Chart.yaml says.
	Name         string
	Type         string
	Version      string
	AppVersion   string
	Dependencies []Dependency
}

// Dependency is one of a chart's.
type Dependency struct {
	Name, Version, Repository, Condition string
}

// List returns all charts.
func List(root string) ([]Chart, error) {
	var charts []Chart
	for _, pattern := range []string{"*/Chart.yaml", Umbrella + "/charts/*/Chart.yaml"} {
		files, err := filepath.Glob(filepath.Join(root, "charts", pattern))
		if err != nil {
			return nil, fmt.Errorf("look for charts: %w", err)
		}
		for _, file := range files {
			chart, err := load(root, filepath.Dir(file))
			if err != nil {
				return nil, err
			}
			charts = append(charts, chart)
		}
	}
	if len(charts) == 0 {
		return nil, fmt.Errorf("no chart below %s", filepath.Join(root, "charts"))
	}
	return charts, nil
}

func load(root, dir string) (Chart, error) {
	relative, err := filepath.Rel(filepath.Join(root, "charts"), dir)
	if err != nil {
		return Chart{}, fmt.Errorf("resolve %s: %w", dir, err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "Chart.yaml"))
	if err != nil {
		return Chart{}, fmt.Errorf("read chart %s: %w", relative, err)
	}
	chart := Chart{Dir: relative}
	if err := yaml.Unmarshal(content, &chart); err != nil {
		return Chart{}, fmt.Errorf("read chart %s: %w", relative, err)
	}
	return chart, nil
}

// Subcharts are the names of the charts that a chart consists of.
func (c Chart) Subcharts() []string {
	var names []string
	for _, dependency := range c.Dependencies {
		names = append(names, dependency.Name)
	}
	return names
}

// Generated returns the files of a chart that are made from its values.yaml, by
// their paths below charts.
func (c Chart) Generated(root string) (map[string]string, error) {
	dir := filepath.Join(root, "charts", c.Dir)
	content, err := os.ReadFile(filepath.Join(dir, "values.yaml"))
	if err != nil {
		return nil, fmt.Errorf("read the values of %s: %w", c.Dir, err)
	}
	parsed, err := values.Parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Dir, err)
	}
	schema, err := values.Schema(c.Name, parsed, c.Subcharts()...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Dir, err)
	}
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		return nil, fmt.Errorf("read the README of %s: %w", c.Dir, err)
	}
	text, err := replaceTable(string(readme), values.Table(parsed))
	if err != nil {
		return nil, fmt.Errorf("README of %s: %w", c.Dir, err)
	}
	return map[string]string{
		filepath.Join(c.Dir, "values.schema.json"): string(schema),
		filepath.Join(c.Dir, "README.md"):          text,
	}, nil
}

// Between these lines of a README stands the table of values.
const (
	tableBegin = "<!-- values: made from values.yaml by \"make generate-charts\" -->\n"
	tableEnd   = "<!-- end of values -->\n"
)

func replaceTable(readme, table string) (string, error) {
	before, rest, found := strings.Cut(readme, tableBegin)
	_, after, closed := strings.Cut(rest, tableEnd)
	if !found || !closed {
		return "", fmt.Errorf("the lines %q and %q, between which the table of values stands, are not there", tableBegin, tableEnd)
	}
	return before + tableBegin + "\n" + table + "\n" + tableEnd + after, nil
}

// merge makes one YAML document of several; later ones win.
func merge(documents []string) (string, error) {
	merged := map[string]any{}
	for _, document := range documents {
		var next map[string]any
		if err := yaml.Unmarshal([]byte(document), &next); err != nil {
			return "", fmt.Errorf("read values: %w", err)
		}
		overlay(merged, next)
	}
	encoded, err := yaml.Marshal(merged)
	if err != nil {
		return "", fmt.Errorf("write values: %w", err)
	}
	return string(encoded), nil
}

func overlay(base, next map[string]any) {
	for key, value := range next {
		inner, ok := value.(map[string]any)
		under, both := base[key].(map[string]any)
		if ok && both {
			overlay(under, inner)
			continue
		}
		base[key] = value
	}
}

// Providers are the names of the provider charts of the umbrella, without the
// prefix, sorted.
func (c Chart) Providers() []string {
	var names []string
	for _, name := range c.Subcharts() {
		if provider, ok := strings.CutPrefix(name, "provider-"); ok {
			names = append(names, provider)
		}
	}
	slices.Sort(names)
	return names
}
