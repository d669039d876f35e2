package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// vagueNames say nothing of what is in a package, so everything ends up there.
func vagueNames() []string {
	return []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "lib", "base", "types", "constants"}
}

// generated is where code that nobody writes is.
const generated = "proto/gen/"

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	t.Parallel()
	for _, m := range ours(t) {
		for _, p := range packages(t, m) {
			if strings.Contains(p.ImportPath, "/"+generated) || (p.Name == "" && len(p.Imports) == 0) {
				continue
			}
			if len(p.Doc) == 0 && hasCode(t, p) {
				t.Errorf("%s has no package comment", p.ImportPath)
			}
		}
	}
}

// hasCode tells whether a package has more than tests.
func hasCode(t *testing.T, p goPackage) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool { return !strings.HasSuffix(file, "_test.go") })
}

func TestNoVaguePackageNames(t *testing.T) {
	t.Parallel()
	walk(t, func(name string) {
		dir := path.Dir(name)
		if path.Ext(name) == ".go" && !isOutside(dir) && slices.Contains(vagueNames(), path.Base(dir)) {
			t.Errorf("%s: a package is named after what it gives, not %q", name, path.Base(dir))
		}
	})
}

// source is a parsed Go file of ours.
type source struct {
	name  string
	files *token.FileSet
	file  *ast.File
}

// test tells whether a file is for tests alone: a test, or a package for tests
// such as providertest.
func (s source) test() bool {
	return strings.HasSuffix(s.name, "_test.go") || strings.HasSuffix(s.file.Name.Name, "test")
}

func (s source) imports(path string) bool {
	return slices.ContainsFunc(s.file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == strconv.Quote(path) })
}

func (s source) main() bool { return s.file.Name.Name == "main" }

func (s source) at(node ast.Node) string {
	position := s.files.Position(node.Pos())
	position.Filename = s.name
	return position.String()
}

// sources parses every Go file that somebody wrote.
func sources(t *testing.T) []source {
	t.Helper()
	top := root(t)
	var all []source
	walk(t, func(name string) {
		if path.Ext(name) != ".go" || strings.HasPrefix(name, generated) || isOutside(path.Dir(name)) {
			return
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, filepath.Join(top, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("parse %s: %v", name, err)
			return
		}
		if !ast.IsGenerated(file) {
			all = append(all, source{name: name, files: files, file: file})
		}
	})
	return all
}

// call returns the name of a called function, "panic" or "os.Exit".
func call(node ast.Node) string {
	expression, ok := node.(*ast.CallExpr)
	if !ok {
		return ""
	}
	switch f := expression.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if owner, ok := f.X.(*ast.Ident); ok {
			return owner.Name + "." + f.Sel.Name
		}
	}
	return ""
}

// forbidden are the calls that product code outside package main must not make.
func forbidden() map[string]string {
	return map[string]string{
		"panic":              "return an error",
		"os.Exit":            "only main ends the process",
		"log.Fatal":          "return an error; only main ends the process",
		"log.Fatalf":         "return an error; only main ends the process",
		"log.Fatalln":        "return an error; only main ends the process",
		"log.Panic":          "return an error",
		"log.Panicf":         "return an error",
		"context.Background": "take the caller's context",
		"context.TODO":       "take the caller's context",
		"slog.SetDefault":    "pass the logger",
		"slog.Default":       "pass the logger",
		"http.Handle":        "use a mux of your own",
		"http.HandleFunc":    "use a mux of your own",
	}
}

// reasoned are the forbidden calls that a file may make, with the reason.
func reasoned() map[string]map[string]string {
	return map[string]map[string]string{
		"gateway/internal/answer/answer.go": {"panic": "a reference that is counted wrong would have zeros served instead of a secret"},
		"internal/daemon/daemon.go":         {"context.Background": "it is the body of every main, and makes the process's context"},
		"internal/unixsocket/listen.go":     {"context.Background": "net.Listener's Close takes no context, and the wait is bounded"},
	}
}

func TestProductCodeMakesNoForbiddenCall(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test() || s.main() {
			continue
		}
		ast.Inspect(s.file, func(node ast.Node) bool {
			if why, ok := forbidden()[call(node)]; ok && reasoned()[s.name][call(node)] == "" {
				t.Errorf("%s: %s: %s", s.at(node), call(node), why)
			}
			return true
		})
	}
}

// A test that sleeps is slow, and fails on a machine that is slower still. With
// testing/synctest nobody sleeps: the clock is the bubble's.
func TestNobodySleeps(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test() && s.imports("testing/synctest") {
			continue
		}
		ast.Inspect(s.file, func(node ast.Node) bool {
			if call(node) == "time.Sleep" {
				t.Errorf("%s: time.Sleep: wait for a condition, a channel or ctx, or use testing/synctest", s.at(node))
			}
			return true
		})
	}
}

func TestNoInit(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, declaration := range s.file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if ok && function.Recv == nil && function.Name.Name == "init" {
				t.Errorf("%s: init(): construct it where it is needed", s.at(function))
			}
		}
	}
}

// A package variable that can change is shared by everybody who imports the
// package. Those that cannot are known by what they are made of.
func TestNoMutablePackageVariables(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, declaration := range s.file.Decls {
			group, ok := declaration.(*ast.GenDecl)
			if !ok || group.Tok != token.VAR {
				continue
			}
			for _, spec := range group.Specs {
				value, ok := spec.(*ast.ValueSpec)
				if ok && !constant(value) && !allowedVariable(s, group, value) {
					t.Errorf("%s: package variable %s can change: make it a constant, a function or a field", s.at(value), value.Names[0].Name)
				}
			}
		}
	}
}

// constant tells whether a variable is an assertion, an error or a value that
// nothing can change.
func constant(spec *ast.ValueSpec) bool {
	if !slices.ContainsFunc(spec.Names, func(name *ast.Ident) bool { return name.Name != "_" }) {
		return true
	}
	makers := []string{"errors.New", "fmt.Errorf", "regexp.MustCompile", "netip.MustParsePrefix"}
	return len(spec.Values) > 0 && !slices.ContainsFunc(spec.Values, func(value ast.Expr) bool {
		return !slices.Contains(makers, call(value))
	})
}

// allowedVariable knows the variables that the toolchain sets.
func allowedVariable(s source, group *ast.GenDecl, spec *ast.ValueSpec) bool {
	embedded := func(doc *ast.CommentGroup) bool {
		return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
	}
	if embedded(group.Doc) || embedded(spec.Doc) {
		return true
	}
	// The linker's -X writes the version, and nobody else does.
	if s.name == "internal/daemon/build.go" {
		return slices.Contains([]string{"version", "revision", "built"}, spec.Names[0].Name)
	}
	// The registration of types with Kubernetes' scheme, as every API package has it.
	scheme := []string{"SchemeBuilder", "AddToScheme", "localSchemeBuilder", "GroupVersion", "SchemeGroupVersion"}
	return strings.HasPrefix(s.name, "driver/api/") && slices.Contains(scheme, spec.Names[0].Name)
}
