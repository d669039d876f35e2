package extract

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
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

const resource = "projects/p/secrets/s/versions/1"

func object(format params.Format, key string) params.Object {
	return params.Object{Resource: resource, Rule: &params.Rule{Format: format, Key: key, All: key == "*"}}
}

// one returns what a key becomes.
func one(format params.Format, key, contents string) (string, error) {
	made, err := Files(object(format, key), "f", []byte(contents))
	if err != nil {
		return "", err
	}
	return string(made[0].Contents.Reveal()), nil
}

// wantError checks the text of an error, and that only what is not there is said to
// be so.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Object != resource || !strings.HasPrefix(err.Error(), text) || e.NothingThere != strings.Contains(text, "not found in") {
		t.Errorf("error = %#v, want %s", err, text)
	}
}

func TestWhole(t *testing.T) {
	t.Parallel()
	for _, contents := range []string{"", "no JSON", "\x00\xff\xfe", `{"a": 1`, "a\r\n"} {
		given := []byte(contents)
		made, err := Files(params.Object{Resource: resource, File: "ignored", Mode: 0o400}, "d/*", given)
		if diff := cmp.Diff([]file{{"d/*", 0o400, contents}}, filesOf(made)); diff != "" || err != nil {
			t.Errorf("%q: %v, (-want +got):\n%s", contents, err, diff)
			continue
		}
		if got := made[0].Contents.Reveal(); len(given) > 0 && &got[0] != &given[0] {
			t.Error("copied")
		}
	}
}

// TestPath has the names of a selection's secrets, which are known only now.
func TestPath(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 256)
	for _, o := range []params.Object{{Resource: resource}, object(params.JSON, "a"), object(params.YAML, "a")} {
		_, err := Files(o, long, []byte(`{"a": "b"}`))
		wantError(t, err, `"`+long+`" cannot be a file: the path has an element longer than 255 bytes`)
	}
	o := params.Object{Select: &params.Select{Project: "p", NamePrefix: "x"}}
	_, err := Files(o, "/", nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Object != "projects/p namePrefix x" {
		t.Errorf("%#v", err)
	}
}

// both are documents in JSON, which are YAML too.
const both = `{
	"user": "bob", "empty": "", "nil": null, "yes": true, "no": false, "port": 5432, "one": 1.0, "big": 12345678901234567890123, "exp": -1.5E+4,
	"lines": "a\nb\"\\", "é": "✓", "a.b": "dot", " ": "space", "*": "star", "": "none",
	"db": {"z": "<&>", "a": [1.50, null, {"x": false}], "e": {}, "n": "\u00e9\t"}, "list": ["é", 2, true, "3"], "nothing": [],
	"true": "t", "1": "number", "User": "Bob"
}`

func TestKey(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"user": "bob", "User": "Bob", "empty": "", "yes": "true", "no": "false", "port": "5432", "one": "1.0",
		"big": "12345678901234567890123", "exp": "-1.5E+4", "lines": "a\nb\"\\", "é": "✓", "a.b": "dot", " ": "space", "": "none",
		"list": `["é",2,true,"3"]`, "nothing": "[]", "true": "t", "1": "number",
	} {
		for _, format := range []params.Format{params.JSON, params.YAML} {
			if got, err := one(format, key, both); got != want || err != nil {
				t.Errorf("%s, %q: %q, %v, want %q", format, key, got, err, want)
			}
		}
	}
	for format, want := range map[params.Format]string{
		params.JSON: `{"z":"<&>","a":[1.50,null,{"x":false}],"e":{},"n":"\u00e9\t"}`, // as it is written
		params.YAML: `{"z":"<&>","a":[1.50,null,{"x":false}],"e":{},"n":"é\t"}`,
	} {
		if got, err := one(format, "db", both); got != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", format, got, err, want)
		}
	}
}

