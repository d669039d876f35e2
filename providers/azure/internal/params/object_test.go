package params

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
)

func parseObjects(objects string) ([]Object, error) {
	spec, err := Parse(with(sdk.Parameters{Objects: objects}), Defaults{})
	if err != nil {
		return nil, err
	}
	return spec.Objects, nil
}

// indent puts spaces before each line, as YAML's blocks want them.
func indent(text string, by int) string {
	return strings.ReplaceAll("\n"+text, "\n", "\n"+strings.Repeat(" ", by))
}

// The forms in which one list may be written.
func TestForms(t *testing.T) {
	t.Parallel()
	want := []Object{
		{Type: Secret, Name: "a", Format: PEM, Encoding: UTF8},
		{Index: 1, Type: Key, Name: "b", Alias: "c", Format: PEM, Encoding: UTF8},
	}
	const a, b = "objectName: a\nobjectType: secret", "objectName: b\nobjectType: key\nobjectAlias: c"
	for name, text := range map[string]string{
		"texts in array":    "array:\n  - |" + indent(a, 4) + "\n  - |" + indent(b, 4) + "\n",
		"mappings in array": "array:\n  -" + indent(a, 4) + "\n  -" + indent(b, 4),
		"mappings":          "-" + indent(a, 2) + "\n-" + indent(b, 2),
		"texts":             "- |" + indent(a, 4) + "\n- >-\n  {objectName: b, objectType: key,\n  objectAlias: c}",
		"both":              "array: [{objectName: a, objectType: secret}, '{objectName: b, objectType: key, objectAlias: c}']",
		"JSON":              `{"array": ["{\"objectName\": \"a\", \"objectType\": \"secret\"}", {"objectName": "b", "objectType": "key", "objectAlias": "c"}]}`,
		"documents":         "---\n- |\n  ---\n" + "  objectName: a\n  objectType: secret\n  ---\n  x\n- {objectName: b, objectType: key, objectAlias: c}\n...\n",
		"unknown fields":    "x: [1]\narray: [{objectName: a, objectType: secret, y: {z: 1}, ObjectName: q, OBJECTTYPE: key}, {objectName: b, objectType: key, objectAlias: c}]",
		"anchors":           "x: &t key\ny: &a 'objectName: a\n\n  objectType: secret'\narray: [*a, {objectName: b, objectType: *t, objectAlias: c}]",
		"anchored list":     "x: &l [{objectName: a, objectType: secret}, {objectName: b, objectType: key, objectAlias: c}]\narray: *l",
		"comments":          "# list\narray: # of\n  - | # two\n    objectName: a # one\n    objectType: secret\n  - {objectName: b, objectType: key, objectAlias: c}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseObjects(text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBadForms(t *testing.T) {
	t.Parallel()
	wide := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "  f%d: x\n", i)
		}
		return b.String()
	}
	const of, item = "objects: failed to yaml unmarshal objects, error: ", "objects[0]: unmarshal failed for keyVaultObjects at index 0, error: "
	for name, tt := range map[string]struct{ text, want string }{
		"comment alone":       {"# nothing", "objects: objects array is empty"},
		"null":                {"~", "objects: objects array is empty"},
		"no array":            {"list: [a]", "objects: objects array is empty"},
		"empty array":         {"array: []", "objects: objects array is empty"},
		"null array":          {"array:", "objects: objects array is empty"},
		"empty list":          {"[]", "objects: objects array is empty"},
		"array in any case":   {"Array: [a]", "objects: objects array is empty"},
		"two arrays":          {"array: [a]\narray: [b]", of + "yaml: unmarshal errors: line 2: the field array is there twice"},
		"text":                {"objectName", of + "yaml: unmarshal errors: the objects are no list"},
		"array of text":       {"array: a", of + "yaml: unmarshal errors: the objects are no list"},
		"no YAML":             {"array: [", of + "yaml: line 1: did not find expected node content"},
		"tab":                 {"array:\n\t- a", of + "yaml: line 2: found character that cannot start any token"},
		"list in the list":    {"[[a]]", item + "yaml: unmarshal errors: the object is no mapping"},
		"text in the text":    {"['a']", item + "yaml: unmarshal errors: the object is no mapping"},
		"number":              {"[5]", item + "yaml: unmarshal errors: the object is no mapping"},
		"no YAML in the text": {"['{']", item + "yaml: line 1: did not find expected node content"},
		"no mapping of tags":  {"- {tags: [a]}", item + "yaml: unmarshal errors: line 1: cannot unmarshal !!seq into map[string]string"},
		"no text":             {"- {objectName: [a]}", item + "yaml: unmarshal errors: line 1: cannot unmarshal !!seq into string"},
		"no number":           {"- {objectVersionHistory: a}", item + "yaml: unmarshal errors: line 1: cannot unmarshal !!str `a` into int32"},
		"large number":        {"- {objectVersionHistory: 3000000000}", item + "yaml: unmarshal errors: line 1: cannot unmarshal !!int"},
		"field twice":         {"- {objectName: a, objectType: key, objectName: b}", item + "yaml: unmarshal errors: line 1: mapping key \"objectName\" already defined"},
		"merge":               {"- {<<: {objectName: a}, objectType: key}", of + "yaml: line 1: << cannot be used"},
		"merge in a text":     {"['{\"<<\": {objectName: a}, objectType: key}']", item + "yaml: line 1: << cannot be used"},
		"merge in tags":       {"- {objectType: key, tags: {<<: {a: b}}}", of + "yaml: line 1: << cannot be used"},
		"wide":                {"-\n" + wide(101), of + "yaml: line 2: a mapping has more than 100 fields"},
		"wide text":           {"- |\n" + wide(101), item + "yaml: line 1: a mapping has more than 100 fields"},
		"long":                {"['" + strings.Repeat("x", 1<<20+1) + "']", item + "the texts in the list take more than 1048576 bytes"},
		"many":                {strings.Repeat("- a\n", 1001), "objects: holds 1001 objects, and may hold 1000"},
		"itself":              {"&a [*a]", item + "yaml: unmarshal errors: the object is no mapping"},
		"null item":           {"[~]", "objects[0].objectName: file name must not be empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseObjects(tt.text)
			if err == nil {
				t.Fatal("accepted")
			}
			if got := violations(t, err); !strings.HasPrefix(got[0], tt.want) || strings.Contains(got[0], "\n") {
				t.Errorf("%q, want %q", got[0], tt.want)
			}
		})
	}
	if _, err := parseObjects("-\n  objectName: a\n  objectType: key\n" + wide(98)); err != nil {
		t.Errorf("of 100 fields: %v", err)
	}
}

