package gittest

// Project returns the files of a small tree of the same shape as the real one,
// whose daemons say what they were built from.
func Project() map[string]string {
	const (
		prefix  = "github.com/postern-dev/postern/"
		sibling = "go 1.26.0\nrequire " + prefix + "internal v0.1.0\nreplace " + prefix + "internal => "
		program = "package main\nimport \"" + prefix + "internal/daemon\"\nfunc main() { daemon.Main() }\n"
	)
	return map[string]string{
		"versions.yaml": `
sets:
- {name: core, version: v0.1.0, modules: [internal]}
- {name: node, version: v0.2.0, modules: [driver]}
- {name: provider-x, version: v0.3.0, modules: [providers/x]}
images:
  postern-driver: {uid: 0, title: Driver, description: Mounts.}
  postern-provider-x: {uid: 65010, title: X, description: Serves.}
`,
		".gitignore":      "/dist/",
		"go.work":         "go 1.26.0\nuse ./nothing\n", // images are built without it
		"internal/go.mod": "module " + prefix + "internal\ngo 1.26.0\n",
		"internal/daemon/daemon.go": "package daemon\nvar version, revision, built string\n" +
			"func Main() { println(version, revision, built) }\n",
		"driver/go.mod":                              "module " + prefix + "driver\n" + sibling + "../internal\n",
		"driver/cmd/postern-driver/main.go":          program,
		"providers/x/go.mod":                         "module " + prefix + "providers/x\n" + sibling + "../../internal\n",
		"providers/x/cmd/postern-provider-x/main.go": program,
	}
}
