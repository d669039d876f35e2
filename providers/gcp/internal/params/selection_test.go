package params

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSelection(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Object{
		"parent: projects/p, labels: {team: a}": {
			Select: &Select{Project: "p", Labels: map[string]string{"team": "a"}, Limit: 50, FilePattern: "*"},
		},
		"parent: projects/42/locations/us-east1, namePrefix: app_, limit: 200, path: d/x-*.txt, mode: 0400, optional: true": {
			Select: &Select{Project: "42", Location: "us-east1", NamePrefix: "app_", Limit: 200, FilePattern: "d/x-*.txt"}, Mode: 0o400, Optional: true,
		},
		"parent: projects/p, labels: {team: a, tier: 1, empty: '', é-_1: ö}, namePrefix: A, limit: 1, fileName: '*', extractYAMLKey: password": {
			Select: &Select{
				Project: "p", Labels: map[string]string{"team": "a", "tier": "1", "empty": "", "é-_1": "ö"}, NamePrefix: "A", Limit: 1, FilePattern: "*",
			},
			Rule: &Rule{Format: YAML, Key: "password"},
		},
	} {
		want.Kind = Secret
		if diff := cmp.Diff(want, parseOne(t, "- {"+text+"}")); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", text, diff)
		}
	}
}

// TestSelectionTwice has an item that is an alias. Files that are there twice are found
// when the names are known.
func TestSelectionTwice(t *testing.T) {
	t.Parallel()
	spec, err := parse("- &a {parent: projects/p, namePrefix: x}\n- *a")
	if err != nil {
		t.Fatal(err)
	}
	spec.Secrets[1].Index = 0
	if diff := cmp.Diff(spec.Secrets[0], spec.Secrets[1]); diff != "" {
		t.Error(diff)
	}
}

func TestSelectionViolations(t *testing.T) {
	t.Parallel()
	const with = "parent: projects/p, labels: {a: b}, "
	for text, want := range map[string]string{
		with + "resourceName: x":                                                      "resourceName: cannot be used with parent, labels and namePrefix",
		"parent: projects/p":                                                          "parent: asks for all secrets there: set labels or namePrefix",
		"parent: projects/p, labels: {}":                                              "parent: asks for all secrets there",
		"namePrefix: a":                                                               "parent: is required with labels and namePrefix: write projects/<project>",
		"labels: {a: b}":                                                              "parent: is required",
		"parent: p, namePrefix: a":                                                    `parent: "p" is no project: write projects/<project>, or`,
		"parent: projects/p/, namePrefix: a":                                          `parent: "projects/p/" is no project`,
		"parent: folders/p, namePrefix: a":                                            "parent: \"folders/p\" is no project",
		"parent: projects/p/regions/l, namePrefix: a":                                 `parent: "projects/p/regions/l" is no project`,
		"parent: x/p/locations/l, namePrefix: a":                                      "parent: ",
		"parent: projects/p/locations/l/secrets/s, namePrefix: a":                     "parent: ",
		"parent: projects/P, namePrefix: a":                                           `parent: "P" is not a project`,
		"parent: projects/, namePrefix: a":                                            `parent: "" is not a project`,
		"parent: projects/p/locations/global, namePrefix: a":                          "parent: Invalid location: global: secrets that are not regional have no location",
		"parent: projects/p/locations/, namePrefix: a":                                "parent: Invalid location: , write one",
		"parent: projects/p/locations/a.b, namePrefix: a":                             "parent: Invalid location: a.b",
		"parent: projects/p/locations/" + strings.Repeat("l", 31) + ", namePrefix: a": "parent: Invalid location: " + strings.Repeat("l", 31) + ", location length exceeds limit",
		"parent: projects/p, namePrefix: a/b":                                         `namePrefix: "a/b" is not the beginning of a secret's name`,
		"parent: projects/p, namePrefix: a b":                                         "namePrefix: ",
		"parent: projects/p, namePrefix: " + strings.Repeat("a", 256):                 "namePrefix: ",
		with + "limit: 0":                                                             "limit: must be from 1 to 200, not 0",
		with + "limit: 201":                                                           "limit: must be from 1 to 200, not 201",
		with + "limit: -1":                                                            "limit: must be from 1 to 200, not -1",
		with + "fileName: a":                                                          `fileName: "a" must have one "*", which stands for a secret's name`,
		with + "path: '**'":                                                           `path: "**" must have one "*"`,
		with + "path: /*":                                                             `path: "/*" cannot be a file: the path is absolute`,
		with + "extractJSONKey: '*'":                                                  `extractJSONKey: "*" cannot be used with many secrets`,
		with + "extractYAMLKey: '*', path: '*'":                                       `extractYAMLKey: "*" cannot be used with many secrets`,
		with + "extractYAMLKey: a, extractJSONKey: b":                                 "extractYAMLKey: both ExtractJSONKey and ExtractYAMLKey can't be simultaneously",
		with + "mode: 0":                                                              `mode: "0" is not the mode`,
	} {
		_, err := parse("- {" + text + "}")
		wantViolations(t, err, "secrets[0]."+want)
	}
	_, err := parse("- {" + with + "limit: many}")
	wantViolations(t, err, "secrets[0]: failed to unmarshal secrets attribute: yaml: unmarshal errors: line 1: cannot unmarshal !!str `many` into int")
}

