package params

import (
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestMode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]sdk.FileMode{
		"mode:": 0, "mode: null": 0, "mode: ~": 0, "Mode: 9": 0, `mode: ""`: 0,
		"mode: 0400": 0o400, "mode: 0o400": 0o400, "mode: 256": 0o400, "mode: 0x100": 0o400, "mode: 0b100000000": 0o400,
		"mode: 400": 0o620, "mode: 0777": 0o777, "mode: 511": 0o777, "mode: 1": 1, "mode: 0_4_0_0": 0o400,
		`mode: "0400"`: 0o400, "mode: '400'": 0o400, `mode: "0o400"`: 0o400,
	} {
		if got := parseOne(t, one(text)).Mode; got != want {
			t.Errorf("%s: %#o, want %#o", text, got, want)
		}
	}
	for text, shown := range map[string]string{
		"mode: 0": "0", "mode: 0000": "0000", `mode: "0"`: "0", `mode: "0000"`: "0000", "mode: 01000": "01000", "mode: 512": "512",
		"mode: -1": "-1", "mode: 99999999999999999999": "99999999999999999999", "mode: 4294967552": "4294967552",
		"mode: 0800": "0800", "mode: 256.0": "256.0", `mode: "-rw-------"`: "-rw-------", "mode: r": "r", `mode: "256"x`: "",
		`mode: "1000"`: "1000", `mode: "0x100"`: "0x100", `mode: " 0400"`: " 0400", "mode: true": "true", "mode: [1]": "", "mode: {a: 1}": "",
	} {
		_, err := parse(one(text))
		if strings.HasSuffix(text, "x") {
			wantViolations(t, err, "secrets: failed to unmarshal secrets attribute: yaml: ")
			continue
		}
		wantViolations(t, err, `secrets[0].mode: "`+shown+`" is not the mode of a file: write an octal number from 0001 to 0777`)
	}
}

func TestModeByAnchor(t *testing.T) {
	t.Parallel()
	spec, err := parse(`
- {resourceName: ` + name + `, fileName: a, mode: &m "0400", optional: &o true}
- {resourceName: ` + name + `, fileName: b, mode: *m, optional: *o}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range spec.Secrets {
		if o.Mode != 0o400 || !o.Optional {
			t.Errorf("%+v", o)
		}
	}
}

func TestOptional(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{"optional: true": true, "optional: false": false, "optional:": false, "Optional: true": false} {
		if got := parseOne(t, one(text)).Optional; got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	for _, text := range []string{"optional: yes", `optional: "true"`, "optional: 1", "optional: [true]", "optional: {}"} {
		_, err := parse(one(text))
		wantViolations(t, err, "secrets[0].optional: must be true or false")
	}
}

func TestRule(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Rule{
		"extractJSONKey: user":                       {Format: JSON, Key: "user"},
		"extractYAMLKey: user":                       {Format: YAML, Key: "user"},
		"extractJSONKey: 1":                          {Format: JSON, Key: "1"},
		"extractJSONKey: a.b":                        {Format: JSON, Key: "a.b"},
		`extractJSONKey: "**"`:                       {Format: JSON, Key: "**"},
		`extractJSONKey: "", extractYAMLKey: " "`:    {Format: YAML, Key: " "},
		`extractJSONKey: "*", path: "*"`:             {Format: JSON, Key: "*", All: true},
		`extractYAMLKey: "*", path: "a/x-*.b/c"`:     {Format: YAML, Key: "*", All: true},
		"extractjsonkey: ignored, extractYAMLKey: a": {Format: YAML, Key: "a"},
	} {
		if got := parseOne(t, one(text)).Rule; got == nil || *got != want {
			t.Errorf("%s: %+v", text, got)
		}
	}
	if got := parseOne(t, one(`extractJSONKey: ""`)); got.Rule != nil {
		t.Errorf("%+v", got.Rule)
	}
	if got := (&Rule{Key: "a\n" + strings.Repeat("x", 1000)}).Title(); !strings.HasPrefix(got, `a\nxxx`) || len(got) > 310 {
		t.Error(got)
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"fileName: 0644":                        "0644",
		"fileName: a/b/c":                       "a/b/c",
		"fileName: x, path: ''":                 "x",
		"path: p":                               "p",
		"fileName: /ignored, path: p":           "p",
		"fileName: '*'":                         "*",
		"fileName: a*b*c":                       "a*b*c",
		"fileName: ..., path: a..b":             "a..b",
		`fileName: " a b "`:                     " a b ",
		"fileName: 2001-12-14":                  "2001-12-14",
		"fileName: true":                        "true",
		"fileName: " + strings.Repeat("a", 255): strings.Repeat("a", 255),
	} {
		if got := parseOne(t, "- {resourceName: "+name+", "+text+"}").File; got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
	for text, want := range map[string]string{
		"fileName:":                           "fileName: is required",
		"fileName: '', path: ''":              "fileName: is required",
		"FileName: a":                         "fileName: is required",
		"fileName: /a":                        `fileName: "/a" cannot be a file: the path is absolute`,
		"fileName: a, path: /b":               `path: "/b" cannot be a file: the path is absolute`,
		"path: a/../b":                        `path: "a/../b" cannot be a file: the path is not in clean form`,
		"path: ../b":                          `path: "../b" cannot be a file: the path starts with ".."`,
		"path: a/":                            `path: "a/" cannot be a file: the path is not in clean form`,
		"path: .":                             `path: "." cannot be a file: `,
		`path: "a\0"`:                         `path: "a\x00" cannot be a file: the path holds a NUL`,
		"path: " + strings.Repeat("a", 256):   `path: "aaa`,
		"path: a, extractJSONKey: '*'":        `path: "a" must have one "*", which stands for each key of the document`,
		"path: a*b*c, extractYAMLKey: '*'":    `path: "a*b*c" must have one "*"`,
		"path: /*, extractYAMLKey: '*'":       `path: "/*" cannot be a file: the path is absolute`,
		"fileName: ../*, extractYAMLKey: '*'": `fileName: "../*" cannot be a file: `,
		"fileName: [a]":                       "",
		"fileName: {a: b}":                    "",
	} {
		_, err := parse("- {resourceName: " + name + ", " + text + "}")
		if want == "" {
			wantViolations(t, err, "secrets[0]: failed to unmarshal secrets attribute: yaml: unmarshal errors: line 1: cannot unmarshal !!")
			continue
		}
		wantViolations(t, err, "secrets[0]."+want)
	}
}

