package versions_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/semver"

	"github.com/postern-dev/postern/release/internal/git"
	"github.com/postern-dev/postern/release/internal/versions"
)

const valid = `
sets:
- {name: core, version: v0.1.0, modules: [internal]}
- {name: node, version: v0.2.0, modules: [driver, gateway]}
- {name: provider-x, version: v1.0.0-rc.1, modules: [providers/x]}
- {name: charts, version: v0.3.0, charts: [charts/a], appVersion: node}
unreleased: [test]
images:
  postern-driver: {uid: 0, title: Driver, description: Mounts.}
  postern-gateway: {uid: 65001, title: Gateway, description: Routes.}
`

// read reads a versions.yaml with some text replaced.
func read(t *testing.T, old, replacement string) (*versions.File, error) {
	t.Helper()
	dir := t.TempDir()
	if !strings.Contains(valid, old) {
		t.Fatalf("%q is not in the file", old)
	}
	contents := strings.Replace(valid, old, replacement, 1)
	if err := os.WriteFile(filepath.Join(dir, versions.FileName), []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
	return versions.Read(dir)
}

func TestRead(t *testing.T) {
	t.Parallel()
	file, err := read(t, "", "")
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{"driver": "node", "providers/x": "provider-x", "charts/a": "charts", "test": "", "driver/api": ""} {
		got := ""
		for _, set := range file.SetsOf(dir) {
			got += set.Name
		}
		if got != want {
			t.Errorf("SetsOf(%s) = %q, want %q", dir, got, want)
		}
	}
	for dir, want := range map[string]bool{"test": true, "test/servers/kube": true, "testing": false, "driver": false} {
		if got := file.IsUnreleased(dir); got != want {
			t.Errorf("IsUnreleased(%s) = %t", dir, got)
		}
	}
	for name, want := range map[string][]string{
		"node":       {"driver/v0.4.0", "gateway/v0.4.0"},
		"provider-x": {"providers/x/v0.4.0"},
		"charts":     {"charts/v0.4.0"},
	} {
		if diff := cmp.Diff(want, file.Set(name).Tags("v0.4.0")); diff != "" {
			t.Errorf("tags of %s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRead_Errors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ old, replacement, want string }{
		"typo":                {"unreleased:", "unrelased:", `unknown field "unrelased"`},
		"no sets":             {valid, "unreleased: []", "there are no sets"},
		"no name":             {"name: node, ", "", "it has no name"},
		"no version":          {"version: v0.2.0, ", "", `set node: version ""`},
		"without v":           {"v0.2.0", "0.2.0", `version "0.2.0": want one like v1.2.3`},
		"short version":       {"v0.2.0", "v0.2", `version "v0.2"`},
		"build metadata":      {"v0.2.0", "v0.2.0+1", `version "v0.2.0+1"`},
		"version 2":           {"v0.2.0", "v2.0.0", "path of a Go module of that version ends in /v2"},
		"set twice":           {"name: node", "name: core", "set core is there twice"},
		"nothing in it":       {", modules: [internal]", "", "neither modules nor charts"},
		"modules and charts":  {"charts: [charts/a]", "charts: [charts/a], modules: [a]", "modules and charts"},
		"appVersion unknown":  {"appVersion: node", "appVersion: none", `appVersion "none" is no set`},
		"no uid":              {"uid: 0, ", "", "image postern-driver has no uid"},
		"uid twice":           {"uid: 65001", "uid: 0", "images postern-driver and postern-gateway have the same uid 0"},
		"uid below zero":      {"uid: 65001", "uid: -1", "uid -1"},
		"image without title": {"title: Driver, ", "", "image postern-driver lacks a title"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := read(t, tt.old, tt.replacement)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), versions.FileName) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestFile_Daemons(t *testing.T) {
	t.Parallel()
	file, err := read(t, "", "")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if _, err := file.Daemons(root); err == nil {
		t.Error("a tree without commands: no error")
	}
	for _, dir := range []string{
		"providers/x/cmd/postern-provider-x", "driver/cmd/postern-driver",
		"test/cmd/postern-demo", "driver/cmd/other", "driver/cmd/postern-empty",
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(dir, "empty") {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, dir, "main.go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := file.Daemons(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []versions.Daemon{
		{Name: "postern-driver", Module: "driver", Set: file.Set("node")},
		{Name: "postern-provider-x", Module: "providers/x", Set: file.Set("provider-x")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("daemons (-want +got):\n%s", diff)
	}
}

// history is what git would say.
type history struct {
	tags    map[string]string
	last    string
	commits map[string]int
}

var _ versions.History = history{}

func (h history) Tagged(_ context.Context, tag string) (string, error) { return h.tags[tag], nil }

func (h history) LastTag(_ context.Context, prefix string) (string, error) {
	if !strings.HasPrefix(h.last, prefix+"/") {
		return "", nil
	}
	return h.last, nil
}

func (h history) CommitsSince(_ context.Context, tag string) (int, error) { return h.commits[tag], nil }

func TestSet_BuildVersion(t *testing.T) {
	t.Parallel()
	const hash = "0123456789abcdef0123456789abcdef01234567"
	commits := map[string]int{"": 100, "driver/v0.1.0": 7}
	for name, tt := range map[string]struct {
		version string
		history history
		dirty   bool
		want    string
	}{
		"before the first release": {
			version: "v0.1.0", history: history{commits: commits}, want: "v0.1.0-dev.100.g0123456789ab",
		},
		"with changes": {
			version: "v0.1.0", history: history{commits: commits}, dirty: true, want: "v0.1.0-dev.100.g0123456789ab-dirty",
		},
		"the release": {
			version: "v0.1.0",
			history: history{tags: map[string]string{"driver/v0.1.0": hash}, last: "driver/v0.1.0"}, want: "v0.1.0",
		},
		"the release with changes": {
			version: "v0.1.0", dirty: true,
			history: history{tags: map[string]string{"driver/v0.1.0": hash}, last: "driver/v0.1.0"},
			want:    "v0.1.1-dev.0.g0123456789ab-dirty",
		},
		"after the release": {
			version: "v0.1.0",
			history: history{tags: map[string]string{"driver/v0.1.0": "other"}, last: "driver/v0.1.0", commits: commits},
			want:    "v0.1.1-dev.7.g0123456789ab",
		},
		"before the next": {
			version: "v0.2.0",
			history: history{tags: map[string]string{"driver/v0.1.0": "other"}, last: "driver/v0.1.0", commits: commits},
			want:    "v0.2.0-dev.7.g0123456789ab",
		},
		"after a release candidate": {
			version: "v0.2.0-rc.1",
			history: history{tags: map[string]string{"driver/v0.2.0-rc.1": "other"}, last: "driver/v0.1.0", commits: commits},
			want:    "v0.2.0-rc.1.dev.7.g0123456789ab",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := versions.Set{Name: "node", Version: tt.version, Modules: []string{"driver", "gateway"}}
			got, err := set.BuildVersion(t.Context(), tt.history, git.Commit{Hash: hash, Dirty: tt.dirty})
			if got != tt.want || err != nil {
				t.Errorf("version = %s, %v; want %s", got, err, tt.want)
			}
			if !semver.IsValid(got) {
				t.Errorf("%s is no semantic version", got)
			}
		})
	}
}

// What is built between two releases sorts between them.
func TestVersionsSort(t *testing.T) {
	t.Parallel()
	order := []string{
		"v0.1.0-dev.9.g0123456789ab", "v0.1.0-dev.10.g0123456789ab", "v0.1.0",
		"v0.1.1-dev.1.g0123456789ab", "v0.2.0-dev.2.g0123456789ab", "v0.2.0-rc.1", "v0.2.0-rc.1.dev.3.g0123456789ab", "v0.2.0-rc.2", "v0.2.0",
	}
	if !slices.IsSortedFunc(order, semver.Compare) {
		t.Errorf("not sorted: %v", order)
	}
}
