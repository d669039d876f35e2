package params

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
)

// parseObjects parses a list of objects for us-west-2, and for us-east-1 as
// failover region if there is a second one.
func parseObjects(objects string, set sdk.Parameters) ([]Object, error) {
	p := with(set)
	p[Objects] = objects
	spec, err := Parse(p, Defaults{})
	if err != nil {
		return nil, err
	}
	return spec.Objects, nil
}

const secretARN = "arn:aws:secretsmanager:us-west-2:111122223333:secret:"

func TestParseObject(t *testing.T) {
	t.Parallel()
	secret := func(change func(*Object)) Object {
		o := Object{Service: SecretsManager, Sources: []Source{{ID: "o"}}, File: "o"}
		change(&o)
		return o
	}
	parameter := func(change func(*Object)) Object {
		return secret(func(o *Object) { o.Service = ParameterStore; change(o) })
	}
	arn := func(text string, service Service) Object {
		return Object{Service: service, Sources: []Source{{ID: text}}, File: strings.ReplaceAll(text, "/", "_")}
	}
	const parameterARN = "arn:aws:ssm:us-west-2:111122223333:parameter/team/app"
	for name, tt := range map[string]struct {
		object string
		want   Object
	}{
		"secret":        {"{objectName: o, objectType: secretsmanager}", secret(func(*Object) {})},
		"parameter":     {"{objectName: o, objectType: ssmparameter}", parameter(func(*Object) {})},
		"case of keys":  {"{ObjectName: o, OBJECTTYPE: secretsmanager, objectalias: f}", secret(func(o *Object) { o.File = "f" })},
		"unknown keys":  {"{objectName: o, objectType: secretsmanager, backupArn: x, objectTemplate: {a: [1]}}", secret(func(*Object) {})},
		"alias":         {"{objectName: o, objectType: secretsmanager, objectAlias: a.b/c}", secret(func(o *Object) { o.File = "a.b_c" })},
		"version id":    {"{objectName: o, objectType: secretsmanager, objectVersion: 0a-1b}", secret(func(o *Object) { o.Sources[0].Version = "0a-1b" })},
		"stage":         {"{objectName: o, objectType: secretsmanager, objectVersionLabel: AWSPREVIOUS}", secret(func(o *Object) { o.Sources[0].Label = "AWSPREVIOUS" })},
		"id and stage":  {"{objectName: o, objectType: secretsmanager, objectVersion: v, objectVersionLabel: l}", secret(func(o *Object) { o.Sources[0] = Source{"o", "v", "l"} })},
		"number":        {"{objectName: o, objectType: ssmparameter, objectVersion: 3}", parameter(func(o *Object) { o.Sources[0].Version = "3" })},
		"quoted number": {`{objectName: o, objectType: ssmparameter, objectVersion: "3"}`, parameter(func(o *Object) { o.Sources[0].Version = "3" })},
		"label":         {"{objectName: o, objectType: ssmparameter, objectVersionLabel: prod}", parameter(func(o *Object) { o.Sources[0].Label = "prod" })},
		"label for a version": {"{objectName: o, objectType: ssmparameter, objectVersion: prod2}", parameter(func(o *Object) {
			o.Sources[0].Label = "prod2"
		})},
		"mode":             {`{objectName: o, objectType: secretsmanager, filePermission: "0400"}`, secret(func(o *Object) { o.Mode = 0o400 })},
		"widest mode":      {`{objectName: o, objectType: secretsmanager, filePermission: "0777"}`, secret(func(o *Object) { o.Mode = 0o777 })},
		"no mode":          {`{objectName: o, objectType: secretsmanager, filePermission: ""}`, secret(func(*Object) {})},
		"optional":         {"{objectName: o, objectType: secretsmanager, optional: true}", secret(func(o *Object) { o.Optional = true })},
		"secret's ARN":     {"{objectName: '" + secretARN + "app/db-AbCdEf'}", arn(secretARN+"app/db-AbCdEf", SecretsManager)},
		"ARN and type":     {"{objectName: '" + secretARN + "db-AbCdEf', objectType: secretsmanager}", arn(secretARN+"db-AbCdEf", SecretsManager)},
		"ARN no suffix":    {"{objectName: '" + secretARN + "/db'}", arn(secretARN+"/db", SecretsManager)},
		"parameter's ARN":  {"{objectName: '" + parameterARN + "'}", arn(parameterARN, ParameterStore)},
		"both, parameters": {"{objectName: '" + parameterARN + "', objectType: ssmparameter}", arn(parameterARN, ParameterStore)},
		"empty parts":      {"{objectName: o, objectType: secretsmanager, jmesPath: [], failoverObject: {}, tags: {}, namePrefix: ''}", secret(func(*Object) {})},
		"jmesPath": {`
  objectName: o
  objectType: secretsmanager
  filePermission: "0600"
  jmesPath:
    - {path: a, objectAlias: 1/a}
    - {Path: b, ObjectAlias: b, FilePermission: "0444"}
    - {path: '"c-d"', objectAlias: c-*}`, secret(func(o *Object) {
			o.Mode = 0o600
			o.Rules = []Rule{
				{Expression: "a", File: "1_a", Mode: 0o600},
				{Expression: "b", File: "b", Mode: 0o444},
				{Expression: `"c-d"`, File: "c-*", Mode: 0o600, All: true},
			}
		})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseObjects("- "+tt.object, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Object{tt.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	for partition, region := range map[string]string{
		"aws": "us-west-2", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1", "aws-iso": "us-iso-east-1", "aws-iso-b": "us-isob-east-1",
		"aws-iso-e": "eu-isoe-west-1", "aws-iso-f": "us-isof-south-1", "aws-eusc": "eusc-de-east-1",
	} {
		for _, rest := range []string{":secretsmanager:" + region + ":111122223333:secret:a-AbCdEf", ":ssm:" + region + ":111122223333:parameter/a"} {
			arn := "arn:" + partition + rest
			objects, err := parseObjects("- {objectName: '"+arn+"'}", sdk.Parameters{Region: region})
			if err != nil || objects[0].Sources[0].ID != arn {
				t.Errorf("%s: %+v, %v", arn, objects, err)
			}
		}
	}
}

func TestObjectViolations(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		object, text string
	}{
		"no name":        {"{objectType: secretsmanager}", "objects[0].objectName: Object name must be specified"},
		"no type":        {"{objectName: o}", "objects[0].objectName: Must use objectType when a full ARN is not specified: o"},
		"ssm":            {"{objectName: o, objectType: ssm}", "objects[0].objectType: Invalid objectType: ssm"},
		"case of type":   {"{objectName: o, objectType: SecretsManager}", "objects[0].objectType: Invalid objectType: SecretsManager"},
		"short ARN":      {"{objectName: 'arn::'}", "objects[0].objectName: Invalid ARN format in object name: arn::"},
		"ARN's region":   {"{objectName: 'arn:aws:secretsmanager:eu-west-1:1:secret:a'}", "objects[0].objectName: ARN region must match region us-west-2: arn:aws:secretsmanager:eu-west-1:1:secret:a"},
		"ARN's service":  {"{objectName: 'arn:aws:sts:us-west-2:1:secret:a'}", "objects[0].objectName: Invalid service in ARN: sts"},
		"ARN and ssm":    {"{objectName: '" + secretARN + "a', objectType: ssm}", "objects[0].objectType: Invalid objectType: ssm"},
		"other ARN":      {"{objectName: '" + secretARN + "a', objectType: ssmparameter}", "objects[0].objectName: objectType does not match ARN: " + secretARN + "a"},
		"ARN of nothing": {"{objectName: '" + secretARN + "'}", "objects[0].objectName: ARN names neither a secret (secret:...) nor a parameter (parameter/...): " + secretARN},
		"ARN of a document": {
			"{objectName: 'arn:aws:ssm:us-west-2:1:document/a'}",
			"objects[0].objectName: ARN names neither a secret (secret:...) nor a parameter (parameter/...): arn:aws:ssm:us-west-2:1:document/a",
		},
		"version and label": {
			"{objectName: o, objectType: ssmparameter, objectVersion: 1, objectVersionLabel: l}",
			"objects[0].objectVersionLabel: ssm parameters can not specify both objectVersion and objectVersionLabel: o",
		},
		"label and label": {
			"{objectName: o, objectType: ssmparameter, objectVersion: l, objectVersionLabel: l}",
			"objects[0].objectVersionLabel: ssm parameters can not specify both objectVersion and objectVersionLabel: o",
		},
		"unquoted mode": {"{objectName: o, objectType: secretsmanager, filePermission: 0644}", "objects[0].filePermission: Invalid File Permission: 420: write four octal digits as a string"},
		"three digits":  {`{objectName: o, objectType: secretsmanager, filePermission: "644"}`, "objects[0].filePermission: Invalid File Permission: 644"},
		"five digits":   {`{objectName: o, objectType: secretsmanager, filePermission: "00644"}`, "objects[0].filePermission: Invalid File Permission: 00644"},
		"no octal":      {`{objectName: o, objectType: secretsmanager, filePermission: "0688"}`, "objects[0].filePermission: Invalid File Permission: 0688"},
		"set uid":       {`{objectName: o, objectType: secretsmanager, filePermission: "4755"}`, "objects[0].filePermission: Invalid File Permission: 4755"},
		"for nobody":    {`{objectName: o, objectType: secretsmanager, filePermission: "0000"}`, "objects[0].filePermission: Invalid File Permission: 0000"},
		"no path":       {"{objectName: o, objectType: secretsmanager, jmesPath: [{objectAlias: a}]}", "objects[0].jmesPath[0].path: Path must be specified for JMES object"},
		"no JMES alias": {"{objectName: o, objectType: secretsmanager, jmesPath: [{path: a}]}", "objects[0].jmesPath[0].objectAlias: Object alias must be specified for JMES object"},
		"JMES mode":     {"{objectName: o, objectType: secretsmanager, jmesPath: [{path: a, objectAlias: a, filePermission: x}]}", "objects[0].jmesPath[0].filePermission: Invalid File Permission: x"},
		"JMES path":     {"{objectName: o, objectType: secretsmanager, jmesPath: [{path: .a, objectAlias: a}]}", "objects[0].jmesPath[0].path: Invalid JMES Path: .a. "},
		"hyphen":        {"{objectName: o, objectType: secretsmanager, jmesPath: [{path: a-b, objectAlias: a}]}", `objects[0].jmesPath[0].path: Invalid JMES Path: a-b. A key that holds "-" must be quoted: "a-b"`},
		"two stars":     {"{objectName: o, objectType: secretsmanager, jmesPath: [{path: a, objectAlias: '*-*'}]}", `objects[0].jmesPath[0].objectAlias: "*-*" has more than one "*"`},
		"limit":         {"{objectName: o, objectType: secretsmanager, limit: 3}", "objects[0].limit: is for namePrefix and tags alone"},
		"long":          {"{objectName: " + strings.Repeat("o", 256) + ", objectType: secretsmanager}", `objects[0].objectName: "` + strings.Repeat("o", 256) + `" cannot be a file: the path has an element longer than 255 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseObjects("- "+tt.object, nil)
			oneViolation(t, err, tt.text)
		})
	}
}

// TestTraversal has what ASCP refuses, by the same text.
func TestTraversal(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		secretARN + "/../a-AbCdEf", secretARN + "a/../../b", secretARN + "a/..", secretARN + "..", secretARN + "../a",
		"../a", "a/../../b", "a/..", "..", "/../a", "//..",
	} {
		for _, objectType := range []string{"secretsmanager", "ssmparameter"} {
			if isARN(name) && objectType == "ssmparameter" {
				continue
			}
			_, err := parseObjects("- {objectName: '"+name+"', objectType: "+objectType+"}", sdk.Parameters{PathTranslation: "False"})
			oneViolation(t, err, "objects[0].objectName: path can not contain ../: "+name)
		}
	}
	for field, object := range map[string]string{
		"objectAlias":             "{objectName: o, objectType: secretsmanager, objectAlias: a/../b}",
		"jmesPath[0].objectAlias": "{objectName: o, objectType: secretsmanager, jmesPath: [{path: a, objectAlias: a/../b}]}",
	} {
		_, err := parseObjects("- "+object, sdk.Parameters{PathTranslation: "False"})
		oneViolation(t, err, "objects[0]."+field+": path can not contain ../: a/../b")
	}
	_, err := parseObjects("- {namePrefix: a, objectType: secretsmanager, objectAlias: '*/../b'}", sdk.Parameters{PathTranslation: "False"})
	oneViolation(t, err, "objects[0].objectAlias: path can not contain ../: */../b")
}

// TestNoTraversal has dots that are part of a name. ASCP takes them all; those at the
// beginning of a path cannot be in a volume, where the atomic writer has them.
func TestNoTraversal(t *testing.T) {
	t.Parallel()
	const dots = `cannot be a file: the path starts with ".."`
	for _, tt := range []struct {
		name, translation, file string
	}{
		{secretARN + "/..a-AbCdEf", "False", secretARN + "/..a-AbCdEf"},
		{secretARN + "..a-AbCdEf", "False", secretARN + "..a-AbCdEf"},
		{secretARN + "a../b", "False", secretARN + "a../b"},
		{secretARN + "a..", "False", secretARN + "a.."},
		{secretARN + "a/../b", "_", secretARN + "a_.._b"},
		{"a../b", "False", "a../b"},
		{"a..", "False", "a.."},
		{"a..b", "False", "a..b"},
		{"a/..b", "False", "a/..b"},
		{"/..a", "_", "_..a"},
		{"a/../b", "_", "a_.._b"},
		{"..a", "False", ""},
		{"/..a", "False", ""},
		{"..a", "_", ""},
		{"../a", "_", ""},
	} {
		objects, err := parseObjects("- {objectName: '"+tt.name+"', objectType: secretsmanager}", sdk.Parameters{PathTranslation: tt.translation})
		switch {
		case tt.file == "":
			if err == nil || !strings.Contains(err.Error(), dots) {
				t.Errorf("%s with %s: %v, want %s", tt.name, tt.translation, err, dots)
			}
		case err != nil || objects[0].File != tt.file:
			t.Errorf("%s with %s: %+v, %v, want %s", tt.name, tt.translation, objects, err, tt.file)
		}
	}
}

func TestFileNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, translation, file string }{
		{"a", "_", "a"},
		{"a/b/c", "_", "a_b_c"},
		{"/a/b", "_", "_a_b"},
		{"//a", "_", "__a"},
		{"a/b/c", "+", "a+b+c"},
		{"/a/b", "", "a/b"},
		{"//a/b", "", "a/b"},
		{"a/b", "", "a/b"},
		{"arn:aws:x:y:z/w", "_", "arn:aws:x:y:z_w"},
		{"arn:aws:x:y:z/w", "", "arn:aws:x:y:z/w"},
		{"a/b", "/", "a/b"},
	} {
		if got := Translate(tt.name, tt.translation); got != tt.file {
			t.Errorf("Translate(%q, %q) = %q, want %q", tt.name, tt.translation, got, tt.file)
		}
	}
}

func TestFailover(t *testing.T) {
	t.Parallel()
	const west, east = "arn:aws:secretsmanager:us-west-2:1:secret:s", "arn:aws:secretsmanager:us-east-1:1:secret:s"
	for name, tt := range map[string]struct {
		object string
		want   []Source
	}{
		"same name":     {"{objectName: o, objectType: secretsmanager}", []Source{{ID: "o"}, {ID: "o"}}},
		"other name":    {"{objectName: o, objectType: secretsmanager, objectAlias: f, failoverObject: {objectName: p}}", []Source{{ID: "o"}, {ID: "p"}}},
		"ARNs":          {"{objectName: '" + west + "', objectAlias: f, failoverObject: {objectName: '" + east + "'}}", []Source{{ID: west}, {ID: east}}},
		"name and ARN":  {"{objectName: o, objectType: secretsmanager, objectAlias: f, failoverObject: {objectName: '" + east + "'}}", []Source{{ID: "o"}, {ID: east}}},
		"ARN and name":  {"{objectName: '" + west + "', objectType: secretsmanager, objectAlias: f, failoverObject: {objectName: o}}", []Source{{ID: west}, {ID: "o"}}},
		"same version":  {"{objectName: o, objectType: secretsmanager, objectVersion: v, objectAlias: f, failoverObject: {objectName: p, objectVersion: v}}", []Source{{"o", "v", ""}, {"p", "v", ""}}},
		"version alone": {"{objectName: o, objectType: secretsmanager, objectVersion: v, failoverObject: {objectVersion: w}}", []Source{{"o", "v", ""}, {"o", "w", ""}}},
		"same label":    {"{objectName: o, objectType: ssmparameter, objectVersionLabel: l, objectAlias: f, failoverObject: {objectName: p}}", []Source{{"o", "", "l"}, {"p", "", "l"}}},
		"other label":   {"{objectName: o, objectType: ssmparameter, objectVersionLabel: l, objectAlias: f, failoverObject: {objectName: p, objectVersionLabel: m}}", []Source{{"o", "", "l"}, {"p", "", "m"}}},
		"label alone":   {"{objectName: o, objectType: secretsmanager, failoverObject: {objectVersionLabel: m}}", []Source{{ID: "o"}, {"o", "", "m"}}},
		"label for a version": {
			"{objectName: o, objectType: ssmparameter, objectVersion: l, objectAlias: f, failoverObject: {objectName: p, objectVersion: l}}",
			[]Source{{"o", "", "l"}, {"p", "", "l"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects, err := parseObjects("- "+tt.object, sdk.Parameters{FailoverRegion: "us-east-1"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, objects[0].Sources); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailoverViolations(t *testing.T) {
	t.Parallel()
	const west, east = "arn:aws:secretsmanager:us-west-2:1:secret:s", "arn:aws:secretsmanager:us-east-1:1:secret:s"
	for name, tt := range map[string]struct {
		object, text string
	}{
		"no alias": {"{objectName: o, objectType: secretsmanager, failoverObject: {objectName: p}}", "objectAlias: object alias must be specified for objects with failover entries: o"},
		"no type": {
			"{objectName: '" + west + "', objectAlias: f, failoverObject: {objectName: p}}",
			"failoverObject.objectName: Must use objectType when a full ARN is not specified: p",
		},
		"no type for the first": {
			"{objectName: o, objectAlias: f, failoverObject: {objectName: '" + east + "'}}",
			"objectName: Must use objectType when a full ARN is not specified: o",
		},
		"unknown type, told once": {
			"{objectName: o, objectType: x, objectAlias: f, failoverObject: {objectName: '" + east + "'}}",
			"objectType: Invalid objectType: x",
		},
		"unknown type, of names": {"{objectName: o, objectType: x, objectAlias: f, failoverObject: {objectName: p}}", "objectType: Invalid objectType: x"},
		"first region's ARN": {
			"{objectName: o, objectType: secretsmanager, objectAlias: f, failoverObject: {objectName: '" + west + "'}}",
			"failoverObject.objectName: ARN region must match region us-east-1: " + west,
		},
		"failover region's ARN": {"{objectName: '" + east + "', objectAlias: f, failoverObject: {objectName: '" + east + "'}}", "objectName: ARN region must match region us-west-2: " + east},
		"inherited ARN":         {"{objectName: '" + west + "', objectAlias: f}", "failoverObject: ARN region must match region us-east-1: " + west + ": set failoverObject.objectName"},
		"no ARN":                {"{objectName: o, objectType: secretsmanager, objectAlias: f, failoverObject: {objectName: 'arn:a'}}", "failoverObject.objectName: Invalid ARN format in object name: arn:a"},
		"other service":         {"{objectName: '" + west + "', objectAlias: f, failoverObject: {objectName: 'arn:aws:bad:us-east-1:1:secret:s'}}", "failoverObject.objectName: Invalid service in ARN: bad"},
		"other type": {
			"{objectName: '" + west + "', objectType: secretsmanager, objectAlias: f, failoverObject: {objectName: 'arn:aws:bad:us-east-1:1:secret:s'}}",
			"failoverObject.objectName: objectType does not match ARN: arn:aws:bad:us-east-1:1:secret:s",
		},
		"two services": {
			"{objectName: '" + west + "', objectAlias: f, failoverObject: {objectName: 'arn:aws:ssm:us-east-1:1:parameter/s'}}",
			"failoverObject.objectName: objectType does not match ARN: arn:aws:ssm:us-east-1:1:parameter/s",
		},
		"no version": {
			"{objectName: o, objectType: secretsmanager, objectVersion: v, objectAlias: f, failoverObject: {objectName: p}}",
			"failoverObject.objectVersion: object versions must match between primary and failover regions: o",
		},
		"other version": {
			"{objectName: o, objectType: secretsmanager, objectVersion: v, objectAlias: f, failoverObject: {objectName: p, objectVersion: w}}",
			"failoverObject.objectVersion: object versions must match between primary and failover regions: o",
		},
		"version and label": {
			"{objectName: o, objectType: ssmparameter, objectVersion: 1, objectAlias: f, failoverObject: {objectName: p, objectVersion: 1, objectVersionLabel: l}}",
			"failoverObject.objectVersionLabel: ssm parameters can not specify both objectVersion and objectVersionLabel: o",
		},
		"version, and label alone": {
			"{objectName: o, objectType: ssmparameter, objectVersion: 1, failoverObject: {objectVersionLabel: l}}",
			"failoverObject.objectVersionLabel: ssm parameters can not specify both objectVersion and objectVersionLabel: o",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseObjects("- "+tt.object, sdk.Parameters{FailoverRegion: "us-east-1"})
			oneViolation(t, err, "objects[0]."+tt.text)
		})
	}
	_, err := parseObjects("- {objectName: o, objectType: secretsmanager, objectAlias: f, failoverObject: {objectName: p}}", nil)
	oneViolation(t, err, "objects[0].failoverObject: failover object allowed only when failover region is defined: o")
	// What is wrong already is not compared.
	_, err = parseObjects("- {objectName: 'arn:aws:sts:us-west-2:1:x'}", sdk.Parameters{FailoverRegion: "us-east-1"})
	oneViolation(t, err, "objects[0].objectName: Invalid service in ARN: sts")
	_, err = parseObjects("- {objectName: '"+west+"'}", sdk.Parameters{FailoverRegion: "US"})
	oneViolation(t, err, `failoverRegion: "US" is not the name of a region`)
	// Without a region there is none to compare with.
	_, err = parseObjects("- {objectName: '"+west+"'}", sdk.Parameters{Region: ""})
	oneViolation(t, err, "region: failed to retrieve region from node")
}

func TestName(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]Object{
		"a/b":                         {Sources: []Source{{ID: "a/b"}, {ID: "c"}}, File: "a_b"},
		"namePrefix a/":               {Select: &Select{NamePrefix: "a/"}},
		"tags a=1,b=":                 {Select: &Select{Tags: map[string]string{"b": "", "a": "1"}}, File: "f"},
		"namePrefix a/ tags env=prod": {Select: &Select{NamePrefix: "a/", Tags: map[string]string{"env": "prod"}}},
		"f":                           {File: "f"},
	} {
		if got := o.Name(); got != want {
			t.Errorf("Name = %q, want %q", got, want)
		}
	}
}
