package extract

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// messages are all that there are for the key k. None has a place for what is in a
// document.
var messages = regexp.MustCompile(`^(` +
	`failed to unmarshal (JSON|YAML): (it is wrong( at (byte|line) [0-9]+)?|it is no (object|mapping)|it takes [0-9]+ bytes, and may take [0-9]+|` +
	`a key is there twice|a key is no text, number or boolean|<< merges what is no mapping|` +
	`with what its aliases stand for, it is too large or nested too deep)(\. Invalid (JSON|YAML) format for key extraction: store another version, ` +
	`or take extract(JSON|YAML)Key out)?|` +
	`failed to unmarshal (JSON|YAML): key ('k'|number [0-9]+ of [0-9]+ in alphabetical order): (a key is there twice|a key is no text, number or boolean|` +
	`<< merges what is no mapping|with what its aliases stand for, it is too large or nested too deep)|` +
	`key 'k' not found in (JSON|YAML): it is not there, or null|` +
	`unsupported value type for key ('k'|number [0-9]+ of [0-9]+ in alphabetical order): it has no form in JSON|` +
	`key number [0-9]+ of [0-9]+ in alphabetical order cannot be a file: the path (is empty|is absolute|holds a NUL|is not UTF-8|` +
	`is longer than 4096 bytes|starts with "\.\."|is not in clean form|has an element longer than 255 bytes)|` +
	`the (JSON|YAML) has a key that would be a file, and a directory for another key's|` +
	`the (JSON|YAML) has [0-9]+ keys, and 1000 at most can be files: name those that are wanted` +
	`)$`)

// FuzzFiles checks that nothing makes a panic, that what is made can be mounted, and
// that errors hold nothing of the contents.
func FuzzFiles(f *testing.F) {
	f.Add(false, false, []byte(both))
	f.Add(true, true, []byte(both))
	f.Add(false, false, []byte(`{"k": [1.0, {"a": "b"}], "k": "last"}`))
	f.Add(false, true, []byte(`{"a": 1, "a/b": null, "../c": {}}`))
	f.Add(true, false, []byte("x: &x {a: 0o17, <<: {b: !!binary aGVs}}\nk: [*x, *x, .inf, ~, 2001-12-14]\n"))
	f.Add(true, true, []byte("<<: [&a {k: yes}, {l: |\n  text\n}]\n? b\n: *a\n---\nc: d"))
	f.Add(true, false, []byte("&a {<<: [*a], k: *a}"))
	f.Fuzz(func(t *testing.T, isYAML, all bool, contents []byte) {
		o := params.Object{Resource: resource, Mode: 0o400, Rule: &params.Rule{Format: params.JSON, Key: "k"}}
		path := "f"
		if isYAML {
			o.Rule.Format = params.YAML
		}
		if all {
			o.Rule.Key, o.Rule.All, path = "*", true, "d/*.x"
		}
		made, err := Files(o, path, contents)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || made != nil || e.Object != resource || !messages.MatchString(e.Message) {
				t.Fatalf("%T %v, with %+v", err, err, made)
			}
			return
		}
		files := make([]sdk.File, len(made))
		for i, m := range made {
			files[i] = sdk.File{Path: m.Path, Mode: 0o400, Contents: m.Contents}
			if all != strings.HasPrefix(m.Path, "d/") || m.Mode != 0o400 {
				t.Fatalf("made %+v", m)
			}
		}
		if err := sdk.ValidateFiles(files); err != nil || !all && len(made) != 1 {
			t.Fatalf("%d files: %v", len(made), err)
		}
		if !isYAML {
			checkJSON(t, contents, made, path)
		}
	})
}

// checkJSON compares with what the library decodes.
func checkJSON(t *testing.T, contents []byte, made []File, path string) {
	t.Helper()
	var document map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(contents)))
	decoder.UseNumber()
	if err := decoder.Decode(&document); err != nil {
		t.Fatalf("made of what is no JSON: %v", err)
	}
	for _, m := range made {
		key := "k"
		if path != "f" {
			key = strings.TrimSuffix(strings.TrimPrefix(m.Path, "d/"), ".x")
		}
		got := string(m.Contents.Reveal())
		switch want := document[key].(type) {
		case string:
			if got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		case nil:
			t.Fatalf("made of null: %q", got)
		default:
			text, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			var same any
			again := json.NewDecoder(strings.NewReader(got))
			again.UseNumber()
			if err := again.Decode(&same); err != nil {
				t.Fatalf("%q: %v", got, err)
			}
			if gotText, err := json.Marshal(same); err != nil || string(gotText) != string(text) {
				t.Fatalf("%s, want %s", gotText, text)
			}
		}
	}
}