// Anchors make much of little, which is bounded.
func TestManyAliases(t *testing.T) {
	t.Parallel()
	text := "x: &x '" + strings.Repeat("x", 4096) + "'\narray: [" + strings.Repeat("*x, ", 300) + "]"
	_, err := parseObjects(text)
	if err == nil {
		t.Fatal("accepted")
	}
	got := violations(t, err)
	if !strings.HasSuffix(got[255], "the object is no mapping, such as objectName: a") || !strings.HasSuffix(got[256], "take more than 1048576 bytes") {
		t.Errorf("at the bound: %q, %q", got[255], got[256])
	}
}

const version = "1f304204f3624873aab40231241243eb"

func TestObject(t *testing.T) {
	t.Parallel()
	base := func(change func(*Object)) Object {
		o := Object{Type: Secret, Name: "o", Format: PEM, Encoding: UTF8}
		change(&o)
		return o
	}
	for name, tt := range map[string]struct {
		fields string
		want   Object
	}{
		"secret":           {"", base(func(*Object) {})},
		"key":              {"objectType: key", base(func(o *Object) { o.Type = Key })},
		"certificate":      {"objectType: cert", base(func(o *Object) { o.Type = Certificate })},
		"spaces":           {"objectType: ' key\n\n', objectAlias: ' a ', objectVersion: ' latest '", base(func(o *Object) { o.Type, o.Alias = Key, "a" })},
		"nothing":          {"objectAlias: ~, objectVersion: , objectFormat: '', filePermission: ' ', optional: , objectVersionHistory: ~", base(func(*Object) {})},
		"longest name":     {"objectName: " + strings.Repeat("N-9", 42) + "x", base(func(o *Object) { o.Name = strings.Repeat("N-9", 42) + "x" })},
		"number as name":   {"objectName: 0123", base(func(o *Object) { o.Name = "0123" })},
		"alias":            {"objectAlias: a.b/c d/ü", base(func(o *Object) { o.Alias = "a.b/c d/ü" })},
		"dots":             {"objectAlias: .hidden", base(func(o *Object) { o.Alias = ".hidden" })},
		"star":             {"objectAlias: a*", base(func(o *Object) { o.Alias = "a*" })},
		"version":          {"objectVersion: " + version, base(func(o *Object) { o.Version = version })},
		"numeric version":  {"objectVersion: 12345678901234567890123456789012", base(func(o *Object) { o.Version = "12345678901234567890123456789012" })},
		"float version":    {"objectVersion: 1234567890123456789012345678e901", base(func(o *Object) { o.Version = "1234567890123456789012345678e901" })},
		"latest":           {"objectVersion: latest", base(func(*Object) {})},
		"history":          {"objectVersionHistory: 100", base(func(o *Object) { o.History = 100 })},
		"history of one":   {"objectVersionHistory: 1", base(func(o *Object) { o.History = 1 })},
		"history from":     {"objectVersionHistory: 2, objectVersion: " + version, base(func(o *Object) { o.History, o.Version = 2, version })},
		"PEM":              {"objectFormat: Pem", base(func(*Object) {})},
		"PEM of a key":     {"objectFormat: PEM, objectType: key", base(func(o *Object) { o.Type = Key })},
		"PFX":              {"objectFormat: pFx", base(func(o *Object) { o.Format = PFX })},
		"UTF-8":            {"objectEncoding: UTF-8", base(func(*Object) {})},
		"hex":              {"objectEncoding: HEX", base(func(o *Object) { o.Encoding = Hex })},
		"base64":           {"objectEncoding: Base64, objectFormat: pfx", base(func(o *Object) { o.Format, o.Encoding = PFX, Base64 })},
		"mode":             {"filePermission: '0640'", base(func(o *Object) { o.Mode = 0o640 })},
		"plain mode":       {"filePermission: 0640", base(func(o *Object) { o.Mode = 0o640 })},
		"short mode":       {"filePermission: 400", base(func(o *Object) { o.Mode = 0o400 })},
		"highest mode":     {"filePermission: '0777'", base(func(o *Object) { o.Mode = 0o777 })},
		"lowest mode":      {"filePermission: '1'", base(func(o *Object) { o.Mode = 1 })},
		"optional":         {"optional: true", base(func(o *Object) { o.Optional = true })},
		"not optional":     {"optional: false", base(func(*Object) {})},
		"unknown spelling": {"objectalias: x, OPTIONAL: true", base(func(*Object) {})},
		"all": {
			"objectAlias: d/f, objectVersion: " + version + ", objectVersionHistory: 3, objectFormat: pfx, objectEncoding: base64, filePermission: '0400', optional: true",
			Object{
				Type: Secret, Name: "o", Alias: "d/f", Version: version, History: 3,
				Format: PFX, Encoding: Base64, Mode: 0o400, Optional: true,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fields := tt.fields
			if !strings.Contains(fields, "objectName:") {
				fields += ", objectName: o"
			}
			if !strings.Contains(fields, "objectType:") {
				fields += ", objectType: secret"
			}
			got, err := parseObjects("- {" + strings.TrimPrefix(fields, ", ") + "}")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Object{tt.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestObjectViolations(t *testing.T) {
	t.Parallel()
	const file = "objects[0].objectAlias: file name must "
	for name, tt := range map[string]struct{ fields, want string }{
		"no type":          {"objectName: o, objectType: ''", `objects[0].objectType: Invalid vaultObjectTypes. Should be secret, key, or cert, not ""`},
		"type's case":      {"objectName: o, objectType: Secret", `objects[0].objectType: Invalid vaultObjectTypes. Should be secret, key, or cert, not "Secret"`},
		"no name":          {"objectAlias: a", "objects[0].objectName: is required"},
		"neither":          {"", "objects[0].objectName: file name must not be empty"},
		"way up":           {"objectName: .., objectAlias: a", `objects[0].objectName: ".." is not the name of an object`},
		"path":             {"objectName: a/b, objectAlias: a", `objects[0].objectName: "a/b" is not the name`},
		"query":            {"objectName: 'a?b', objectAlias: a", `objects[0].objectName: "a?b" is not the name`},
		"underscore":       {"objectName: a_b", `objects[0].objectName: "a_b" is not the name`},
		"line":             {`objectName: "a\nb", objectAlias: a`, `objects[0].objectName: "a\nb" is not the name`},
		"long name":        {"objectName: " + strings.Repeat("n", 128), `objects[0].objectName: "nnn`},
		"version's path":   {"objectName: o, objectVersion: ../x", `objects[0].objectVersion: "../x" is not a version`},
		"short version":    {"objectName: o, objectVersion: " + version[1:], "objects[0].objectVersion: "},
		"long version":     {"objectName: o, objectVersion: " + version + "0", "objects[0].objectVersion: "},
		"no digit":         {"objectName: o, objectVersion: g" + version[1:], "objects[0].objectVersion: "},
		"Latest":           {"objectName: o, objectVersion: Latest", "objects[0].objectVersion: "},
		"negative history": {"objectName: o, objectVersionHistory: -1", "objects[0].objectVersionHistory: must be from 0 to 100, not -1"},
		"long history":     {"objectName: o, objectVersionHistory: 101", "objects[0].objectVersionHistory: must be from 0 to 100, not 101"},
		"format":           {"objectName: o, objectFormat: der", "objects[0].objectFormat: invalid objectFormat: der, should be PEM or PFX"},
		"PFX of a cert":    {"objectName: o, objectType: cert, objectFormat: pfx", "objects[0].objectFormat: PFX format only supported for objectType: secret"},
		"PFX in any case":  {"objectName: o, objectType: cert, objectFormat: PFX", "objects[0].objectFormat: PFX format only supported for objectType: secret"},
		"encoding":         {"objectName: o, objectEncoding: utf8", "objects[0].objectEncoding: invalid objectEncoding: utf8, should be hex, base64 or utf-8"},
		"encoding of key":  {"objectName: o, objectType: key, objectEncoding: utf-8", "objects[0].objectEncoding: objectEncoding only supported for objectType: secret"},
		"no mode":          {"objectName: o, filePermission: rw", `objects[0].filePermission: file permission must be a valid octal number, from "0001" to "0777", not "rw"`},
		"digit 8":          {"objectName: o, filePermission: '0800'", "objects[0].filePermission: "},
		"0o":               {"objectName: o, filePermission: 0o644", "objects[0].filePermission: "},
		"mode 0":           {"objectName: o, filePermission: '0000'", "objects[0].filePermission: "},
		"set-uid":          {"objectName: o, filePermission: '4755'", "objects[0].filePermission: "},
		"negative mode":    {"objectName: o, filePermission: '-644'", "objects[0].filePermission: "},
		"optional":         {"objectName: o, optional: yes", "objects[0].optional: must be true or false"},
		"limit":            {"objectName: o, limit: 1", "objects[0].limit: is for namePattern and tags alone"},
		"absolute":         {"objectName: o, objectAlias: /a", file + "be a relative path: /a"},
		"up":               {"objectName: o, objectAlias: a/../../b", file + "not contain '..': a/../../b"},
		"dots":             {"objectName: o, objectAlias: a..b", file + "not contain '..': a..b"},
		"not clean":        {"objectName: o, objectAlias: a//b", `objects[0].objectAlias: "a//b" cannot be a file: the path is not in clean form`},
		"directory":        {"objectName: o, objectAlias: a/", `objects[0].objectAlias: "a/" cannot be a file`},
		"here":             {"objectName: o, objectAlias: .", `objects[0].objectAlias: "." cannot be a file`},
		"NUL":              {`objectName: o, objectAlias: "a\0"`, `objects[0].objectAlias: "a\x00" cannot be a file`},
		"long element":     {"objectName: o, objectAlias: " + strings.Repeat("a", 256), "objects[0].objectAlias: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fields := tt.fields
			if !strings.Contains(fields, "objectType:") {
				fields += ", objectType: secret"
			}
			_, err := parseObjects("- {" + strings.TrimPrefix(fields, ", ") + "}")
			wantViolations(t, err, tt.want)
		})
	}
}

func TestPathsOfObjects(t *testing.T) {
	t.Parallel()
	object := func(name, alias string, more ...string) string {
		return fmt.Sprintf("- {objectName: %s, objectType: secret, objectAlias: %s%s}\n", name, alias, strings.Join(more, ""))
	}
	const history = ", objectVersionHistory: 2"
	pattern := func(alias string) string {
		return fmt.Sprintf("- {namePattern: 'x-*', objectType: secret, objectAlias: '%s'}\n", alias)
	}
	for name, tt := range map[string]struct{ objects, want string }{
		"two names":             {object("a", "") + object("b", ""), ""},
		"one name, two files":   {object("a", "") + object("a", "b"), ""},
		"same name":             {object("a", "") + object("a", ""), `objects[1].objectName: "a" is already the file of objects[0].objectName: set another objectAlias`},
		"same alias":            {object("a", "d/x") + object("b", "d/x"), `objects[1].objectAlias: "d/x" is already the file of objects[0].objectAlias`},
		"alias and name":        {object("a", "") + object("b", "a"), `objects[1].objectAlias: "a" is already the file of objects[0].objectName`},
		"beside":                {object("a", "d/x") + object("b", "d/y") + object("c", "d/e/z"), ""},
		"below a file":          {object("a", "d/e") + object("b", "d/e/f/g"), `objects[1].objectAlias: "d/e" is already the file of objects[0].objectAlias, and cannot be a directory too`},
		"above a file":          {object("a", "d/e/f") + object("b", "d"), `objects[1].objectAlias: "d" is already a directory of objects[0].objectAlias`},
		"history":               {object("a", "", history) + object("b", "", history), ""},
		"history and its file":  {object("a", "", history) + object("b", "a"), `objects[1].objectAlias: "a" is already a directory of objects[0].objectName`},
		"file and its history":  {object("b", "a") + object("a", "", history), `objects[1].objectName: "a" is already the file of objects[0].objectAlias`},
		"history's file":        {object("a", "", history) + object("b", "a/1"), `objects[1].objectAlias: "a/1" is already the file of objects[0].objectName`},
		"history's file before": {object("b", "a/2") + object("a", "", history), `objects[1].objectName: "a/2" is already the file of objects[0].objectAlias`},
		"in the directory":      {object("a", "", history) + object("b", "a/x"), ""},
		"history of one":        {object("a", "", ", objectVersionHistory: 1") + object("b", "a"), `objects[1].objectAlias: "a" is already the file of objects[0].objectName`},
		"pattern beside":        {object("a", "d/x") + pattern("d/*"), ""},
		"pattern below a file":  {object("a", "d/x") + pattern("d/x/*"), `objects[1].objectAlias: "d/x" is already the file of objects[0].objectAlias`},
		"pattern's directory":   {pattern("d/e/*.txt") + object("a", "d/e"), `objects[1].objectAlias: "d/e" is already a directory of objects[0].objectAlias`},
		"pattern anywhere":      {pattern("*/x") + object("a", "d"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseObjects(tt.objects)
			if tt.want != "" {
				wantViolations(t, err, tt.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTitleAndFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		o           Object
		title, file string
	}{
		{Object{Name: "a"}, "a", "a"},
		{Object{Name: "a", Alias: "d/f"}, "a", "d/f"},
		{Object{Select: &Select{Pattern: "x-*"}}, "namePattern x-*", ""},
		{Object{Select: &Select{Pattern: "*", Tags: map[string]string{"b": "2", "a": "1"}}}, "namePattern * tags a=1,b=2", ""},
	} {
		if tt.o.Title() != tt.title || tt.o.File() != tt.file {
			t.Errorf("%q, %q, want %q, %q", tt.o.Title(), tt.o.File(), tt.title, tt.file)
		}
	}
}
