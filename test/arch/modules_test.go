package arch_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWorkspaceListsEveryModule(t *testing.T) {
	t.Parallel()
	var work struct{ Use []struct{ DiskPath string } }
	if err := json.Unmarshal(goCommand(t, ".", "work", "edit", "-json", filepath.Join(root(t), "go.work")), &work); err != nil {
		t.Fatal(err)
	}
	var listed, want []string
	for _, use := range work.Use {
		listed = append(listed, strings.TrimPrefix(use.DiskPath, "./"))
	}
	for _, m := range ours(t) {
		want = append(want, m.Dir)
	}
	slices.Sort(listed)
	slices.Sort(want)
	if diff := cmp.Diff(want, listed); diff != "" {
		t.Errorf("go.work (-modules of the tree +listed):\n%s", diff)
	}
}

func TestModulePathIsTheDirectory(t *testing.T) {
	t.Parallel()
	for _, m := range modules(t) {
		if want := modulePath + m.Dir; m.Module.Path != want {
			t.Errorf("%s/go.mod: module %s, want %s", m.Dir, m.Module.Path, want)
		}
	}
}

// A replace directive is for a sibling and for nothing else: a fork or a pin
// would reach this repository's builds but nobody else's.
func TestReplaceDirectivesAreTheSiblings(t *testing.T) {
	t.Parallel()
	for _, m := range ours(t) {
		want, got := map[string]string{}, map[string]string{}
		for _, require := range m.Require {
			if dir, ok := strings.CutPrefix(require.Path, modulePath); ok {
				relative, err := filepath.Rel(m.Dir, dir)
				if err != nil {
					t.Fatal(err)
				}
				want[require.Path] = filepath.ToSlash(relative)
				if require.Version == "v0.0.0" {
					t.Errorf("%s requires %s v0.0.0: nobody could build it alone", m.Dir, require.Path)
				}
			}
		}
		for _, replace := range m.Replace {
			got[replace.Old.Path] = replace.New.Path
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s/go.mod: replace directives (-siblings required +found):\n%s", m.Dir, diff)
		}
		if m.Toolchain != "" {
			t.Errorf("%s/go.mod has a toolchain line: it binds whoever imports the module", m.Dir)
		}
	}
}

// One version of a dependency in all our modules, or a binary that is built with
// the workspace differs from one that is built without.
func TestModulesAgreeOnVersions(t *testing.T) {
	t.Parallel()
	versions := map[string]map[string][]string{} // dependency, version, modules
	for _, m := range ours(t) {
		for _, require := range m.Require {
			if versions[require.Path] == nil {
				versions[require.Path] = map[string][]string{}
			}
			versions[require.Path][require.Version] = append(versions[require.Path][require.Version], m.Dir)
		}
	}
	for _, dependency := range []string{
		"google.golang.org/grpc", "google.golang.org/protobuf", "go.opentelemetry.io/otel",
		"k8s.io/client-go", "k8s.io/api", "k8s.io/apimachinery", "github.com/container-storage-interface/spec",
	} {
		if len(versions[dependency]) > 1 {
			t.Errorf("%s is required in several versions: %v", dependency, versions[dependency])
		}
	}
}
