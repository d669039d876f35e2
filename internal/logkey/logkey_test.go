package logkey_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"testing"
)

// TestKeys reads the source, so that no key can be forgotten here.
func TestKeys(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "logkey.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	snake := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := make(map[string]string)
	previous := ""
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		name := spec.Names[0].Name
		key, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case !snake.MatchString(key):
			t.Errorf("%s = %q is not in snake_case", name, key)
		case seen[key] != "":
			t.Errorf("%s and %s are both %q", name, seen[key], key)
		case name < previous:
			t.Errorf("%s is not in its alphabetical place, after %s", name, previous)
		case spec.Doc == nil:
			t.Errorf("%s has no comment", name)
		}
		seen[key], previous = name, name
		return true
	})
	if len(seen) < 30 {
		t.Errorf("found %d keys only", len(seen))
	}
}