func TestKeyNotFound(t *testing.T) {
	t.Parallel()
	for _, format := range []params.Format{params.JSON, params.YAML} {
		for _, tt := range []struct{ key, contents string }{
			{"password", both}, {"nil", both}, {"db.z", both}, {"z", both}, {"USER", both}, {"a", "{}"}, {"a", "null"}, {"a", `{"a": null}`},
		} {
			_, err := one(format, tt.key, tt.contents)
			wantError(t, err, fmt.Sprintf("key '%s' not found in %s: it is not there, or null", tt.key, format))
		}
	}
	for _, contents := range []string{"", "---", "# nothing", "~", "b: c\na:\n", "a: ~", "b: &x\na: *x"} {
		_, err := one(params.YAML, "a", contents)
		wantError(t, err, "key 'a' not found in YAML")
	}
	_, err := one(params.JSON, "a\n"+strings.Repeat("x", 1000), "{}")
	if text := err.Error(); !strings.HasPrefix(text, `key 'a\nxxx`) || !strings.Contains(text, "xxx...' not found in JSON: ") || len(text) > 500 {
		t.Error(text)
	}
}

func TestNoDocument(t *testing.T) {
	t.Parallel()
	for contents, want := range map[string]string{
		"": "it is wrong at byte 0", "this is no JSON": "it is wrong at byte 2", `{"user": "adm`: "it is wrong at byte 13", `{"a": 1} x`: "it is wrong at byte 10",
		"[1]": "it is no object", `"a"`: "it is no object", "1": "it is no object", "\ufeff{}": "it is wrong at byte 1", `{"a": 01}`: "it is wrong at byte 8",
	} {
		_, err := one(params.JSON, "a", contents)
		wantError(t, err, "failed to unmarshal JSON: "+want+". Invalid JSON format for key extraction: store another version, or take extractJSONKey out")
	}
	for contents, want := range map[string]string{
		"a: b\n  c: d": "it is wrong at line 2", "a: [": "it is wrong at line 1", "a: *secret": "it is wrong", "a: \x00": "it is wrong", "\xff": "it is wrong",
		"- a": "it is no mapping", "text": "it is no mapping", "42": "it is no mapping",
		"a: b\na: c": "a key is there twice", "? [a]\n: b": "a key is no text, number or boolean", "<<: a": "<< merges what is no mapping",
		"<<: [{a: b}, c]": "<< merges what is no mapping", "&a {<<: *a}": "with what its aliases stand for, it is too large or nested too deep",
	} {
		_, err := one(params.YAML, "a", contents)
		wantError(t, err, "failed to unmarshal YAML: "+want+". Invalid YAML format for key extraction: store another version, or take extractYAMLKey out")
	}
}

