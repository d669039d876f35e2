package params

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
)

const one = "- {objectName: o, objectType: secretsmanager}"

func valid() sdk.Parameters { return sdk.Parameters{Region: "us-west-2", Objects: one} }

func with(set sdk.Parameters) sdk.Parameters {
	p := valid()
	maps.Copy(p, set)
	return p
}

// violations are "field: description" of each violation.
func violations(t *testing.T, err error) []string {
	t.Helper()
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Reason != sdk.ReasonInvalidParameters {
		t.Fatalf("error = %v, want INVALID_PARAMETERS", err)
	}
	texts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		texts[i] = f.Field + ": " + f.Description
	}
	return texts
}

// oneViolation checks that there is one violation, which begins with text.
func oneViolation(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", text)
	}
	if got := violations(t, err); len(got) != 1 || !strings.HasPrefix(got[0], text) {
		t.Errorf("violations:\n%s\nwant one:\n%s", strings.Join(got, "\n"), text)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	base := func(change func(*Spec)) *Spec {
		s := &Spec{
			Regions: []string{"us-west-2"}, AddressType: Auto, Translation: "_",
			Objects: []Object{{Service: SecretsManager, Sources: []Source{{ID: "o"}}, File: "o"}},
		}
		change(s)
		return s
	}
	address := func(a AddressType) *Spec { return base(func(s *Spec) { s.AddressType = a }) }
	translation := func(text, file string) *Spec {
		return base(func(s *Spec) { s.Translation, s.Objects[0].Sources[0].ID, s.Objects[0].File = text, "a/b", file })
	}
	const path = "- {objectName: a/b, objectType: secretsmanager}"
	for name, tt := range map[string]struct {
		set  sdk.Parameters
		want *Spec
	}{
		"defaults":           {nil, base(func(*Spec) {})},
		"unknown parameters": {sdk.Parameters{"x": "y", "podIdentityHttpTimeout": "z"}, base(func(*Spec) {})},
		"default region":     {sdk.Parameters{Region: ""}, base(func(s *Spec) { s.Regions = []string{"eu-central-1"} })},
		"China":              {sdk.Parameters{Region: "cn-north-1"}, base(func(s *Spec) { s.Regions = []string{"cn-north-1"} })},
		"failover": {sdk.Parameters{FailoverRegion: "us-east-1"}, base(func(s *Spec) {
			s.Regions, s.Objects[0].Sources = []string{"us-west-2", "us-east-1"}, []Source{{ID: "o"}, {ID: "o"}}
		})},
		"role": {sdk.Parameters{RoleARN: "arn:aws-us-gov:iam::111122223333:role/path/app"}, base(func(s *Spec) {
			s.RoleARN = "arn:aws-us-gov:iam::111122223333:role/path/app"
		})},
		"pod identity":         {sdk.Parameters{UsePodIdentity: "T"}, base(func(s *Spec) { s.PodIdentity = true })},
		"no pod identity":      {sdk.Parameters{UsePodIdentity: "0"}, base(func(*Spec) {})},
		"ipv4":                 {sdk.Parameters{PreferredAddressType: "IPv4"}, address(IPv4)},
		"ipv6":                 {sdk.Parameters{PreferredAddressType: "IPV6"}, address(IPv6)},
		"auto":                 {sdk.Parameters{PreferredAddressType: "AUTO"}, address(Auto)},
		"no address type":      {sdk.Parameters{PreferredAddressType: "ipv5"}, address(Auto)},
		"default translation":  {sdk.Parameters{Objects: path}, translation("_", "a_b")},
		"other translation":    {sdk.Parameters{Objects: path, PathTranslation: "-"}, translation("-", "a-b")},
		"wide translation":     {sdk.Parameters{Objects: path, PathTranslation: "é"}, translation("é", "aéb")},
		"no translation":       {sdk.Parameters{Objects: path, PathTranslation: "False"}, translation("", "a/b")},
		"no translation, caps": {sdk.Parameters{Objects: path, PathTranslation: "fALSE"}, translation("", "a/b")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(with(tt.set), Defaults{Region: "eu-central-1"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseViolations(t *testing.T) {
	t.Parallel()
	const role = "roleArn: \"%s\" is not the ARN of an IAM role, such as arn:aws:iam::111122223333:role/app"
	notRole := func(text string) string { return strings.Replace(role, "%s", text, 1) }
	for name, tt := range map[string]struct {
		set  sdk.Parameters
		text string
	}{
		"no region": {sdk.Parameters{Region: ""}, "region: failed to retrieve region from node: set the parameter region, the Helm value " +
			"provider-aws.aws.region, or the node's label topology.kubernetes.io/region"},
		"host as region":     {sdk.Parameters{Region: "us-east-1.example.com/"}, `region: "us-east-1.example.com/" is not the name of a region`},
		"region's case":      {sdk.Parameters{Region: "US-EAST-1"}, `region: "US-EAST-1" is not the name of a region, such as eu-central-1`},
		"region's hyphen":    {sdk.Parameters{Region: "us-east-"}, `region: "us-east-" is not the name of a region`},
		"failover's name":    {sdk.Parameters{FailoverRegion: "us east"}, `failoverRegion: "us east" is not the name of a region`},
		"same region":        {sdk.Parameters{FailoverRegion: "us-west-2"}, "failoverRegion: failover region cannot be the same as the primary region"},
		"yes":                {sdk.Parameters{UsePodIdentity: "yes"}, `usePodIdentity: failed to parse usePodIdentity value: must be true or false, not "yes"`},
		"translation":        {sdk.Parameters{PathTranslation: "--"}, "pathTranslation: pathTranslation must be either 'False' or a single character string"},
		"true translation":   {sdk.Parameters{PathTranslation: "True"}, "pathTranslation: pathTranslation must be either"},
		"role's name":        {sdk.Parameters{RoleARN: "app"}, notRole("app")},
		"user":               {sdk.Parameters{RoleARN: "arn:aws:iam::111122223333:user/app"}, notRole("arn:aws:iam::111122223333:user/app")},
		"role without name":  {sdk.Parameters{RoleARN: "arn:aws:iam::111122223333:role/"}, notRole("arn:aws:iam::111122223333:role/")},
		"role of STS":        {sdk.Parameters{RoleARN: "arn:aws:sts::111122223333:role/app"}, notRole("arn:aws:sts::111122223333:role/app")},
		"role of a region":   {sdk.Parameters{RoleARN: "arn:aws:iam:us-west-2:111122223333:role/a"}, notRole("arn:aws:iam:us-west-2:111122223333:role/a")},
		"role of no account": {sdk.Parameters{RoleARN: "arn:aws:iam::1:role/app"}, notRole("arn:aws:iam::1:role/app")},
		"role and pod identity": {
			sdk.Parameters{RoleARN: "arn:aws:iam::111122223333:role/app", UsePodIdentity: "true"},
			"roleArn: has no effect with usePodIdentity",
		},
		"no objects":        {sdk.Parameters{Objects: ""}, "objects: is required: a YAML list of what to read"},
		"blank objects":     {sdk.Parameters{Objects: " \n"}, "objects: is required"},
		"comment":           {sdk.Parameters{Objects: "# nothing"}, "objects: is required"},
		"empty list":        {sdk.Parameters{Objects: "[]"}, "objects: is required"},
		"no YAML":           {sdk.Parameters{Objects: "- objectName: a\n- {"}, "objects: is not valid YAML"},
		"map":               {sdk.Parameters{Objects: "objectName: a"}, "objects: is a map, where a list is wanted"},
		"list for a string": {sdk.Parameters{Objects: "- objectName: [a]"}, "objects: field objectName is a list, where a string is wanted"},
		"null entry":        {sdk.Parameters{Objects: one + "\n-"}, "objects[1]: Empty descriptor entry"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec, err := Parse(with(tt.set), Defaults{})
			if spec != nil {
				t.Errorf("spec = %+v beside an error", spec)
			}
			oneViolation(t, err, tt.text)
		})
	}
}

// TestParseTellsAllViolations also checks their order, and that one mistake is
// told once.
func TestParseTellsAllViolations(t *testing.T) {
	t.Parallel()
	_, err := Parse(sdk.Parameters{
		UsePodIdentity: "yes", PathTranslation: "__", RoleARN: "x", FailoverRegion: "us-east-1",
		Objects: `
- objectName: arn:aws:secretsmanager:eu-west-1:111122223333:secret:a
  objectType: ssmparameter
  objectVersion: "1"
  objectVersionLabel: l
  filePermission: "999"
  failoverObject: {objectName: arn:aws:secretsmanager:us-east-1:111122223333:secret:a}
- null
- objectName: ../p
  objectType: ssmparameter
  objectVersion: "1"
  objectVersionLabel: l
  filePermission: rw
  jmesPath:
    - {path: a-b}
    - {objectAlias: ../x, filePermission: "1"}
- objectType: SSMParameter
  objectAlias: ok
- {objectName: ok, objectType: ssm, failoverObject: {objectName: x}}
- {objectType: secretsmanager}
- {objectType: secretsmanager}
`,
	}, Defaults{})
	want := []string{
		"region: failed to retrieve region from node",
		"usePodIdentity: failed to parse usePodIdentity value",
		"pathTranslation: pathTranslation must be either",
		"roleArn: ",
		"objects[0].objectName: objectType does not match ARN: arn:aws:secretsmanager:eu-west-1:111122223333:secret:a",
		"objects[0].filePermission: Invalid File Permission: 999: ",
		"objects[0].objectAlias: object alias must be specified for objects with failover entries: arn:aws",
		"objects[0].failoverObject.objectName: objectType does not match ARN: arn:aws:secretsmanager:us-east-1",
		"objects[0].failoverObject.objectVersion: object versions must match between primary and failover regions: arn:aws",
		"objects[1]: Empty descriptor entry",
		"objects[2].objectVersionLabel: ssm parameters can not specify both objectVersion and objectVersionLabel: ../p",
		"objects[2].filePermission: Invalid File Permission: rw: ",
		`objects[2].jmesPath[0].path: Invalid JMES Path: a-b. A key that holds "-" must be quoted: "a-b"`,
		"objects[2].jmesPath[0].objectAlias: Object alias must be specified for JMES object",
		"objects[2].jmesPath[1].path: Path must be specified for JMES object",
		"objects[2].jmesPath[1].filePermission: Invalid File Permission: 1: ",
		`objects[2].objectName: ".._p" cannot be a file: the path starts with "..": set another objectAlias`,
		`objects[2].jmesPath[1].objectAlias: ".._x" cannot be a file`,
		"objects[3].objectName: Object name must be specified",
		"objects[4].objectType: Invalid objectType: ssm: must be secretsmanager or ssmparameter",
		"objects[4].objectAlias: object alias must be specified",
		`objects[4].objectName: "ok" is already the file of objects[3].objectAlias: set another objectAlias`,
		"objects[5].objectName: Object name must be specified",
		"objects[6].objectName: Object name must be specified",
	}
	got := violations(t, err)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing: %s", want[i])
		case i >= len(want):
			t.Errorf("too many: %s", got[i])
		case !strings.HasPrefix(got[i], want[i]):
			t.Errorf("violation %d:\n%s\nwant\n%s", i, got[i], want[i])
		}
	}
}

func TestParametersAreDeclared(t *testing.T) {
	t.Parallel()
	locate := map[string]bool{}
	for _, p := range Parameters() {
		if p.Description == "" || p.Required != (p.Name == Objects) {
			t.Errorf("parameter %+v", p)
		}
		locate[p.Name] = p.LocatesStore
	}
	want := map[string]bool{
		"objects": false, "region": true, "failoverRegion": true, "roleArn": false, "pathTranslation": false,
		"usePodIdentity": false, "preferredAddressType": false,
	}
	if diff := cmp.Diff(want, locate); diff != "" {
		t.Errorf("which locate the store (-want +got):\n%s", diff)
	}
}
