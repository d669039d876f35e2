package models_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/aws/models"
)

// Commit what it writes only if you understand the difference.
var update = flag.Bool("update", false, "write the models")

// source is the module that has the models. Its version stands for good: it is
// the last one.
const source = "github.com/aws/aws-sdk-go@v1.55.8"

// cut says which operations of which models the double serves.
func cut() map[string]struct {
	dir        string
	operations []string
} {
	return map[string]struct {
		dir        string
		operations []string
	}{
		"secretsmanager": {"secretsmanager/2017-10-17", []string{"GetSecretValue", "BatchGetSecretValue", "DescribeSecret", "ListSecrets"}},
		"ssm":            {"ssm/2014-11-06", []string{"GetParameters", "GetParameter", "DescribeParameters"}},
		"sts":            {"sts/2011-06-15", []string{"AssumeRoleWithWebIdentity"}},
	}
}

func TestModelsAreThoseOfTheModule(t *testing.T) {
	t.Parallel()
	dir := moduleDir(t)
	for service, c := range cut() {
		api, err := os.ReadFile(filepath.Join(dir, "models/apis", c.dir, "api-2.json"))
		if err != nil {
			t.Fatal(err)
		}
		want, err := reduce(api, c.operations)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(service+".json", want, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(service + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s.json is not what %s has: go test -update, and look at the difference", service, source)
		}
	}
}

// moduleDir returns where the module is, downloaded if need be.
func moduleDir(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", source)
	cmd.Dir = t.TempDir() // no module, so that go.mod stays as it is
	cmd.Env = append(os.Environ(), "GOWORK=off")
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("download %s: %v\n%s", source, err, output)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(output, &module); err != nil {
		t.Fatal(err)
	}
	return module.Dir
}

const longID = "0123456789abcdef0123456789abcdef"

func TestCheckInput(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		service, operation, document string
		want                         []models.Violation
	}{
		"whole":        {"secretsmanager", "GetSecretValue", `{"SecretId":"a","VersionId":"` + longID + `"}`, nil},
		"null member":  {"secretsmanager", "GetSecretValue", `{"SecretId":"a","VersionId":null}`, nil},
		"required":     {"secretsmanager", "GetSecretValue", `{}`, []models.Violation{{"secretId", "Member must not be null"}}},
		"too short":    {"secretsmanager", "GetSecretValue", `{"SecretId":""}`, []models.Violation{{"secretId", "Member must have length greater than or equal to 1"}}},
		"unknown":      {"secretsmanager", "GetSecretValue", `{"SecretId":"a","Secretid":"b"}`, []models.Violation{{"secretid", "unknown member Secretid"}}},
		"not a string": {"secretsmanager", "GetSecretValue", `{"SecretId":1}`, []models.Violation{{"secretId", "not a string"}}},
		"not a list":   {"secretsmanager", "BatchGetSecretValue", `{"SecretIdList":"a"}`, []models.Violation{{"secretIdList", "not a list"}}},
		"too many": {
			"secretsmanager", "BatchGetSecretValue", `{"SecretIdList":[` + strings.Repeat(`"a",`, 20) + `"a"]}`,
			[]models.Violation{{"secretIdList", "Member must have length less than or equal to 20"}},
		},
		"in a list": {
			"secretsmanager", "BatchGetSecretValue", `{"SecretIdList":["a",""]}`,
			[]models.Violation{{"secretIdList.2.member", "Member must have length greater than or equal to 1"}},
		},
		"enum": {
			"secretsmanager", "ListSecrets", `{"Filters":[{"Key":"names","Values":["a"]}]}`,
			[]models.Violation{{"filters.1.member.key", "Member must satisfy enum value set: [description, name, tag-key, tag-value, primary-region, owning-service, all]"}},
		},
		"pattern": {
			"secretsmanager", "ListSecrets", `{"Filters":[{"Key":"name","Values":["a%"]}]}`,
			[]models.Violation{{"filters.1.member.values.1.member", `Member must satisfy regular expression pattern: ^\!?[a-zA-Z0-9 :_@\/\+\=\.\-\!]*$`}},
		},
		"number":        {"secretsmanager", "ListSecrets", `{"MaxResults":101}`, []models.Violation{{"maxResults", "Member must have value less than or equal to 100"}}},
		"small number":  {"secretsmanager", "ListSecrets", `{"MaxResults":0}`, []models.Violation{{"maxResults", "Member must have value greater than or equal to 1"}}},
		"fraction":      {"secretsmanager", "ListSecrets", `{"MaxResults":1.5}`, []models.Violation{{"maxResults", "not a integer"}}},
		"boolean":       {"ssm", "GetParameters", `{"Names":["a"],"WithDecryption":"true"}`, []models.Violation{{"withDecryption", "not a boolean"}}},
		"empty list":    {"ssm", "GetParameters", `{"Names":[]}`, []models.Violation{{"names", "Member must have length greater than or equal to 1"}}},
		"no structure":  {"ssm", "GetParameters", `[]`, []models.Violation{{"", "not a structure"}}},
		"no operation":  {"ssm", "PutParameter", `{}`, []models.Violation{{"", "the model has no operation PutParameter"}}},
		"code points":   {"sts", "AssumeRoleWithWebIdentity", `{"RoleArn":"arn:aws:iam::1:role/é","RoleSessionName":"a@b","WebIdentityToken":"abcd"}`, nil},
		"whole pattern": {"sts", "AssumeRoleWithWebIdentity", `{"RoleArn":"arn:aws:iam::1:role/abc","RoleSessionName":"a b","WebIdentityToken":"abcd"}`, []models.Violation{{"roleSessionName", `Member must satisfy regular expression pattern: [\w+=,.@-]*`}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := load(t, test.service).CheckInput(test.operation, document(t, test.document))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("CheckInput(%s) (-want +got):\n%s", test.document, diff)
			}
		})
	}
}

