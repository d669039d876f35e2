package values_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/charts/values"
)

const example = `# Everything about the image.
image:
  # -- Its name.
  repository: example/a
  # -- (Always|Never|) When to
  # pull it.
  pull: ""

# A heading, which is for readers.

# -- (list<object>) Taints.
tolerations:
  - operator: Exists
# -- (map<uid>) Users.
uids: {a: 1}
# -- (internal) Set by others.
enabled: true
`

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := values.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	want := []values.Value{
		{Path: []string{"image", "repository"}, Type: "string", Default: "example/a", Description: "Its name."},
		{Path: []string{"image", "pull"}, Type: "Always|Never|", Default: `""`, Description: "When to pull it."},
		{Path: []string{"tolerations"}, Type: "list<object>", Default: "[{operator: Exists}]", Description: "Taints."},
		{Path: []string{"uids"}, Type: "map<uid>", Default: "{a: 1}", Description: "Users."},
		{Path: []string{"enabled"}, Type: values.Internal, Default: "true", Description: "Set by others."},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for content, want := range map[string]string{
		"a: 1":                          "value a has no description",
		"# -- Something.\na: []":        "value a needs a type",
		"# -- (listt) Something.\na: 1": `value a: there is no type "listt"`,
		"a: {b: {c: x}}":                "value a.b.c has no description",
		"- a":                           "not a mapping",
		"{":                             "parse values",
	} {
		if _, err := values.Parse([]byte(content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want an error with %q", content, err, want)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	parsed, err := values.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	want := "| value | type | default | |\n|---|---|---|---|\n" +
		"| `image.repository` | string | `example/a` | Its name. |\n" +
		"| `image.pull` | Always\\|Never\\| | `\"\"` | When to pull it. |\n" +
		"| `tolerations` | list&lt;object&gt; | `[{operator: Exists}]` | Taints. |\n" +
		"| `uids` | map&lt;uid&gt; | `{a: 1}` | Users. |\n"
	if diff := cmp.Diff(want, values.Table(parsed)); diff != "" {
		t.Error(diff)
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	parsed, err := values.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := values.Schema("x", parsed, "image", "other")
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	text := map[string]any{"type": "string", "description": "Its name."}
	want := map[string]any{
		"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of chart x",
		"type": "object", "additionalProperties": false,
		"properties": map[string]any{
			// A subchart's own schema knows what else there is.
			"image": map[string]any{"type": "object", "properties": map[string]any{
				"repository": text,
				"pull":       map[string]any{"type": "string", "enum": []any{"Always", "Never", ""}, "description": "When to pull it."},
			}},
			"other":  map[string]any{"type": "object"},
			"global": map[string]any{"type": "object"},
			"tolerations": map[string]any{
				"type": "array", "items": map[string]any{"type": "object"}, "description": "Taints.",
			},
			"uids": map[string]any{
				"type": "object", "description": "Users.",
				"additionalProperties": map[string]any{"type": "integer", "minimum": float64(1)},
			},
			"enabled": map[string]any{"type": "boolean"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
