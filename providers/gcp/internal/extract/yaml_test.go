package extract

import (
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
)

// TestYAML has what YAML alone has.
func TestYAML(t *testing.T) {
	t.Parallel()
	for contents, want := range map[string]string{
		// Texts, numbers and booleans.
		"a: text with spaces # comment": "text with spaces",
		"a: |\n  line\n  line\n":        "line\nline\n",
		"a: >-\n  folded\n  text\n":     "folded text",
		"a: 'it''s'":                    "it's",
		"a: yes":                        "yes",
		"a: True":                       "true",
		"a: FALSE":                      "false",
		"a: !!bool 'true'":              "true",
		"a: 0o17":                       "0o17",
		"a: 0x1F":                       "0x1F",
		"a: 007":                        "007",
		"a: +1_000.50":                  "+1_000.50",
		"a: .inf":                       ".inf",
		"a: 2001-12-14":                 "2001-12-14",
		"a: !!str 12":                   "12",
		"a: !!binary aGVs\n":            "hel",
		"a: !vault some":                "some",
		"a: <<":                         "<<",
		"1: number\na: b":               "b",
		"a: b\n---\nc: d":               "b",
		"%YAML 1.1\n---\na: b\n...\n":   "b",
		"\ufeffa: b":                    "b",
		// Aliases and merges.
		"x: &x v\na: *x":                        "v",
		"x: &x {b: c}\na: *x":                   `{"b":"c"}`,
		"x: &a a\n*a : v":                       "v",
		"x: &x {a: merged}\n<<: *x":             "merged",
		"x: &x {a: merged}\n<<: *x\na: own":     "own",
		"a: own\nx: &x {a: merged}\n<<: *x":     "own",
		"<<: [{b: c}, {a: first}, {a: second}]": "first",
		"<<: {<<: {a: deep}}":                   "deep",
		"<<: {<<: {a: deep}, a: near}":          "near",
		"x: &x {b: 1, c: 2}\na: {c: 3, <<: *x}": `{"c":3,"b":1}`,
		"a: {<<: {b: 1}, c: 2}":                 `{"c":2,"b":1}`,
		"a: {'<<': {b: 1}}":                     `{"<<":{"b":1}}`,
		"\"<<\": {a: b}\na: c":                  "c",
		// Values in JSON.
		"a: {b: yes, c: True, d: ~, e: , f: <>&}":                `{"b":"yes","c":true,"d":null,"e":null,"f":"<>&"}`,
		"a: [0o17, 0x1F, 017, 1_000, +1, .5, 1., -0, 1e3, 1.50]": `[15,31,15,1000,1,0.5,1,-0,1e3,1.50]`,
		"a: [18446744073709551615, 12345678901234567890123]":     `[18446744073709551615,12345678901234567890123]`,
		"a: [2001-12-14, 12:30:45, 1.2.3, !!str 1, !x y]":        `["2001-12-14","12:30:45","1.2.3","1","y"]`,
		"a: [!!binary aGVs, \"\\e\\0\\u2028\"]":                  "[\"hel\",\"\\u001b\\u0000\\u2028\"]",
		"a: {1: x, true: y, ~: z, 2001-12-14: w}":                `{"1":"x","true":"y","~":"z","2001-12-14":"w"}`,
		"a:\n- b\n- - c\n  - d: e\n":                             `["b",["c",{"d":"e"}]]`,
	} {
		if got, err := one(params.YAML, "a", contents); got != want || err != nil {
			t.Errorf("%s\n%q, %v, want %q", contents, got, err, want)
		}
	}
}

func TestYAMLValueErrors(t *testing.T) {
	t.Parallel()
	const unsupported = "unsupported value type for key 'a': it has no form in JSON"
	const unmarshal = "failed to unmarshal YAML: key 'a': "
	for contents, want := range map[string]string{
		"a: [.inf]":                unsupported,
		"a: [-.INF]":               unsupported,
		"a: [.nan]":                unsupported,
		"a: [!!int x]":             unsupported,
		"a: !!bool x":              unsupported,
		"a: [!!binary '*']":        unsupported,
		"a: !!binary '*'":          unsupported,
		"a: [!!binary /w==]":       unsupported,
		"a: {b: {c: 1, c: 2}}":     unmarshal + "a key is there twice",
		"a: [{[b]: c}]":            unmarshal + "a key is no text",
		"a: {<<: b}":               unmarshal + "<< merges what is no mapping",
		"a: &a [*a]":               unmarshal + "with what its aliases stand for, it is too large",
		"a: &a {b: *a}":            unmarshal + "with what its aliases stand for, it is too large",
		"a: &a {<<: *a}":           unmarshal + "with what its aliases stand for, it is too large",
		"a: &a {<<: [*a, *a, *a]}": unmarshal + "with what its aliases stand for, it is too large",
		"a: " + strings.Repeat("{<<: ", maxDepth+2) + "{}" + strings.Repeat("}", maxDepth+2): unmarshal + "with what its aliases stand for, it is too large or nested too deep",
		"a: " + strings.Repeat("[", maxDepth+2) + strings.Repeat("]", maxDepth+2):            unmarshal + "with what its aliases stand for, it is too large or nested too deep",
	} {
		_, err := one(params.YAML, "a", contents)
		wantError(t, err, want)
	}
	deep := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	if got, err := one(params.YAML, "a", "a: "+deep); got != deep || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
