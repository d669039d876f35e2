package charts_test

import (
	"path/filepath"
	"regexp"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/charts"
)

// TestDocumentedValues installs with each example of values in the documents, as
// their readers will.
func TestDocumentedValues(t *testing.T) {
	t.Parallel()
	root := repository(t)
	var known map[string]any
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(root, "charts", charts.Umbrella, "values.yaml"))), &known); err != nil {
		t.Fatal(err)
	}
	var documents []string
	for _, pattern := range []string{"docs/*.md", "charts/*/README.md", "charts/postern/charts/*/README.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, found...)
	}
	helm := newHelm(t)
	examples := 0
	for _, document := range documents {
		for _, block := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(read(t, document), -1) {
			if !isValues(block[1], known) {
				continue
			}
			examples++
			// Values of a part that is not installed are not looked at.
			values := []string{allProviders, block[1]}
			if _, err := helm.Render(t.Context(), charts.Options{Chart: charts.Umbrella, Values: values}); err != nil {
				t.Errorf("%s: %v, with\n%s", document, err, block[1])
			}
		}
	}
	if examples < 5 {
		t.Errorf("%d examples of values in %v, want more: are they not recognised any more?", examples, documents)
	}
	t.Logf("%d examples of values", examples)
}

// isValues tells whether a block of YAML is values of the umbrella: a mapping with
// a key that it has.
func isValues(block string, known map[string]any) bool {
	var values map[string]any
	if err := yaml.Unmarshal([]byte(block), &values); err != nil {
		return false
	}
	for key := range values {
		if _, ok := known[key]; ok {
			return true
		}
	}
	return false
}