func TestCheckOutput(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		service, operation, document string
		want                         []models.Violation
	}{
		"blob":             {"secretsmanager", "GetSecretValue", `{"SecretBinary":"AAE="}`, nil},
		"not base64":       {"secretsmanager", "GetSecretValue", `{"SecretBinary":"%"}`, []models.Violation{{"secretBinary", "not a blob"}}},
		"empty blob":       {"secretsmanager", "GetSecretValue", `{"SecretBinary":""}`, []models.Violation{{"secretBinary", "Member must have length greater than or equal to 1"}}},
		"timestamp":        {"secretsmanager", "GetSecretValue", `{"CreatedDate":1523477145.713}`, nil},
		"ISO timestamp":    {"sts", "AssumeRoleWithWebIdentity", `{"Credentials":{"AccessKeyId":"ASIAIOSFODNN7EXAMPLE","SecretAccessKey":"s","SessionToken":"t","Expiration":"2014-10-24T23:00:23Z"}}`, nil},
		"not a timestamp":  {"secretsmanager", "GetSecretValue", `{"CreatedDate":"yesterday"}`, []models.Violation{{"createdDate", "not a timestamp"}}},
		"map":              {"secretsmanager", "DescribeSecret", `{"VersionIdsToStages":{"` + longID + `":["AWSCURRENT"]}}`, nil},
		"not a map":        {"secretsmanager", "DescribeSecret", `{"VersionIdsToStages":[]}`, []models.Violation{{"versionIdsToStages", "not a map"}}},
		"key of a map":     {"secretsmanager", "DescribeSecret", `{"VersionIdsToStages":{"1":["AWSCURRENT"]}}`, []models.Violation{{"versionIdsToStages.key", "Member must have length greater than or equal to 32"}}},
		"value of a map":   {"secretsmanager", "DescribeSecret", `{"VersionIdsToStages":{"` + longID + `":[]}}`, []models.Violation{{"versionIdsToStages." + longID, "Member must have length greater than or equal to 1"}}},
		"required, nested": {"sts", "AssumeRoleWithWebIdentity", `{"AssumedRoleUser":{"Arn":"arn:aws:sts::1:assumed-role/a/b"}}`, []models.Violation{{"assumedRoleUser.assumedRoleId", "Member must not be null"}}},
		"no operation":     {"ssm", "PutParameter", `{}`, []models.Violation{{"", "the model has no operation PutParameter"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := load(t, test.service).CheckOutput(test.operation, document(t, test.document))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("CheckOutput(%s) (-want +got):\n%s", test.document, diff)
			}
		})
	}
}

func TestCheckError(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		service, operation, code string
		document                 map[string]any
		want                     []models.Violation
	}{
		"of the operation":   {"secretsmanager", "GetSecretValue", "ResourceNotFoundException", map[string]any{"Message": "x"}, nil},
		"its member's case":  {"secretsmanager", "GetSecretValue", "ResourceNotFoundException", map[string]any{"message": "x"}, []models.Violation{{"message", "unknown member message"}}},
		"lower case in ssm":  {"ssm", "GetParameter", "ParameterNotFound", map[string]any{"message": "x"}, nil},
		"of all":             {"secretsmanager", "GetSecretValue", "ThrottlingException", map[string]any{"message": "x"}, nil},
		"of another":         {"ssm", "GetParameters", "ParameterNotFound", nil, []models.Violation{{"", "operation GetParameters has no error ParameterNotFound"}}},
		"code on the wire":   {"sts", "AssumeRoleWithWebIdentity", "InvalidIdentityToken", map[string]any{"message": "x"}, nil},
		"unknown everywhere": {"ssm", "GetParameters", "Nonsense", nil, []models.Violation{{"", "operation GetParameters has no error Nonsense"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := load(t, test.service).CheckError(test.operation, test.code, test.document)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("CheckError(%s) (-want +got):\n%s", test.code, diff)
			}
		})
	}
}

func load(t *testing.T, service string) *models.Model {
	t.Helper()
	m, err := models.Load(service)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func document(t *testing.T, text string) any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
