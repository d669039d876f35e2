package params

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestListViolations(t *testing.T) {
	t.Parallel()
	const failed = "secrets: failed to unmarshal secrets attribute: "
	many := func(n int) string { return strings.Repeat("- {resourceName: x, fileName: y}\n", n) }
	for name, tt := range map[string]struct{ secrets, want string }{
		"not set":         {"", "secrets: missing required 'secrets' attribute"},
		"spaces":          {" \n", "secrets: missing required 'secrets' attribute: the list is empty"},
		"comment":         {"# none", "secrets: missing required 'secrets' attribute: the list is empty"},
		"null":            {"~", "secrets: missing required 'secrets' attribute: the list is empty"},
		"empty list":      {"[]", "secrets: missing required 'secrets' attribute: the list is empty"},
		"no YAML":         {"- [", failed + "yaml: line 1: "},
		"tab":             {"- a: b\n\tc: d", failed + "yaml: line 2: "},
		"mapping":         {"array: []", failed + `yaml: unmarshal errors: it is no list: write "- " before each secret`},
		"text":            {name, failed + "yaml: unmarshal errors: it is no list"},
		"alias of nobody": {"- *a", failed + "yaml: unknown anchor 'a' referenced"},
		"too many":        {many(maxSecrets + 1), "secrets: holds 1001 secrets, and may hold 1000"},
		"too long":        {"#" + strings.Repeat("x", maxText), failed + "yaml: it takes 1048577 bytes, and may take 1048576"},
		"null item":       {"- ", "secrets[0]: failed to unmarshal secrets attribute: yaml: unmarshal errors: it is no mapping, such as resourceName: "},
		"text item":       {"- a", "secrets[0]: failed to unmarshal secrets attribute: yaml: unmarshal errors: it is no mapping"},
		"list item":       {"- [a]", "secrets[0]: failed to unmarshal secrets attribute: yaml: unmarshal errors: it is no mapping"},
		"list in itself":  {"&l [*l]", "secrets[0]: failed to unmarshal secrets attribute: yaml: unmarshal errors: it is no mapping"},
		"field twice":     {one("fileName: g"), `secrets[0]: failed to unmarshal secrets attribute: yaml: unmarshal errors: line 1: mapping key "fileName" already defined at line 1`},
		"list for text":   {one("path: [a]"), "secrets[0]: failed to unmarshal secrets attribute: yaml: unmarshal errors: line 1: cannot unmarshal !!seq into string"},
		"labels in it":    {one("labels: &x {a: *x}"), "secrets[0]: failed to unmarshal secrets attribute: yaml: unmarshal errors: line 1: cannot unmarshal !!map into string"},
		"many fields":     {one(fields(99)), failed + "yaml: line 1: a mapping has more than 100 fields"},
		"many below":      {one("x: [{" + fields(101) + "}]"), failed + "yaml: line 1: a mapping has more than 100 fields"},
		"merge of text":   {one("<<: a"), failed + "yaml: line 1: << takes one mapping, which has no << itself"},
		"merge of list":   {one("<<: [{a: b}, {c: d}]"), failed + "yaml: line 1: << takes one mapping"},
		"merge of merge":  {"- &a {<<: {x: y}}\n- {<<: *a}", failed + "yaml: line 2: << takes one mapping"},
		"merge of itself": {"- &a {<<: *a}", failed + "yaml: line 1: << takes one mapping"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(tt.secrets)
			wantViolations(t, err, tt.want)
		})
	}
}

func fields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "x%d: , ", i)
	}
	return b.String()
}

func TestLongListIsAccepted(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range maxSecrets {
		fmt.Fprintf(&b, "- {resourceName: %s, fileName: d/f%d, %s}\n", name, i, fields(98))
	}
	spec, err := parse(b.String())
	if err != nil {
		t.Fatal(err)
	}
	if got := len(spec.Secrets); got != maxSecrets {
		t.Errorf("%d objects", got)
	}
}

