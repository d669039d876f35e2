package rules_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/gateway/internal/policy/rules"
)

const form = `write "rules:" and a list of rules below it, or "rules: []" to allow every fetch`

func TestCompile_Refuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		source string
		want   []string
	}{
		"nothing":          {"", []string{"the file is empty: " + form}},
		"a comment":        {"# nothing\n", []string{"the file is empty: " + form}},
		"null":             {"---\n", []string{"the file is empty: " + form}},
		"no mapping":       {"- a\n", []string{"line 1: this is no mapping: " + form}},
		"no list":          {"rules:\n  a: b\n", []string{"line 2: rules is no list: " + form}},
		"no rules":         {"{}\n", []string{"line 1: there are no rules: " + form}},
		"null rules":       {"rules:\n", []string{"line 1: rules is no list: " + form}},
		"another field":    {"rule: []\nrules: []\n", []string{`line 1: unknown field "rule": there is only rules`}},
		"twice":            {"rules: []\nrules: []\n", []string{"line 2: the file has rules twice"}},
		"no YAML":          {"rules: [\n", []string{"line 1: did not find expected node content"}},
		"more documents":   {"rules: []\n---\nrules: []\n", []string{"line 2: there is a second document"}},
		"too large":        {"rules: [] #" + strings.Repeat("x", 1<<20), []string{"the file has more than 1048576 bytes"}},
		"too many":         {"rules:\n" + strings.Repeat("- {}\n", 257), []string{"line 2: there are 257 rules, and 256 at most"}},
		"no rule":          {"rules: [a]", []string{"line 1: rule 1 is no mapping of name, match, require, message, messageExpression, action"}},
		"an alias":         {"rules:\n- &a {name: a, require: 'true'}\n- *a\n", []string{"line 3: rule 2 is no mapping of name, match, require, message, messageExpression, action"}},
		"no name":          {"rules: [{require: 'true'}]", []string{"line 1: rule 1 has no name"}},
		"bad name":         {"rules: [{name: A b, require: 'true'}]", []string{`line 1: rule 1: the name "A b" is no DNS label: a to z, 0 to 9 and -, 63 at most`}},
		"same name":        {"rules:\n- {name: a, require: 'true'}\n- {name: a, require: 'true'}", []string{`line 3: rule "a": there is another of this name in line 2`}},
		"no require":       {"rules: [{name: a}]", []string{`line 1: rule "a" has no require: an expression that is true for what is allowed`}},
		"blank require":    {"rules: [{name: a, require: ' '}]", []string{"line 1: rule 1: require has to be a text", `line 1: rule "a" has no require: an expression that is true for what is allowed`}},
		"require a list":   {"rules: [{name: a, require: []}]", []string{"line 1: rule 1: require has to be a text", `line 1: rule "a" has no require: an expression that is true for what is allowed`}},
		"unknown field":    {"rules: [{name: a, require: 'true', when: x}]", []string{`line 1: rule 1: unknown field "when": there are name, match, require, message, messageExpression, action`}},
		"field twice":      {"rules: [{name: a, require: 'true', require: 'false'}]", []string{"line 1: rule 1 has require twice"}},
		"two messages":     {"rules: [{name: a, require: 'true', message: a, messageExpression: '\"b\"'}]", []string{`line 1: rule "a" has message and messageExpression: one of them goes`}},
		"long message":     {"rules: [{name: a, require: 'true', message: " + strings.Repeat("x", 1025) + "}]", []string{`line 1: rule "a": message has more than 1024 bytes`}},
		"unknown action":   {"rules: [{name: a, require: 'true', action: warn}]", []string{`line 1: rule "a": action is "warn": there are deny and audit`}},
		"typo in a field":  {requiring("pod.namespce == 'x'"), []string{`line 3: rule "the-rule": require: 1:4: undefined field 'namespce'`}},
		"no such variable": {requiring("namespce == 'x'"), []string{`line 3: rule "the-rule": require: 1:1: undeclared reference to 'namespce' (in container '')`}},
		"wrong type":       {requiring("pod.name == 1"), []string{`line 3: rule "the-rule": require: 1:10: found no matching overload for '_==_' applied to '(string, int)'`}},
		"no bool":          {requiring("pod.name"), []string{`line 3: rule "the-rule": require is of type string, and has to be bool`}},
		"dyn is no bool":   {requiring("objects[0].x"), []string{`line 3: rule "the-rule": require is of type dyn, and has to be bool`}},
		"message no text":  {"rules: [{name: a, require: 'true', messageExpression: '1'}]", []string{`line 1: rule "a": messageExpression is of type int, and has to be string`}},
		"bad regexp":       {requiring("pod.name.matches('(')"), []string{`line 3: rule "the-rule": require: 1:18: invalid matches argument`}},
		"too deep": {
			requiring("[1].all(a, [1].all(b, [1].all(c, [1].all(d, true))))"),
			[]string{`line 3: rule "the-rule": require: 1:41: comprehension exceeds nesting limit`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set, err := rules.Compile([]byte(test.source))
			var problems *rules.SourceError
			if !errors.As(err, &problems) || set != nil {
				t.Fatalf("got %v, %v, want no rules and a SourceError", set, err)
			}
			if diff := cmp.Diff(test.want, problems.Problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if err.Error() != strings.Join(test.want, "; ") {
				t.Errorf("error %q", err)
			}
		})
	}
}