// TestLabels has what would mean something in a filter, or is nobody's label.
func TestLabels(t *testing.T) {
	t.Parallel()
	const key, value = "is not the key of a label", "is not the value of a label, which the key "
	for label, want := range map[[2]string]string{
		{"", "b"}: key, {"A", "b"}: key, {"1", "b"}: key, {"-a", "b"}: key, {"a.b", "b"}: key, {"a:b", "b"}: key, {"a b", "b"}: key,
		{"a=b OR labels.c", "b"}: key, {strings.Repeat("a", 64), "b"}: key, {"a\n", "b"}: key,
		{"a", "B"}: value, {"a", "b c"}: value, {"a", `"`}: value, {"a", "*"}: value, {"a", "b OR labels.c=d"}: value, {"a", `b\`}: value,
		{"a", strings.Repeat("b", 64)}: value, {"a", "b\n"}: value, {"a", "b/c"}: value,
	} {
		_, err := parse(fmt.Sprintf("- {parent: projects/p, labels: {%q: %q}}", label[0], label[1]))
		if err == nil {
			t.Errorf("%q is accepted", label)
			continue
		}
		if got := strings.Join(violations(t, err), "\n"); !strings.HasPrefix(got, "secrets[0].labels: ") || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%q: %s", label, got)
		}
	}
	labels := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "k%d: v, ", i)
		}
		return "- {parent: projects/p, labels: {" + b.String() + "}}"
	}
	if got := parseOne(t, labels(64)).Select.Labels; len(got) != 64 {
		t.Errorf("%d labels", len(got))
	}
	_, err := parse(labels(65))
	wantViolations(t, err, "secrets[0].labels: are 65, and a secret has at most 64")
}

func TestSelect(t *testing.T) {
	t.Parallel()
	s := &Select{Project: "p", Labels: map[string]string{"a": "b", "e": ""}, NamePrefix: "app-", FilePattern: "d/*.txt"}
	for _, tt := range []struct {
		name   string
		labels map[string]string
		want   bool
	}{
		{"app-x", map[string]string{"a": "b", "e": "", "more": "x"}, true},
		{"app-", map[string]string{"a": "b", "e": ""}, true},
		{"app", map[string]string{"a": "b", "e": ""}, false},
		{"App-x", map[string]string{"a": "b", "e": ""}, false},
		{"x-app-", map[string]string{"a": "b", "e": ""}, false},
		{"app-x", map[string]string{"a": "b"}, false},
		{"app-x", map[string]string{"a": "c", "e": ""}, false},
		{"app-x", nil, false},
	} {
		if got := s.Matches(tt.name, tt.labels); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	if got := s.File("app-*"); got != "d/app-*.txt" {
		t.Error(got)
	}
	if got := s.Resource("app-x"); got != "projects/p/secrets/app-x/versions/latest" {
		t.Error(got)
	}
	if got := (Object{Select: s}).Title(); got != "projects/p namePrefix app- labels a=b,e=" {
		t.Error(got)
	}
	s = &Select{Project: "p", Labels: map[string]string{"f": "", "e": "", "d": "", "c": "", "b": "", "a": ""}}
	if got := s.String(); got != "projects/p labels a=,b=,c=,d=,e=,f=" {
		t.Error(got)
	}
	s = &Select{Project: "p", Location: "l", NamePrefix: "x"}
	if got := s.Resource("x"); got != "projects/p/locations/l/secrets/x/versions/latest" {
		t.Error(got)
	}
	if got := s.String(); got != "projects/p/locations/l namePrefix x" {
		t.Error(got)
	}
	if !s.Matches("xy", nil) {
		t.Error("without labels, no label is wanted")
	}
}
