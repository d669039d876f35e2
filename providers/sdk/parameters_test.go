package sdk_test

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
)

func violations(t *testing.T, err error) []sdk.FieldViolation {
	t.Helper()
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Reason != sdk.ReasonInvalidParameters {
		t.Fatalf("error is %v (%T), want INVALID_PARAMETERS", err, err)
	}
	return e.Fields
}

func TestDecoder_Values(t *testing.T) {
	t.Parallel()
	d := sdk.NewDecoder(sdk.Parameters{
		"string": "s", "bool": "T", "int": "-3", "duration": "90s", "empty": "",
		"yaml": "- Name: a\n  version: 3\n  unknown: x\n- name: b\n",
	})
	var list []struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	got := []any{
		d.String("string", "def"), d.String("absent", "def"), d.String("empty", "def"), d.Required("string", ""),
		d.Bool("bool", false), d.Bool("absent", true), d.Int("int", 0), d.Int("absent", 7),
		d.Duration("duration", 0), d.Duration("absent", time.Second), d.YAML("yaml", &list), d.YAML("absent", &list),
		len(list), list[0].Name, list[0].Version, list[1].Name,
	}
	want := []any{
		"s", "def", "def", "s", true, true, -3, 7, 90 * time.Second, time.Second, true, false,
		2, "a", "3", "b",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if err := d.Err(); err != nil {
		t.Errorf("Err() = %v", err)
	}
}

func TestDecoder_Violations(t *testing.T) {
	t.Parallel()
	d := sdk.NewDecoder(sdk.Parameters{"bool": "yes", "int": "x", "duration": "5"})
	d.Required("a", "")
	d.Required("b", "is required: see the manual")
	d.Bool("bool", false)
	d.Int("int", 0)
	d.Duration("duration", 0)
	d.Violate("objects[2].name", "is %q", "odd")
	err := d.Err()
	want := []sdk.FieldViolation{
		{Field: "a", Description: "is required"},
		{Field: "b", Description: "is required: see the manual"},
		{Field: "bool", Description: `must be true or false, not "yes"`},
		{Field: "int", Description: `must be a whole number, not "x"`},
		{Field: "duration", Description: `must be a duration such as "90s" or "5m", not "5"`},
		{Field: "objects[2].name", Description: `is "odd"`},
	}
	if diff := cmp.Diff(want, violations(t, err)); diff != "" {
		t.Errorf("violations (-want +got):\n%s", diff)
	}
	const text = `invalid parameters: a: is required; b: is required: see the manual; bool: must be true or false, not "yes"; ` +
		`int: must be a whole number, not "x"; duration: must be a duration such as "90s" or "5m", not "5"; objects[2].name: is "odd"`
	if err.Error() != text {
		t.Errorf("Err() = %s\nwant    %s", err, text)
	}
}

func TestDecoder_YAMLProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"syntax", "- name: [", "is not valid YAML: line 1: did not find expected node content"},
		{"scalar", "some text", "is a string, where a list is wanted"},
		{"map", "name: x", "is a map, where a list is wanted"},
		{"field", "- name: [1]", "field name is a list, where a string is wanted"},
		{"number", "- count: many", "field count is a string, where a whole number is wanted"},
		{"mode", `- mode: "0999"`, `"0999" is not a file mode: write an octal string such as "0640", at most "0777"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var list []struct {
				Name  string       `json:"name"`
				Count int          `json:"count"`
				Mode  sdk.FileMode `json:"mode"`
			}
			d := sdk.NewDecoder(sdk.Parameters{"objects": tt.text})
			if d.YAML("objects", &list) {
				t.Error("YAML() = true")
			}
			want := []sdk.FieldViolation{{Field: "objects", Description: tt.want}}
			if diff := cmp.Diff(want, violations(t, d.Err())); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFileMode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want fs.FileMode
		ok   bool
	}{
		{`"0640"`, 0o640, true},
		{`"640"`, 0o640, true},
		{`"0o640"`, 0o640, true},
		{"0640", 0o640, true},
		{"416", 0o640, true},
		{"", 0o604, true},
		{`""`, 0o604, true},
		{"null", 0o604, true},
		{`"0777"`, 0o777, true},
		{`"01777"`, 0, false},
		{"640", 0, false}, // more than 0777
		{`"rw-r--r--"`, 0, false},
		{"-1", 0, false},
		{"1.5", 0, false},
		{"true", 0, false},
		{"[1]", 0, false},
	} {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			var v struct {
				Mode sdk.FileMode `json:"mode"`
			}
			d := sdk.NewDecoder(sdk.Parameters{"p": "mode: " + tt.text})
			if ok := d.YAML("p", &v); ok != tt.ok {
				t.Fatalf("YAML() = %t (%v), want %t", ok, d.Err(), tt.ok)
			}
			if tt.ok && v.Mode.Or(0o604) != tt.want {
				t.Errorf("mode is %o, want %o", v.Mode.Or(0o604), tt.want)
			}
		})
	}
}
