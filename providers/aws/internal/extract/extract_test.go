package extract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// file is a File that go-cmp prints, with its contents.
type file struct {
	Path     string
	Mode     sdk.FileMode
	Contents string
}

func filesOf(made []File) []file {
	var files []file
	for _, f := range made {
		files = append(files, file{f.Path, f.Mode, string(f.Contents.Reveal())})
	}
	return files
}

func object(rules ...params.Rule) params.Object {
	return params.Object{File: "o", Sources: []params.Source{{ID: "app/o"}}, Rules: rules}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	const contents = `{
		"user": "bob", "empty": "", "nil": null, "yes": true, "port": 5432, "one": 1.0, "big": 12345678901234567890, "huge": 1e400,
		"lines": "a\nb\u0000\"", "db": {"z": "<&>", "a": [1.50, null, {"x": false}]}, "list": ["é", 2], "none": [], "nothing": {}
	}`
	for name, tt := range map[string]struct {
		rule params.Rule
		want file
	}{
		"string":          {params.Rule{Expression: "user", File: "f"}, file{"f", 0, "bob"}},
		"raw string":      {params.Rule{Expression: "lines", File: "f"}, file{"f", 0, "a\nb\x00\""}},
		"empty string":    {params.Rule{Expression: "empty", File: "f"}, file{"f", 0, ""}},
		"boolean":         {params.Rule{Expression: "yes", File: "f"}, file{"f", 0, "true"}},
		"number":          {params.Rule{Expression: "port", File: "f"}, file{"f", 0, "5432"}},
		"fraction":        {params.Rule{Expression: "one", File: "f"}, file{"f", 0, "1.0"}},
		"many digits":     {params.Rule{Expression: "big", File: "f"}, file{"f", 0, "12345678901234567890"}},
		"large":           {params.Rule{Expression: "huge", File: "f"}, file{"f", 0, "1e400"}},
		"object":          {params.Rule{Expression: "db", File: "f"}, file{"f", 0, `{"a":[1.50,null,{"x":false}],"z":"<&>"}`}},
		"list":            {params.Rule{Expression: "list", File: "f"}, file{"f", 0, `["é",2]`}},
		"empty list":      {params.Rule{Expression: "none", File: "f"}, file{"f", 0, "[]"}},
		"empty object":    {params.Rule{Expression: "nothing", File: "f"}, file{"f", 0, "{}"}},
		"computed":        {params.Rule{Expression: "length(list)", File: "f"}, file{"f", 0, "2"}},
		"mode, directory": {params.Rule{Expression: "user", File: "d/f", Mode: 0o400}, file{"d/f", 0o400, "bob"}},
		"a star selected": {params.Rule{Expression: "list[*]", File: "f"}, file{"f", 0, `["é",2]`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := object(tt.rule)
			o.Mode = 0o640
			made, err := Files(o, "_", []byte(contents))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]file{{"o", 0o640, contents}, tt.want}, filesOf(made)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFilesWithoutRules(t *testing.T) {
	t.Parallel()
	for _, contents := range []string{"", "no JSON", "\x00\xff\xfe", `{"a": 1`} {
		made, err := Files(object(), "_", []byte(contents))
		if diff := cmp.Diff([]file{{"o", 0, contents}}, filesOf(made)); diff != "" || err != nil {
			t.Errorf("%q: %v, (-want +got):\n%s", contents, err, diff)
		}
	}
}

// TestStar is the expression as it is elsewhere: it selects the values.
func TestStar(t *testing.T) {
	t.Parallel()
	const contents = `{"a": "A"}`
	made, err := Files(object(params.Rule{Expression: "*", File: "f"}), "_", []byte(contents))
	if diff := cmp.Diff([]file{{"o", 0, contents}, {"f", 0, `["A"]`}}, filesOf(made)); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
}

func TestFilesInOrderOfRules(t *testing.T) {
	t.Parallel()
	made, err := Files(object(
		params.Rule{Expression: "b", File: "2"}, params.Rule{Expression: "@", File: "x-*", All: true}, params.Rule{Expression: "a", File: "1"},
	), "_", []byte(`{"b": "B", "a": "A"}`))
	want := []file{{"o", 0, `{"b": "B", "a": "A"}`}, {"2", 0, "B"}, {"x-a", 0, "A"}, {"x-b", 0, "B"}, {"1", 0, "A"}}
	if diff := cmp.Diff(want, filesOf(made)); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
}

func TestAllKeys(t *testing.T) {
	t.Parallel()
	const contents = `{"b": "B", "a/x": 1.0, "nil": null, "db": {"*": true, "user": "u", "/lead": [], "": "no name"}, "z": {}}`
	for name, tt := range map[string]struct {
		rule        params.Rule
		translation string
		want        []file
	}{
		"star":       {params.Rule{Expression: "*", File: "k-*", Mode: 0o400}, "_", []file{{"k-a_x", 0o400, "1.0"}, {"k-b", 0o400, "B"}, {"k-db", 0o400, `{"":"no name","*":true,"/lead":[],"user":"u"}`}, {"k-z", 0o400, "{}"}}},
		"document":   {params.Rule{Expression: "@", File: "d/*.txt"}, "-", []file{{"d/a-x.txt", 0, "1.0"}, {"d/b.txt", 0, "B"}, {"d/db.txt", 0, `{"":"no name","*":true,"/lead":[],"user":"u"}`}, {"d/z.txt", 0, "{}"}}},
		"path":       {params.Rule{Expression: "db", File: "db-*"}, "_", []file{{"db-", 0, "no name"}, {"db-*", 0, "true"}, {"db-_lead", 0, "[]"}, {"db-user", 0, "u"}}},
		"directory":  {params.Rule{Expression: "db", File: "x/db-*"}, "", []file{{"x/db-", 0, "no name"}, {"x/db-*", 0, "true"}, {"x/db-lead", 0, "[]"}, {"x/db-user", 0, "u"}}},
		"slash":      {params.Rule{Expression: `{"a/b": b}`, File: "*"}, "", []file{{"a/b", 0, "B"}}},
		"no keys":    {params.Rule{Expression: "z", File: "*"}, "_", nil},
		"made by it": {params.Rule{Expression: "{one: b, none: nil}", File: "*"}, "_", []file{{"one", 0, "B"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.rule.All = true
			made, err := Files(object(tt.rule), tt.translation, []byte(contents))
			if diff := cmp.Diff(append([]file{{"o", 0, contents}}, tt.want...), filesOf(made)); diff != "" || err != nil {
				t.Errorf("%v, (-want +got):\n%s", err, diff)
			}
		})
	}
}

// TestFilesErrors has the texts that users know, and no error with contents.
func TestFilesErrors(t *testing.T) {
	t.Parallel()
	const contents = `{"s": "canary", "nil": null, "n": 3, "keys": {"../canary": 1, "z": 2, "a": 1}, "two": {"canary/": 1, "canary": 2},
		"same": {"canary/x": 1, "canary_x": 2}, "deep": {"canary": 1, "canary/x": 2}, "o": {"o": 1}, "r": {"r": 1}}`
	for name, tt := range map[string]struct {
		rules       []params.Rule
		translation string
		contents    string
		want        string
	}{
		"no JSON": {[]params.Rule{{Expression: "s", File: "f"}}, "_", "canary", "Invalid JSON used with jmesPath in secret: app/o. Store a JSON document"},
		"absent":  {[]params.Rule{{Expression: "x.y", File: "f"}}, "_", contents, "JMES Path - x.y for object alias - f does not point to a valid object."},
		"null":    {[]params.Rule{{Expression: "nil", File: "f"}}, "_", contents, "JMES Path - nil for object alias - f does not point to a valid object."},
		"null for keys": {
			[]params.Rule{{Expression: "nil", File: "*", All: true}},
			"_", contents, "JMES Path - nil for object alias - * does not point to a valid object.",
		},
		"second rule": {
			[]params.Rule{{Expression: "s", File: "f"}, {Expression: "x", File: "g"}},
			"_", contents, "JMES Path - x for object alias - g does not point to a valid object.",
		},
		"keys of a string": {
			[]params.Rule{{Expression: "s", File: "*", All: true}},
			"_", contents, `JMES Path - s for object alias - * does not point to a JSON object, for whose keys the "*" stands`,
		},
		"syntax":   {[]params.Rule{{Expression: "a-b", File: "f"}}, "_", contents, `Invalid JMES Path: a-b. A key that holds "-" must be quoted: "a-b"`},
		"type":     {[]params.Rule{{Expression: "abs(s)", File: "f"}}, "_", contents, "Invalid JMES Path: abs(s). It cannot be evaluated: a function is given"},
		"function": {[]params.Rule{{Expression: "f(s)", File: "f"}}, "_", contents, "Invalid JMES Path: f(s). It cannot be evaluated: unknown function: f"},
		"no value": {[]params.Rule{{Expression: "&s", File: "f"}}, "_", contents, "Invalid JMES search result type for path:&s."},
		"huge": {
			[]params.Rule{{Expression: strings.Repeat("[@,@]|", 9) + "@", File: "f"}},
			"_", `"` + strings.Repeat("canary", 1000) + `"`,
			"for object alias - f: the expression selects more than 1 MiB",
		},
		"key that is no path": {
			[]params.Rule{{Expression: "keys", File: "*", All: true}},
			"", contents,
			"JMES Path - keys for object alias - * selects a key that cannot be a file, number 1 of 3 in alphabetical order: " +
				`the path starts with ".."`,
		},
		"key that is no clean path": {
			[]params.Rule{{Expression: "two", File: "*", All: true}}, "", contents, "number 2 of 2 in alphabetical order: the path is not in clean form",
		},
		"two keys of one file": {
			[]params.Rule{{Expression: "same", File: "*", All: true}},
			"_", contents,
			"JMES Path - same for object alias - * selects a key whose file is there already, or is below another",
		},
		"file and directory": {[]params.Rule{{Expression: "deep", File: "*", All: true}}, "", contents, "selects a key whose file is there already, or is below another"},
		"the object's file":  {[]params.Rule{{Expression: "o", File: "*", All: true}}, "_", contents, "selects a key whose file is there already, or is below another"},
		"a rule's file": {
			[]params.Rule{{Expression: "s", File: "r"}, {Expression: "r", File: "*", All: true}},
			"_", contents, "JMES Path - r for object alias - * selects a key whose file is",
		},
		"a later rule's file": {
			[]params.Rule{{Expression: "r", File: "*", All: true}, {Expression: "s", File: "r"}},
			"_", contents, `"r" is there already, or is below another file, made of a key for which a "*" stands: set another objectAlias`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, err := Files(object(tt.rules...), tt.translation, []byte(tt.contents))
			e, ok := errors.AsType[*Error](err)
			if !ok || made != nil || !strings.Contains(e.Error(), tt.want) {
				t.Fatalf("Files = %v, %v\nwant error %s", made, err, tt.want)
			}
			if last := tt.rules[len(tt.rules)-1]; e.Object != "app/o" || e.Rule != last.Expression {
				t.Errorf("error is of object %q, rule %q", e.Object, e.Rule)
			}
			if nothing := strings.Contains(tt.want, "does not point to a valid object"); e.NothingThere != nothing {
				t.Errorf("NothingThere = %v, want %v", e.NothingThere, nothing)
			}
			if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, "canary") {
				t.Errorf("error holds contents: %s", text)
			}
		})
	}
}

// TestFilesOfASelection checks the path that a selected object's name gives.
func TestFilesOfASelection(t *testing.T) {
	t.Parallel()
	o := params.Object{File: "a/../b", Select: &params.Select{NamePrefix: "a/"}}
	_, err := Files(o, "_", []byte("canary"))
	const want = `"a/../b" cannot be a file: the path is not in clean form`
	if e, ok := errors.AsType[*Error](err); !ok || e.Error() != want || e.Object != "namePrefix a/" || e.Rule != "" {
		t.Errorf("error = %#v, want %s", err, want)
	}
}

func TestFilesAreRedacted(t *testing.T) {
	t.Parallel()
	f := File{Path: "a/b", Contents: sdk.NewSecret([]byte("canary"))}
	var printed bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p"} {
		fmt.Fprintf(&printed, verb+" "+verb+" "+verb+"\n", f, &f, []File{f})
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&printed, nil), slog.NewJSONHandler(&printed, nil)} {
		slog.New(handler).Info("x", "file", f, "pointer", &f, "list", []File{f}, "map", map[string]File{"k": f})
	}
	encoded, err := json.Marshal(map[string]any{"f": f, "l": []File{f}, "p": &f})
	if err != nil {
		t.Fatal(err)
	}
	printed.Write(encoded)
	for _, leak := range []string{"canary", "63616e617279", "63616E617279", "99 97 110", "Y2FuYXJ5"} {
		if strings.Contains(printed.String(), leak) {
			t.Errorf("%q is printed:\n%s", leak, printed.String())
		}
	}
	if want := "{a/b 0 [redacted]}"; fmt.Sprint(f) != want {
		t.Errorf("Sprint = %s, want %s", fmt.Sprint(f), want)
	}
}

// FuzzFiles checks that no contents make a panic, or files that cannot be mounted
// together.
func FuzzFiles(f *testing.F) {
	f.Add(`{"a": "x", "b": {"c/d": 1e400, "..": null}}`, "a", "*", "*", "_")
	f.Add(`{"a": "x", "b": {"c/d": 1.0, "..": 2}}`, "b", "b", "x/*", "")
	f.Add(`[{"p": 1, "v": "x"}]`, "[?p==`1`].v | [0]", "to_string(@)", "k-*", "-")
	f.Fuzz(func(t *testing.T, contents, one, all, pattern, translation string) {
		// As Parse makes them.
		pattern = params.Translate(pattern, translation)
		if strings.Count(pattern, "*") != 1 || len([]rune(translation)) > 1 {
			return
		}
		made, err := Files(object(params.Rule{Expression: one, File: "one"}, params.Rule{Expression: all, File: pattern, All: true}),
			translation, []byte(contents))
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		paths := make([]string, 0, len(made))
		for _, f := range made {
			paths = append(paths, f.Path)
		}
		if i, problem := sdk.CheckPaths(paths); problem != "" {
			t.Fatalf("file %q: %s", paths[i], problem)
		}
	})
}
