package arch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-dev/postern/test/build"
)

// modulePath is what every module's path begins with.
const modulePath = "github.com/postern-dev/postern/"

// outside are the modules that go.work does not list, by their directory or the
// directory above it.
func outside() map[string]string {
	return map[string]string{
		"test/servers": "third-party servers for tests: their dependencies never meet ours",
		"tools":        "developers' tools: as above",
	}
}

// root returns the repository's root.
func root(t *testing.T) string {
	t.Helper()
	dir, err := build.FindRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// module is one go.mod.
type module struct {
	Dir    string // relative to the root, with slashes
	Module struct{ Path string }
	Go     string

	Require []struct {
		Path, Version string
	}
	Replace []struct {
		Old, New struct{ Path, Version string }
	}
	Toolchain string
}

// modules returns every module of the tree, in go.work or not.
func modules(t *testing.T) []module {
	t.Helper()
	var all []module
	walk(t, func(name string) {
		if path.Base(name) != "go.mod" {
			return
		}
		var m module
		dir := path.Dir(name)
		if err := json.Unmarshal(goCommand(t, dir, "mod", "edit", "-json"), &m); err != nil {
			t.Fatalf("go.mod of %s: %v", dir, err)
		}
		m.Dir = dir
		all = append(all, m)
	})
	if len(all) == 0 {
		t.Fatal("no module found")
	}
	return all
}

// ours returns the modules that go.work has to list.
func ours(t *testing.T) []module {
	t.Helper()
	return slices.DeleteFunc(modules(t), func(m module) bool { return isOutside(m.Dir) })
}

func isOutside(dir string) bool {
	for other := range outside() {
		if dir == other || strings.HasPrefix(dir, other+"/") {
			return true
		}
	}
	return false
}

// walk calls visit with the path of every file of the tree, relative to its
// root, but those that git or the tools own.
func walk(t *testing.T, visit func(name string)) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != top && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		relative, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(relative))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// goCommand runs go in a module as somebody who has that module alone would:
// without the workspace.
func goCommand(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = filepath.Join(root(t), dir)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("in %s: go %s: %v\n%s", dir, strings.Join(args, " "), err, stderr.String())
	}
	return output
}

// goPackage is what "go list" says of one package.
type goPackage struct {
	ImportPath, Name, Doc, Dir string

	Imports, TestImports, XTestImports, Deps []string
}

// packages lists a module's packages. Every operating system's files count.
func packages(t *testing.T, m module) []goPackage {
	t.Helper()
	output := goCommand(t, m.Dir, "list", "-json=ImportPath,Name,Doc,Dir,Imports,TestImports,XTestImports,Deps", "./...")
	decoder := json.NewDecoder(bytes.NewReader(output))
	var all []goPackage
	for {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(fmt.Errorf("go list in %s: %w", m.Dir, err))
		}
		all = append(all, p)
	}
}
