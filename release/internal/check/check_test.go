package check_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/release/internal/check"
	"github.com/postern-dev/postern/release/internal/git"
	"github.com/postern-dev/postern/release/internal/git/gittest"
)

const prefix = "github.com/postern-dev/postern/"

// tree is a small project in which all fits together.
func tree() map[string]string {
	return map[string]string{
		"versions.yaml": `
sets:
- {name: core, version: v0.1.0, modules: [proto, internal]}
- {name: node, version: v0.2.0, modules: [gateway]}
- {name: provider-x, version: v0.3.0, modules: [providers/x]}
- {name: charts, version: v0.4.0, charts: [charts/a], appVersion: node}
unreleased: [test]
images:
  postern-gateway: {uid: 65001, title: Gateway, description: Routes.}
  postern-provider-x: {uid: 65010, title: X, description: Serves.}
`,
		"proto/go.mod":    "module " + prefix + "proto\n",
		"internal/go.mod": "module " + prefix + "internal\n",
		"gateway/go.mod": "module " + prefix + "gateway\nrequire " + prefix + "proto v0.1.0\n" +
			"replace " + prefix + "proto => ../proto\n",
		"gateway/cmd/postern-gateway/main.go":        "package main\n",
		"providers/x/go.mod":                         "module " + prefix + "providers/x\nrequire " + prefix + "proto v0.1.0 // indirect\n",
		"providers/x/cmd/postern-provider-x/main.go": "package main\n",
		"test/go.mod":                                "module " + prefix + "test\nrequire " + prefix + "gateway v0.2.0\n",
		"test/servers/y/go.mod":                      "module " + prefix + "test/servers/y\n",
		"gateway/testdata/go.mod":                    "module ignored\n",
		"charts/a/Chart.yaml": "{name: a, version: 0.4.0, appVersion: v0.2.0, dependencies: [" +
			"{name: gateway, version: 0.4.0}, {name: provider-x, version: 0.4.0}, {name: other, version: 9.9.9}]}",
		"charts/a/charts/gateway/Chart.yaml":    "{name: gateway, version: 0.4.0, appVersion: v0.2.0}",
		"charts/a/charts/provider-x/Chart.yaml": "{name: provider-x, version: 0.4.0, appVersion: v0.3.0}",
		"charts/a/charts/lib/Chart.yaml":        "{name: lib, version: 0.4.0, type: library}",
		"charts/a/values.yaml":                  "global: {gatewayUid: 65001, providerUids: {x: 65010}}",
	}
}

