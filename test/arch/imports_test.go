package arch_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// rule says what a module may import. What it does not allow is refused: an
// edge that is missing here has to be argued for.
type rule struct {
	// siblings that its code may import, and those that its tests may import too.
	siblings, testSiblings []string
	// banned prefixes of import paths that nothing it builds may reach, even
	// through others, with the reason.
	banned map[string]string
}

const (
	noKubernetes = "only the driver talks to Kubernetes"
	noCloud      = "only a provider talks to a store"
	ownStore     = "a provider talks to its own kind of store alone"
)

// stores are the SDKs of the stores, by the provider that may use them.
func stores() map[string]string {
	return map[string]string{
		"github.com/hashicorp/vault": "vault",
		"github.com/openbao/openbao": "vault",
		"github.com/aws/":            "aws",
		"github.com/Azure/":          "azure",
		"cloud.google.com/go":        "gcp",
		"github.com/akeylesslabs/":   "akeyless",
	}
}

// rules is the design's table of imports.
func rules(modules []module) map[string]rule {
	table := map[string]rule{
		"proto": {
			banned: ban(noCloud, noKubernetes),
		},
		"internal": {
			banned: ban(noCloud, noKubernetes),
		},
		"providers/sdk": {
			siblings: []string{"proto", "internal"},
			banned:   ban(noCloud, noKubernetes),
		},
		"driver": {
			siblings: []string{"proto", "internal"}, testSiblings: []string{"providers/sdk"},
			banned: ban(noCloud, ""),
		},
		"gateway": {
			siblings: []string{"proto", "internal"}, testSiblings: []string{"providers/sdk"},
			banned: ban(noCloud, noKubernetes),
		},
		"release": {
			banned: ban(noCloud, noKubernetes), // it builds the daemons as a user does: by running go
		},
		"test": {
			// It talks to the daemons as others do, over sockets; some of its
			// programs are providers.
			siblings: []string{"proto", "providers/sdk", "release"},
		},
	}
	for _, m := range modules {
		name, ok := strings.CutPrefix(m.Dir, "providers/")
		if !ok || name == "sdk" {
			continue
		}
		banned := map[string]string{"k8s.io/": noKubernetes}
		for prefix, owner := range stores() {
			if owner != name {
				banned[prefix] = ownStore
			}
		}
		table[m.Dir] = rule{siblings: []string{"proto", "providers/sdk"}, banned: banned}
	}
	return table
}

func ban(cloud, kubernetes string) map[string]string {
	banned := map[string]string{}
	for prefix := range stores() {
		banned[prefix] = cloud
	}
	if kubernetes != "" { // sigs.k8s.io/yaml is a YAML parser, and allowed
		banned["k8s.io/"] = kubernetes
	}
	return banned
}

func TestImportTable(t *testing.T) {
	t.Parallel()
	all := ours(t)
	table := rules(all)
	for _, m := range all {
		t.Run(m.Dir, func(t *testing.T) {
			t.Parallel()
			rule, ok := table[m.Dir]
			if !ok {
				t.Fatalf("module %s is not in the table: say there what it may import", m.Dir)
			}
			for _, p := range packages(t, m) {
				checkSiblings(t, m, p, rule)
				checkBanned(t, p, rule)
			}
		})
	}
}

func checkSiblings(t *testing.T, m module, p goPackage, r rule) {
	t.Helper()
	check := func(imports, allowed []string, what string) {
		for _, imported := range imports {
			sibling, ok := siblingOf(imported)
			if ok && sibling != m.Dir && !slices.Contains(allowed, sibling) {
				t.Errorf("%s %s %s: module %s may import %v", p.ImportPath, what, imported, m.Dir, allowed)
			}
		}
	}
	check(p.Imports, r.siblings, "imports")
	check(slices.Concat(p.TestImports, p.XTestImports), slices.Concat(r.siblings, r.testSiblings), "imports in tests")
}

func checkBanned(t *testing.T, p goPackage, r rule) {
	t.Helper()
	for _, dependency := range p.Deps {
		for _, prefix := range slices.Sorted(maps.Keys(r.banned)) {
			if strings.HasPrefix(dependency, prefix) {
				t.Errorf("%s depends on %s: %s", p.ImportPath, dependency, r.banned[prefix])
			}
		}
	}
}

// siblingOf returns the directory of our module that a package belongs to.
func siblingOf(importPath string) (string, bool) {
	rest, ok := strings.CutPrefix(importPath, modulePath)
	if !ok {
		return "", false
	}
	first, below, _ := strings.Cut(rest, "/")
	if first == "providers" {
		name, _, _ := strings.Cut(below, "/")
		return "providers/" + name, true
	}
	return first, true
}

// Who may import the SDK of OpenTelemetry can change what every process does.
func TestOnlyTelemetryImportsTheOpenTelemetrySDK(t *testing.T) {
	t.Parallel()
	const owner = modulePath + "internal/telemetry"
	for _, m := range ours(t) {
		for _, p := range packages(t, m) {
			if p.ImportPath == owner {
				continue
			}
			for _, imported := range p.Imports {
				if strings.HasPrefix(imported, "go.opentelemetry.io/otel/sdk") || strings.HasPrefix(imported, "go.opentelemetry.io/otel/exporters") {
					t.Errorf("%s imports %s: only %s may", p.ImportPath, imported, owner)
				}
			}
		}
	}
}

// Package testing in a daemon means that test code was compiled into it.
func TestDaemonsDoNotDependOnTesting(t *testing.T) {
	t.Parallel()
	for _, m := range ours(t) {
		for _, p := range packages(t, m) {
			if p.Name == "main" && m.Dir != "test" && slices.Contains(p.Deps, "testing") {
				t.Errorf("%s depends on package testing", p.ImportPath)
			}
		}
	}
}