// TestJSON has what JSON alone has.
func TestJSON(t *testing.T) {
	t.Parallel()
	for contents, want := range map[string]string{
		`{"a": "x", "a": "y"}`:             "y", // as ever with Google's own provider
		`{"a": {"b": 1, "b": 2}}`:          `{"b":1,"b":2}`,
		" { \"a\" \n:\t 1e400 \r\n} ":      "1e400",
		`{"\u0061": "\ud83d\ude00\u0000"}`: "😀\x00",
		`{"a": "\ud800"}`:                  "\ufffd",
		`{"a": [ 1 , { "b" : "c  d" } ] }`: `[1,{"b":"c  d"}]`,
		`{"a": ` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`: strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
	} {
		if got, err := one(params.JSON, "a", contents); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", contents, got, err, want)
		}
	}
}

func TestAll(t *testing.T) {
	t.Parallel()
	const contents = `{"b": "B", "a/x": 1.0, "nil": null, "db": {"user": "u"}, "*": [], "A": false}`
	for _, format := range []params.Format{params.JSON, params.YAML} {
		for path, want := range map[string][]file{
			"*":       {{"*", 0o440, "[]"}, {"A", 0o440, "false"}, {"a/x", 0o440, "1.0"}, {"b", 0o440, "B"}, {"db", 0o440, `{"user":"u"}`}},
			"d/x-*.y": {{"d/x-*.y", 0o440, "[]"}, {"d/x-A.y", 0o440, "false"}, {"d/x-a/x.y", 0o440, "1.0"}, {"d/x-b.y", 0o440, "B"}, {"d/x-db.y", 0o440, `{"user":"u"}`}},
		} {
			o := object(format, "*")
			o.Mode = 0o440
			made, err := Files(o, path, []byte(contents))
			if diff := cmp.Diff(want, filesOf(made)); diff != "" || err != nil {
				t.Errorf("%s, %s: %v, (-want +got):\n%s", format, path, err, diff)
			}
		}
		for _, nothing := range []string{"{}", "null", `{"a": null}`} {
			if made, err := Files(object(format, "*"), "*", []byte(nothing)); len(made) != 0 || err != nil {
				t.Errorf("%s, %s: %v, %v", format, nothing, made, err)
			}
		}
	}
}

func keys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `, "k%d": "v"`, i)
	}
	return "{" + strings.TrimPrefix(b.String(), ", ") + "}"
}

// TestAllErrors has keys that cannot be files, which no message may tell.
func TestAllErrors(t *testing.T) {
	t.Parallel()
	for contents, want := range map[string]string{
		`{"a": 1, "../hidden": 2}`:       `key number 1 of 2 in alphabetical order cannot be a file: the path starts with ".."`,
		`{"/hidden": 1, "/": 2}`:         "key number 1 of 2 in alphabetical order cannot be a file: the path is absolute",
		`{"a": 1, "hidden/../x": 2}`:     "key number 2 of 2 in alphabetical order cannot be a file: the path is not in clean form",
		`{"": 1}`:                        "key number 1 of 1 in alphabetical order cannot be a file: the path is empty",
		`{"hidden\u0000": 1}`:            "key number 1 of 1 in alphabetical order cannot be a file: the path holds a NUL",
		`{"hidden": 1, "hidden/x/y": 2}`: "the %s has a key that would be a file, and a directory for another key's",
		keys(maxKeys + 1):                "the %s has 1001 keys, and 1000 at most can be files",
		`["hidden"]`:                     "failed to unmarshal %s: it is no ",
	} {
		for _, format := range []params.Format{params.JSON, params.YAML} {
			text := contents
			if format == params.YAML {
				text = strings.ReplaceAll(contents, `\u0000`, `\0`)
			}
			made, err := Files(object(format, "*"), "*", []byte(text))
			wantError(t, err, strings.ReplaceAll(want, "%s", string(format)))
			if made != nil || err != nil && strings.Contains(err.Error(), "hidden") {
				t.Errorf("%v, %v", made, err)
			}
		}
	}
	_, err := Files(object(params.YAML, "*"), "*", []byte("a: b\nhidden: [.nan]"))
	wantError(t, err, "unsupported value type for key number 2 of 2 in alphabetical order: it has no form in JSON")
	_, err = Files(object(params.YAML, "*"), "*", []byte("a: b\nhidden: {<<: x}"))
	wantError(t, err, "failed to unmarshal YAML: key number 2 of 2 in alphabetical order: << merges what is no mapping")
	for _, format := range []params.Format{params.JSON, params.YAML} {
		if made, err := Files(object(format, "*"), "*", []byte(keys(maxKeys))); len(made) != maxKeys || err != nil {
			t.Errorf("%d files, %v", len(made), err)
		}
	}
}

// TestBounds has documents that are large, or become so.
func TestBounds(t *testing.T) {
	t.Parallel()
	for format, limit := range map[params.Format]int{params.JSON: maxJSON, params.YAML: maxYAML} {
		_, err := one(format, "a", `{"a": "b"}`+strings.Repeat(" ", limit-9))
		wantError(t, err, fmt.Sprintf("failed to unmarshal %s: it takes %d bytes, and may take %d", format, limit+1, limit))
		for _, brackets := range []string{"", "[]"} {
			before, after := brackets[:len(brackets)/2]+`"`, `"`+brackets[len(brackets)/2:]
			text := strings.Repeat("x", limit-7-len(before+after))
			want := text
			if brackets != "" {
				want = before + text + after
			}
			if got, err := one(format, "a", `{"a": `+before+text+after+`}`); got != want || err != nil {
				t.Errorf("%s: %d bytes, %v", format, len(got), err)
			}
		}
	}
	if made, err := Files(params.Object{}, "f", make([]byte, maxJSON+1)); len(made) != 1 || err != nil {
		t.Errorf("of contents that are not parsed: %v, %v", made, err)
	}
	bomb := func(first, next string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "x0: &x0 %s\n", first)
		for i := range 20 {
			fmt.Fprintf(&b, "x%d: &x%d %s\n", i+1, i+1, strings.ReplaceAll(next, "*", fmt.Sprintf("*x%d", i)))
		}
		return b.String() + "a: *x20\n"
	}
	for _, contents := range []string{
		bomb("x", "[*, *, *, *, *, *, *, *, *]"),
		bomb("{b: x}", "{c: *, d: *, e: *, f: *, g: *}"),
		bomb("{b: x}", "{<<: [*, *, *, *, *, *, *, *, *]}"),
		"x: &x " + strings.Repeat("x", maxYAML/2) + "\na: [" + strings.Repeat("*x, ", 1000) + "]",
		"x: &x {? " + strings.Repeat("x", maxYAML/2) + " : x}\na: [" + strings.Repeat("*x, ", 1000) + "]",
		"x: &x {}\ny: &y {<<: [" + strings.Repeat("*x, ", 10_000) + "]}\na: [" + strings.Repeat("*y, ", 1000) + "]",
	} {
		_, err := one(params.YAML, "a", contents)
		wantError(t, err, "failed to unmarshal YAML: key 'a': with what its aliases stand for, it is too large")
	}
	// Each file is small, and all of them are not.
	long := "x: &x " + strings.Repeat("x", maxYAML/2) + "\n"
	for i := range 100 {
		long += fmt.Sprintf("k%d: *x\n", i)
	}
	_, err := Files(object(params.YAML, "*"), "*", []byte(long))
	wantError(t, err, "failed to unmarshal YAML: key number ")
}

// TestNothingIsTold prints what fails and what is made in every way.
func TestNothingIsTold(t *testing.T) {
	t.Parallel()
	const hidden = "hunter2"
	for _, contents := range []string{
		`{"a": "hunter2`, `["hunter2"]`, `{"hunter2": 1, "a": hunter2}`, `{"b": "hunter2"}`, "hunter2", "a: *hunter2", "a: hunter2\n  b: hunter2", "- hunter2",
		"a: !!bool hunter2", "a: [!!int hunter2]", "a: !!hunter2 [!!float hunter2]", "hunter2: 1\nhunter2: 2", "a: {hunter2: 1, hunter2: 2}", "a: {<<: hunter2}",
		`{"../hunter2": "hunter2"}`, `{"hunter2": 1, "hunter2/x": 2}`, "a: {? {hunter2: x} : y}", "a: [.nan, hunter2]", `{"a": "hunter2"}`, "a: &hunter2 [*hunter2]",
		"a: !!binary hunter2", "a: @hunter2", "a: \"\\hunter2\"", "a: %hunter2",
	} {
		for _, o := range []params.Object{
			object(params.JSON, "a"), object(params.YAML, "a"), object(params.JSON, "*"), object(params.YAML, "*"), {Resource: resource},
		} {
			made, err := Files(o, "*", []byte(contents))
			for i := range made {
				made[i].Path = "" // is made of a key where the class says so
			}
			var log strings.Builder
			logger := slog.New(slog.NewJSONHandler(&log, nil))
			logger.Info("made", "files", made, "error", err)
			text, jsonErr := json.Marshal([]any{made, err})
			if jsonErr != nil {
				t.Fatal(jsonErr)
			}
			printed := fmt.Sprintf("%v %+v %#v", made, made, made) +
				fmt.Sprintf("%v %+v %#v %s %q %x", err, err, err, err, err, err) + log.String() + string(text)
			if strings.Contains(printed, hidden) || strings.Contains(printed, fmt.Sprintf("%x", hidden)) || strings.Contains(printed, "104 117 110") {
				t.Errorf("%q, %+v: %s", contents, o.Rule, printed)
			}
		}
	}
}