// TestCompile_TellsAll: somebody who tries rules out gets one answer, not one
// problem after the other.
func TestCompile_TellsAll(t *testing.T) {
	t.Parallel()
	_, err := rules.Compile([]byte(`rules:
- name: first
  match: provider = 'vault'
  require: |
    pod.name == 'x' &&
    pod.nme == 'y' &&
    parametres.x == 'z'
- require: "1"
  actoin: deny
- name: good
  require: "true"
- name: last
  require: true
  messageExpression: pod.nam
`))
	var problems *rules.SourceError
	if !errors.As(err, &problems) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, problem := range problems.Problems {
		problem, _, _ = strings.Cut(problem, ": Syntax error")
		got = append(got, problem)
	}
	want := []string{
		`line 3: rule "first": match: 1:10`,
		`line 3: rule "first": match: 1:12`,
		`line 4: rule "first": require: 2:4: undefined field 'nme'`,
		`line 4: rule "first": require: 3:1: undeclared reference to 'parametres' (in container '')`,
		`line 8: rule 2 has no name`,
		`line 8: rule 2: require is of type int, and has to be bool`,
		`line 9: rule 2: unknown field "actoin": there are name, match, require, message, messageExpression, action`,
		`line 14: rule "last": messageExpression: 1:4: undefined field 'nam'`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// TestCompile_Survives what CEL's compiler cannot take.
func TestCompile_Survives(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{
		"pod.name.matches('^a{900}$')",
		strings.Repeat("(", 5000) + "true" + strings.Repeat(")", 5000),
		strings.Repeat("!", 9000) + "true",
		"'" + strings.Repeat("x", 20_000) + "' == ''",
		"regex.replace(pod.name, '(a{500}){2}', '') == ''",
	} {
		if _, err := rules.Compile([]byte(requiring(expression))); err != nil {
			var problems *rules.SourceError
			if !errors.As(err, &problems) {
				t.Errorf("%.20s: %v", expression, err)
			}
		}
	}
}

// TestCompile_Panics: a defect of the compiler is a problem of the rule. The
// gateway that reads it goes on.
func TestCompile_Panics(t *testing.T) {
	t.Parallel()
	err := rules.CompileWithPanic()
	if err == nil || !strings.HasPrefix(err.Error(), "line 7: rule: CEL cannot compile it: ") {
		t.Errorf("got %v", err)
	}
}

func FuzzCompile(f *testing.F) {
	for _, expression := range []string{
		"pod.namespace == 'shop'", "objects.all(o, o.secretPath.matches('^a{3}'))", "parameters.?x.orValue('') == ''",
		"lists.range(10).all(i, i < 11)", "sets.contains([1], [1])", "'%s'.format([pod.name]) == ''", "[1, 2].exists(i, v, i == v)",
	} {
		f.Add([]byte(requiring(expression)), "- {objectName: x, secretPath: y}")
	}
	f.Add([]byte("rules: [{name: a, match: 'true', require: 'true', messageExpression: '\"x\"', action: audit}]"), "array: ['objectName: x']")
	f.Fuzz(func(t *testing.T, source []byte, objects string) {
		set, err := rules.Compile(source)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, name := range set.Names() {
			if name == "" || seen[name] {
				t.Errorf("rules are named %q", set.Names())
			}
			seen[name] = true
		}
		// It may say what it likes, and comes back.
		_ = set.Check(t.Context(), request(parameter("objects", objects)))
	})
}

// FuzzObjects looks for objects that a rule does not see as they are: whatever
// is allowed has only paths that this rule allows, in every reading.
func FuzzObjects(f *testing.F) {
	for _, seed := range []string{
		"- {objectName: x, secretPath: shop/x}", "- {secretPath: shop/x, SecretPath: bank/x}", "- &a {secretPath: shop/x}\n- <<: *a",
		"array:\n- |\n  secretPath: shop/x\n", "- secretPath: !!binary c2hvcC94\n", "[]", "- {secretPath: shop/x}\n---\n- {secretPath: bank/x}",
	} {
		f.Add(seed)
	}
	set := compile(f, requiring("objects.all(o, o.secretPath.startsWith('shop/'))"))
	f.Fuzz(func(t *testing.T, objects string) {
		if set.Check(t.Context(), request(parameter("objects", objects))) != nil {
			return
		}
		for _, path := range pathsOf(t, objects) {
			if !strings.HasPrefix(path, "shop/") {
				t.Errorf("%q is allowed, and has the path %q", objects, path)
			}
		}
	})
}

func ExampleCompile() {
	_, err := rules.Compile([]byte("rules: [{name: typo, require: pod.namespce == 'shop'}]"))
	fmt.Println(err)
	// Output: line 1: rule "typo": require: 1:4: undefined field 'namespce'
}