// TestFilesAreUnique has what Google's own provider takes: of two files with one path,
// one is lost.
func TestFilesAreUnique(t *testing.T) {
	t.Parallel()
	for paths, want := range map[string]string{
		"a b":         "",
		"a/b a/c":     "",
		"a/b/c a/d":   "",
		"a a":         `"a" is already the file of secrets[0].path`,
		"a/b x a/b":   `"a/b" is already the file of secrets[0].path`,
		"a a/b":       `"a" is already the file of secrets[0].path, and cannot be a directory too`,
		"a a/b/c":     `"a" is already the file of secrets[0].path, and cannot be a directory too`,
		"a/b a":       `"a" is already a directory of secrets[0].path`,
		"a/b/c a":     `"a" is already a directory of secrets[0].path`,
		"a/b/c a/b":   `"a/b" is already a directory of secrets[0].path`,
		"a/b/c a/d a": `"a" is already a directory of secrets[0].path`,
		"*a *a":       "", // the keys of two documents, side by side
		"a/* a/b":     "",
		"a/* a":       `"a" is already a directory of secrets[0].path`,
		"a/b*/c a/b":  "",
		"a a/*":       `"a" is already the file of secrets[0].path, and cannot be a directory too`,
		"a a*":        "",
		"a/*/c =a/*":  "", // the "*" of the second is one
	} {
		var b strings.Builder
		fields := strings.Fields(paths)
		for _, path := range fields {
			path, plain := strings.CutPrefix(path, "=")
			b.WriteString("- {resourceName: " + name + ", path: '" + path + "'")
			if strings.Contains(path, "*") && !plain {
				b.WriteString(", extractJSONKey: '*'")
			}
			b.WriteString("}\n")
		}
		_, err := parse(b.String())
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", paths, err)
			}
			continue
		}
		field := map[int]string{2: "secrets[1].path: ", 3: "secrets[2].path: "}[len(fields)]
		wantViolations(t, err, field+want)
	}
}

func TestClaimsNameTheField(t *testing.T) {
	t.Parallel()
	_, err := parse(`
- {resourceName: ` + name + `, fileName: d/x}
- {parent: projects/p, namePrefix: x, fileName: e/*}
- {resourceName: ` + name + `, fileName: e}
- {parent: projects/p, namePrefix: x, path: d/x/*}`)
	wantViolations(
		t, err,
		`secrets[2].fileName: "e" is already a directory of secrets[1].fileName: set another fileName`,
		`secrets[3].path: "d/x" is already the file of secrets[0].fileName, and cannot be a directory too: set another path`,
	)
}
