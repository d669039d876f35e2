package crds_test

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/driver/api/crds"
)

// definition is what the test looks at.
type definition struct {
	Metadata struct{ Name string }
	Spec     struct {
		Group    string
		Scope    string
		Names    struct{ ShortNames []string }
		Versions []struct {
			Name               string
			Served             bool
			Storage            bool
			Deprecated         bool
			DeprecationWarning string
			Subresources       map[string]any
			Schema             struct{ OpenAPIV3Schema map[string]any }
		}
	}
}

func TestAll(t *testing.T) {
	t.Parallel()
	all, err := crds.All()
	if err != nil {
		t.Fatalf("All: %v", err)
	}
	shortNames := map[string]string{
		"secretproviderclasses.secrets-store.csi.x-k8s.io":          "spc",
		"secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io": "spcps",
	}
	if len(all) != len(shortNames) {
		t.Fatalf("%d definitions, want %d", len(all), len(shortNames))
	}
	for file, content := range all {
		var got definition
		if err := yaml.Unmarshal(content, &got); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		want, ok := shortNames[got.Metadata.Name]
		if !ok || len(got.Spec.Names.ShortNames) != 1 || got.Spec.Names.ShortNames[0] != want || got.Spec.Scope != "Namespaced" {
			t.Errorf("%s: got %s, %q, %s; want short name %q, namespaced", file, got.Metadata.Name, got.Spec.Names.ShortNames, got.Spec.Scope, want)
		}
		if len(got.Spec.Versions) != 2 {
			t.Fatalf("%s: %d versions, want 2", file, len(got.Spec.Versions))
		}
		for _, version := range got.Spec.Versions {
			stored := version.Name == "v1"
			if !version.Served || version.Storage != stored || version.Deprecated == stored || stored != (version.DeprecationWarning == "") {
				t.Errorf("%s: version %s: served %v, storage %v, deprecated %v, warning %q", file, version.Name,
					version.Served, version.Storage, version.Deprecated, version.DeprecationWarning)
			}
			if len(version.Subresources) != 0 {
				t.Errorf("%s: version %s has subresources; clients of the upstream driver write status through the object", file, version.Name)
			}
			refusals(t, file+" "+version.Name, version.Schema.OpenAPIV3Schema)
		}
	}
}

// refusals fails for what would refuse an object that the upstream driver's
// CRDs accept: any validation outside of conditions, which they do not have.
func refusals(t *testing.T, path string, node map[string]any) {
	t.Helper()
	for key, value := range node {
		switch key {
		case "required", "enum", "pattern", "maxLength", "minLength", "maxItems", "minItems", "minimum", "maximum", "x-kubernetes-validations":
			t.Errorf("%s has %s", path, key)
		}
		nested, ok := value.(map[string]any)
		if ok && !strings.HasSuffix(path, ".status.properties.conditions") {
			refusals(t, path+"."+key, nested)
		}
	}
}
