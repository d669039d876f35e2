package params

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/aws/internal/query"
	"github.com/postern-dev/postern/providers/sdk"
)

// FuzzParse checks that nothing makes a panic, and that what is accepted can be
// fetched and mounted.
func FuzzParse(f *testing.F) {
	f.Add("us-west-2", "", "_", one)
	f.Add("us-west-2", "us-east-1", "False", `
- objectName: arn:aws:secretsmanager:us-west-2:111122223333:secret:a/b-AbCdEf
  objectAlias: x/y
  objectVersionLabel: AWSPREVIOUS
  filePermission: "0400"
  jmesPath: [{path: a."b-c", objectAlias: z}, {path: "*", objectAlias: k-*, filePermission: "0444"}]
  failoverObject: {objectName: arn:aws:secretsmanager:us-east-1:111122223333:secret:a, objectVersion: ""}
- {OBJECTNAME: /p, objectType: ssmparameter, objectVersion: 3, optional: true}`)
	f.Add("cn-north-1", "x", "/", "- {namePrefix: a/, tags: {b: c}, limit: 7, objectType: ssmparameter, objectAlias: d/*}\n- null\n- {objectName: d}")
	f.Add("", "", "é", "[[]]")
	f.Fuzz(func(t *testing.T, region, failover, translation, objects string) {
		spec, err := Parse(sdk.Parameters{Region: region, FailoverRegion: failover, PathTranslation: translation, Objects: objects}, Defaults{})
		if err != nil {
			if e, ok := errors.AsType[*sdk.Error](err); !ok || len(e.Fields) == 0 || spec != nil {
				t.Fatalf("error of type %T, with %+v", err, spec)
			}
			return
		}
		if len(spec.Objects) == 0 || len(spec.Regions) == 0 || spec.Regions[0] == "" {
			t.Fatalf("accepted %+v", spec)
		}
		var paths []string
		for i, o := range spec.Objects {
			if o.Index != i || (o.Service != SecretsManager && o.Service != ParameterStore) || o.Mode > 0o777 || o.Name() == "" {
				t.Fatalf("accepted %+v", o)
			}
			if o.Select != nil {
				checkSelect(t, o)
				continue
			}
			if len(o.Sources) != len(spec.Regions) {
				t.Fatalf("%d regions, accepted %+v", len(spec.Regions), o)
			}
			paths = append(paths, o.File)
			for _, r := range o.Rules {
				if _, err := query.Compile(r.Expression); err != nil {
					t.Fatal(err)
				}
				if !r.All {
					paths = append(paths, r.File)
				} else if strings.Count(r.File, "*") != 1 {
					t.Fatalf("accepted %+v", r)
				}
			}
		}
		if i, problem := sdk.CheckPaths(paths); problem != "" {
			t.Fatalf("accepted file %q: %s", paths[i], problem)
		}
	})
}

func checkSelect(t *testing.T, o Object) {
	t.Helper()
	s := o.Select
	if o.File != "" || o.Sources != nil || o.Rules != nil || s.Limit < 1 || s.Limit > maxLimit || s.NamePrefix == "" && len(s.Tags) == 0 ||
		s.FilePattern != "" && strings.Count(s.FilePattern, "*") != 1 {
		t.Fatalf("accepted %+v", o)
	}
}
