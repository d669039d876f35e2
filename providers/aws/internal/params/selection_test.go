package params

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestSelection(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		object string
		want   Object
	}{
		"prefix": {"{namePrefix: app/, objectType: secretsmanager}", Object{Service: SecretsManager, Select: &Select{NamePrefix: "app/", Limit: 50}}},
		"tags": {
			"{Tags: {env: prod, Tier: 1, any: ''}, objectType: ssmparameter}",
			Object{Service: ParameterStore, Select: &Select{Tags: map[string]string{"env": "prod", "Tier": "1", "any": ""}, Limit: 50}},
		},
		"everything": {
			`{nameprefix: app/, tags: {a: b}, limit: 100, objectAlias: "app/*.txt", filePermission: "0400", optional: true, objectType: ssmparameter}`,
			Object{Service: ParameterStore, Mode: 0o400, Optional: true, Select: &Select{
				NamePrefix: "app/", Tags: map[string]string{"a": "b"}, Limit: 100, FilePattern: "app_*.txt",
			}},
		},
		"one": {"{namePrefix: a, limit: 1, objectType: ssmparameter}", Object{Service: ParameterStore, Select: &Select{NamePrefix: "a", Limit: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseObjects("- "+tt.object, sdk.Parameters{FailoverRegion: "us-east-1"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Object{tt.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSelectionViolations(t *testing.T) {
	t.Parallel()
	const many = "cannot be used with namePrefix or tags"
	for object, text := range map[string]string{
		"{namePrefix: a}":                                       "objectType: Must use objectType with namePrefix and tags",
		"{namePrefix: a, objectType: ssm}":                      "objectType: Invalid objectType: ssm",
		"{namePrefix: 'arn:aws:', objectType: ssmparameter}":    "namePrefix: must be the beginning of names, not of ARNs: arn:aws:",
		"{tags: {'': a}, objectType: ssmparameter}":             "tags: a tag has no name",
		"{namePrefix: a, limit: 0, objectType: ssmparameter}":   "limit: must be from 1 to 100, not 0",
		"{namePrefix: a, limit: 101, objectType: ssmparameter}": "limit: must be from 1 to 100, not 101",
		"{namePrefix: a, limit: -1, objectType: ssmparameter}":  "limit: must be from 1 to 100, not -1",

		"{namePrefix: a, objectName: a, objectType: ssmparameter}":                         "objectName: " + many,
		"{namePrefix: a, objectVersion: 1, objectType: ssmparameter}":                      "objectVersion: " + many,
		"{namePrefix: a, objectVersionLabel: a, objectType: ssmparameter}":                 "objectVersionLabel: " + many,
		"{namePrefix: a, jmesPath: [{path: a, objectAlias: a}], objectType: ssmparameter}": "jmesPath: " + many,
		"{namePrefix: a, failoverObject: {objectName: a}, objectType: ssmparameter}":       "failoverObject: " + many,

		"{namePrefix: a, objectAlias: a, objectType: ssmparameter}":      `objectAlias: "a" must have one "*"`,
		"{namePrefix: a, objectAlias: '*/*', objectType: ssmparameter}":  `objectAlias: "*/*" must have one "*"`,
		"{namePrefix: a, objectAlias: '..*', objectType: ssmparameter}":  `objectAlias: "..*" cannot be a file: the path starts with ".."`,
		"{namePrefix: a, filePermission: '7', objectType: ssmparameter}": "filePermission: Invalid File Permission: 7",
	} {
		_, err := parseObjects("- "+object, nil)
		oneViolation(t, err, "objects[0]."+text)
	}
}

func TestSelectFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		s                       Select
		name, translation, file string
	}{
		{Select{NamePrefix: "app/"}, "app/db/a", "_", "app_db_a"},
		{Select{NamePrefix: "/app/"}, "/app/db/a", "", "app/db/a"},
		{Select{NamePrefix: "app/", FilePattern: "*"}, "app/db/a", "_", "db_a"},
		{Select{NamePrefix: "app/", FilePattern: "x/*.txt"}, "app/db/a", "", "x/db/a.txt"},
		{Select{NamePrefix: "/app", FilePattern: "x/*"}, "/app/db", "", "x/db"},
		{Select{Tags: map[string]string{"a": "b"}, FilePattern: "x-*"}, "app/db", "-", "x-app-db"},
		{Select{NamePrefix: "app/", FilePattern: "*"}, "app/a*b", "_", "a*b"},
	} {
		if got := tt.s.File(tt.name, tt.translation); got != tt.file {
			t.Errorf("%+v: file of %q is %q, want %q", tt.s, tt.name, got, tt.file)
		}
	}
}