func run(t *testing.T, dir string) *check.Report {
	t.Helper()
	report, err := check.Run(t.Context(), check.Config{Root: dir, Repository: "example.com/p"})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestRun_FitsTogether(t *testing.T) {
	t.Parallel()
	report := run(t, gittest.New(t, tree()).Dir)
	if len(report.Problems) > 0 {
		t.Errorf("problems: %q", report.Problems)
	}
}

func TestRun_Problems(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file, old, replacement string
		want                   []string
	}{
		"module in no set": {"versions.yaml", "proto, internal", "proto", []string{
			"module internal is in no set: add it to one in versions.yaml, or to unreleased",
		}},
		"module in two sets": {"versions.yaml", "[gateway]", "[gateway, proto]", []string{
			"module proto is in set core and in set node: it can have one version only",
		}},
		"module in a set and unreleased": {"versions.yaml", "unreleased: [test]", "unreleased: [test, proto]", []string{
			"module proto is in set core and unreleased at once",
		}},
		"module that is not there": {"versions.yaml", "[proto,", "[proto, gone,", []string{
			"set core has module gone, but there is no gone/go.mod",
		}},
		"unreleased module that is not there": {"versions.yaml", "[test]", "[test, gone]", []string{
			"unreleased has module gone, but there is no gone/go.mod",
		}},
		"other version required": {"gateway/go.mod", "v0.1.0", "v0.0.9", []string{
			"gateway/go.mod requires proto v0.0.9, but set core is v0.1.0",
		}},
		"other version required indirectly": {"providers/x/go.mod", "v0.1.0", "v0.2.0", []string{
			"providers/x/go.mod requires proto v0.2.0, but set core is v0.1.0",
		}},
		"other version required by tests": {"test/go.mod", "v0.2.0", "v0.1.0", []string{
			"test/go.mod requires gateway v0.1.0, but set node is v0.2.0",
		}},
		"unreleased module required": {"gateway/go.mod", "proto v0.1.0", "test v0.1.0", []string{
			"gateway/go.mod requires test, which is never released: nobody could build it alone",
		}},
		"version raised": {"versions.yaml", "v0.1.0", "v0.1.1", []string{
			"gateway/go.mod requires proto v0.1.0, but set core is v0.1.1",
			"providers/x/go.mod requires proto v0.1.0, but set core is v0.1.1",
		}},
		"image without an entry": {"versions.yaml", "  postern-provider-x", "  postern-provider-z", []string{
			"providers/x/cmd/postern-provider-x has no entry below images in versions.yaml",
			"image postern-provider-z has no cmd/postern-provider-z in a released module",
			"charts/a/values.yaml runs postern-provider-x as uid 65010, which is not its uid in versions.yaml",
		}},
		"chart in no set": {"versions.yaml", "charts: [charts/a]", "charts: [charts/b]", []string{
			"chart charts/a is in no set: add it to one in versions.yaml, or to unreleased",
			"set charts has chart charts/b, but there is no charts/b/Chart.yaml",
		}},
		"chart's version": {"charts/a/Chart.yaml", "name: a, version: 0.4.0", "name: a, version: 0.3.0", []string{
			"charts/a/Chart.yaml has version 0.3.0, but set charts is 0.4.0",
		}},
		"chart's appVersion": {"charts/a/Chart.yaml", "appVersion: v0.2.0", "appVersion: v0.2.1", []string{
			"charts/a/Chart.yaml has appVersion v0.2.1, but set node is v0.2.0",
		}},
		"subchart's appVersion": {"charts/a/charts/provider-x/Chart.yaml", "v0.3.0", "v0.2.0", []string{
			"charts/a/charts/provider-x/Chart.yaml has appVersion v0.2.0, but set provider-x is v0.3.0",
		}},
		"library's version": {"charts/a/charts/lib/Chart.yaml", "0.4.0", "0.5.0", []string{
			"charts/a/charts/lib/Chart.yaml has version 0.5.0, but set charts is 0.4.0",
		}},
		"dependency's version": {"charts/a/Chart.yaml", "name: gateway, version: 0.4.0", "name: gateway, version: 0.3.0", []string{
			"charts/a/Chart.yaml depends on gateway 0.3.0, which is 0.4.0",
		}},
		"gateway's uid": {"charts/a/values.yaml", "65001", "65002", []string{
			"charts/a/values.yaml runs postern-gateway as uid 65002, which is not its uid in versions.yaml",
		}},
		"provider's uid": {"charts/a/values.yaml", "65010", "65012", []string{
			"charts/a/values.yaml runs postern-provider-x as uid 65012, which is not its uid in versions.yaml",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := tree()
			if !strings.Contains(files[tt.file], tt.old) {
				t.Fatalf("%q is not in %s", tt.old, tt.file)
			}
			files[tt.file] = strings.Replace(files[tt.file], tt.old, tt.replacement, 1)
			report := run(t, gittest.New(t, files).Dir)
			if diff := cmp.Diff(tt.want, report.Problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// A release of which some tags are missing was interrupted.
func TestRun_HalfTagged(t *testing.T) {
	t.Parallel()
	repository := gittest.New(t, tree())
	head := repository.Git("rev-parse", "HEAD")
	repository.Tag("proto/v0.1.0")
	want := []string{"tags of one release are not on one commit: proto/v0.1.0 is on " + head + ", internal/v0.1.0 on none"}
	if diff := cmp.Diff(want, run(t, repository.Dir).Problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestReport_Write(t *testing.T) {
	t.Parallel()
	repository := gittest.New(t, tree())
	repository.Tag("gateway/v0.1.0", "providers/x/v0.3.0", "charts/v0.4.0")
	files := map[string]string{"charts/a/values.yaml": ""}
	for _, name := range strings.Split("abcdefghij", "") {
		files["gateway/"+name+".go"] = "package gateway\n"
	}
	repository.Write(files)
	head := repository.Git("rev-parse", "--short=12", "HEAD")
	report := run(t, repository.Dir)
	report.Problems = []string{"one", "two"}
	var out strings.Builder
	if err := report.Write(&out); err != nil {
		t.Fatal(err)
	}
	want := `core v0.1.0: to be released for the first time, 2 files
  tag       proto/v0.1.0 (to be made)
  tag       internal/v0.1.0 (to be made)
  module    github.com/postern-dev/postern/proto v0.1.0
  module    github.com/postern-dev/postern/internal v0.1.0

node v0.2.0: to be released, 10 files changed since gateway/v0.1.0
  tag       gateway/v0.2.0 (to be made)
  module    github.com/postern-dev/postern/gateway v0.2.0
  image     example.com/p/postern-gateway:v0.2.0
  changed   gateway/a.go
  changed   gateway/b.go
  changed   gateway/c.go
  changed   gateway/d.go
  changed   gateway/e.go
  changed   gateway/f.go
  changed   gateway/g.go
  changed   gateway/h.go
  changed   ... and 2 more: git diff --stat gateway/v0.1.0

provider-x v0.3.0: released, unchanged since
  tag       providers/x/v0.3.0 (exists, on HEAD)
  module    github.com/postern-dev/postern/providers/x v0.3.0
  image     example.com/p/postern-provider-x:v0.3.0

charts v0.4.0: released, 1 file changed since: raise its version to release what is new
  tag       charts/v0.4.0 (exists, on HEAD)
  chart     a-0.4.0.tgz, appVersion v0.2.0
  subchart  gateway of charts/a, appVersion v0.2.0
  subchart  provider-x of charts/a, appVersion v0.3.0
  changed   charts/a/values.yaml

These do not fit together:
  - one
  - two
`
	if diff := cmp.Diff(strings.ReplaceAll(want, "HEAD", head), out.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

// A tree without charts has none to publish.
func TestRun_NoCharts(t *testing.T) {
	t.Parallel()
	files := tree()
	for name := range files {
		if strings.HasPrefix(name, "charts/") {
			delete(files, name)
		}
	}
	files["versions.yaml"] = strings.Replace(files["versions.yaml"],
		"- {name: charts, version: v0.4.0, charts: [charts/a], appVersion: node}\n", "", 1)
	if problems := run(t, gittest.New(t, files).Dir).Problems; len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
}

func TestRun_Errors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ file, contents, want string }{
		"no versions":   {"versions.yaml", "sets: []", "there are no sets"},
		"broken go.mod": {"gateway/go.mod", "module", "gateway/go.mod"},
		"broken chart":  {"charts/a/Chart.yaml", "a: {", "charts/a/Chart.yaml"},
		"broken values": {"charts/a/values.yaml", "a: {", "charts/a/values.yaml"},
		"uid is no uid": {"charts/a/values.yaml", "global: {gatewayUid: x}", "charts/a/values.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := tree()
			files[tt.file] = tt.contents
			dir := gittest.New(t, files).Dir
			_, err := check.Run(t.Context(), check.Config{Root: dir, Repository: "example.com/p"})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestThisTree is the check of this very tree.
func TestThisTree(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	report, err := check.Run(t.Context(), check.Config{Root: root, Repository: "example.com/p"})
	if errors.Is(err, git.ErrNoRepository) {
		t.Skip("NOT TESTED that the versions of this tree fit together: it is not a git repository")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range report.Problems {
		t.Error(problem)
	}
}