// TestYAML has what users' lists may be written with.
func TestYAML(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		secrets string
		files   string
	}{
		"JSON":             {`[{"resourceName": "` + name + `", "fileName": "f"}]`, "f"},
		"unknown fields":   {one("unknown: {a: [b, {c: d}]}, RESOURCENAME: x, FileName: x"), "f"},
		"second document":  {one("") + "\n---\n- nothing", "f"},
		"document markers": {"---\n" + one("") + "\n...\n", "f"},
		"alias of an item": {"- &a {resourceName: " + name + ", fileName: f}\n- {resourceName: " + name + ", fileName: g, x: *a}", "f g"},
		"alias of a name":  {"- {resourceName: &r " + name + ", fileName: f}\n- {resourceName: *r, fileName: g}", "f g"},
		"merge":            {"- &a {resourceName: " + name + ", fileName: f}\n- {fileName: g, <<: *a}\n- {<<: *a, fileName: h}", "f g h"},
		"merge in place":   {"- {<<: {resourceName: " + name + ", fileName: f}, x: y}", "f"},
		"no merge":         {one(`"<<": {path: g}`), "f"},
		"folded":           {"- resourceName: >-\n    " + name + "\n  fileName: |-\n    f", "f"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec, err := parse(tt.secrets)
			if err != nil {
				t.Fatal(err)
			}
			var files []string
			for i, o := range spec.Secrets {
				if o.Index != i || o.Name != "a" {
					t.Errorf("%+v", o)
				}
				files = append(files, o.File)
			}
			if got := strings.Join(files, " "); got != tt.files {
				t.Errorf("files %s, want %s", got, tt.files)
			}
		})
	}
}

// TestMessagesAreBounded has a text that is wrong in each of many objects.
func TestMessagesAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x/", 200)
	list := "- {resourceName: &l '" + long + "', fileName: *l, mode: *l}\n" + strings.Repeat("- {resourceName: *l, path: *l, mode: *l}\n", 800) +
		"- {resourceName: *l, path: *l, mode: *l, labels: {? *l : *l}, namePrefix: *l, parent: *l}"
	_, err := Parse(sdk.Parameters{ParameterSecrets: list, ParameterAuth: strings.Repeat(long, 1000)})
	got := violations(t, err)
	if want := 1 + 3*801 + 6; len(got) != want {
		t.Errorf("%d violations, want %d", len(got), want)
	}
	for _, text := range got {
		if len(text) > maxShown+500 {
			t.Errorf("a message has %d bytes: %s", len(text), text)
		}
	}
}

// TestAliasesAreBounded has a list that is long by what its aliases stand for.
func TestAliasesAreBounded(t *testing.T) {
	t.Parallel()
	const want = "secrets: failed to unmarshal secrets attribute: with what its aliases stand for, it takes more than 1048576 bytes"
	for _, field := range []string{
		"resourceName", "fileName", "path", "extractJSONKey", "extractYAMLKey", "parent", "namePrefix", "mode", "optional",
	} {
		list := "- {x: &l '" + strings.Repeat("x", maxText/11) + "', " + field + ": *l}\n" + strings.Repeat("- {"+field+": *l}\n", 11)
		_, err := parse(list)
		if got := violations(t, err); !strings.HasPrefix(got[len(got)-1], want) {
			t.Errorf("%s: %d violations, the last of which is %.300s", field, len(got), got[len(got)-1])
		}
	}
	_, err := parse("- {x: &l '" + strings.Repeat("x", maxText/11) + "'}\n" + strings.Repeat("- {labels: {a: *l}}\n", 11))
	if got := violations(t, err); !strings.HasPrefix(got[len(got)-1], want) {
		t.Errorf("labels: %.300s", got[len(got)-1])
	}
}

// TestAliasBomb has a few lines that would become more than fits.
func TestAliasBomb(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("- &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := range 12 {
		fmt.Fprintf(&b, "- &a%d [%s]\n", i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), ", "))
	}
	for _, field := range []string{"optional", "mode", "labels", "path", "limit", "unknown"} {
		if _, err := parse(b.String() + strings.Repeat("- {"+field+": *a12}\n", 900)); err == nil {
			t.Error("accepted " + field)
		}
	}
}
