package params

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSelection(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fields string
		want   Select
	}{
		"pattern":      {"namePattern: app-*", Select{Pattern: "app-*", Limit: 50}},
		"in the midst": {"namePattern: ' a*z '", Select{Pattern: "a*z", Limit: 50}},
		"all":          {"namePattern: '*'", Select{Pattern: "*", Limit: 50}},
		"tags":         {"tags: {a: 1, b: ''}", Select{Pattern: "*", Tags: map[string]string{"a": "1", "b": ""}, Limit: 50}},
		"both":         {"tags: {a: b}, namePattern: '*-z'", Select{Pattern: "*-z", Tags: map[string]string{"a": "b"}, Limit: 50}},
		"limit":        {"namePattern: '*', limit: 200", Select{Pattern: "*", Limit: 200}},
		"limit of one": {"namePattern: '*', limit: 1", Select{Pattern: "*", Limit: 1}},
		"files":        {"namePattern: '*', objectAlias: ' d/*.txt '", Select{Pattern: "*", Limit: 50, FilePattern: "d/*.txt"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseObjects("- {objectType: secret, objectEncoding: hex, filePermission: '0400', optional: true, " + tt.fields + "}")
			if err != nil {
				t.Fatal(err)
			}
			want := []Object{{Type: Secret, Format: PEM, Encoding: Hex, Mode: 0o400, Optional: true, Select: &tt.want}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSelectionViolations(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ fields, want string }{
		"name":         {"objectName: a", "objects[0].objectName: cannot be used with namePattern or tags"},
		"version":      {"objectVersion: latest", "objects[0].objectVersion: cannot be used with namePattern or tags"},
		"history":      {"objectVersionHistory: 1", "objects[0].objectVersionHistory: cannot be used with namePattern or tags"},
		"no star":      {"namePattern: app", `objects[0].namePattern: "app" is not a pattern`},
		"two stars":    {"namePattern: '*app*'", `objects[0].namePattern: "*app*" is not a pattern`},
		"no name":      {"namePattern: a_*", `objects[0].namePattern: "a_*" is not a pattern`},
		"no tag":       {"tags: {'': b}", "objects[0].tags: a tag has no name"},
		"limit 0":      {"limit: 0", "objects[0].limit: must be from 1 to 200, not 0"},
		"limit":        {"limit: 201", "objects[0].limit: must be from 1 to 200, not 201"},
		"one file":     {"objectAlias: a", `objects[0].objectAlias: "a" must have one "*"`},
		"two places":   {"objectAlias: '*/*'", `objects[0].objectAlias: "*/*" must have one "*"`},
		"way up":       {"objectAlias: '../*'", "objects[0].objectAlias: file name must not contain '..'"},
		"absolute":     {"objectAlias: '/*'", "objects[0].objectAlias: file name must be a relative path"},
		"no type":      {"objectType: x", "objects[0].objectType: Invalid vaultObjectTypes"},
		"PFX of a key": {"objectType: key, objectFormat: pfx", "objects[0].objectFormat: PFX format only supported"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fields := tt.fields
			if !strings.Contains(fields, "namePattern") && !strings.Contains(fields, "tags") {
				fields += ", namePattern: '*'"
			}
			if !strings.Contains(fields, "objectType") {
				fields += ", objectType: secret"
			}
			_, err := parseObjects("- {" + fields + "}")
			wantViolations(t, err, tt.want)
		})
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	tags := map[string]string{"a": "1", "b": "2"}
	for _, tt := range []struct {
		s       Select
		name    string
		tags    map[string]string
		matches bool
		file    string
	}{
		{Select{Pattern: "*"}, "x", nil, true, "x"},
		{Select{Pattern: "app-*"}, "app-db", nil, true, "app-db"},
		{Select{Pattern: "app-*"}, "app-", nil, true, "app-"},
		{Select{Pattern: "app-*"}, "app", nil, false, "app"},
		{Select{Pattern: "app-*"}, "my-app-db", nil, false, "my-app-db"},
		{Select{Pattern: "APP-*-z", FilePattern: "d/*.txt"}, "app-Db-Z", nil, true, "d/Db.txt"},
		{Select{Pattern: "ab*ba"}, "aba", nil, false, "aba"},
		{Select{Pattern: "ab*ba", FilePattern: "x*"}, "abba", nil, true, "x"},
		{Select{Pattern: "*-z", FilePattern: "*"}, "a-z-z", nil, true, "a-z"},
		{Select{Pattern: "*", Tags: map[string]string{"a": "1"}}, "x", tags, true, "x"},
		{Select{Pattern: "*", Tags: tags}, "x", map[string]string{"a": "1"}, false, "x"},
		{Select{Pattern: "*", Tags: map[string]string{"a": "2"}}, "x", tags, false, "x"},
		{Select{Pattern: "*", Tags: map[string]string{"A": "1"}}, "x", tags, false, "x"},
		{Select{Pattern: "*", Tags: map[string]string{"c": ""}}, "x", tags, false, "x"},
		{Select{Pattern: "y*", Tags: map[string]string{"a": "1"}}, "x", tags, false, "x"},
	} {
		if got := tt.s.Matches(tt.name, tt.tags); got != tt.matches {
			t.Errorf("%s matches %s with %v: %v", &tt.s, tt.name, tt.tags, got)
		}
		if got := tt.s.File(tt.name); got != tt.file {
			t.Errorf("%s: file of %s is %s, want %s", &tt.s, tt.name, got, tt.file)
		}
	}
}
