package aws_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/models"
)

// exampleAccount is the account of AWS' examples.
const exampleAccount = "123456789012"

// example is one of AWS' examples-1.json.
type example struct {
	Title         string
	Input, Output map[string]any
}

// examples reads those of a service, with the placeholders filled in that were
// left in them.
func examples(t *testing.T, service string) map[string][]example {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "github.com/aws/aws-sdk-go@v1.55.8")
	cmd.Dir = t.TempDir() // no module, so that go.mod stays as it is
	cmd.Env = append(os.Environ(), "GOWORK=off")
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("download AWS' examples: %v\n%s", err, output)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(output, &module); err != nil {
		t.Fatal(err)
	}
	contents, err := os.ReadFile(filepath.Join(module.Dir, "models/apis", service, "examples-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(
		"&region-arn;&asm-service-name;", "arn:aws:secretsmanager", "&ExampleAccountId;", exampleAccount,
	).Replace(string(contents))
	var all struct{ Examples map[string][]example }
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all.Examples
}

// exampleDouble is a double in the examples' account and region.
func exampleDouble(t *testing.T) *double {
	t.Helper()
	d := start(t, aws.Config{Account: exampleAccount})
	d.apply(t, control.Document{Roles: []control.Role{{ARN: "arn:aws:iam::123456789012:role/example", Policy: json.RawMessage(all)}}})
	return d
}

// replay sends an example's input as it is, and returns the answer as it is.
func (d *double) replay(t *testing.T, operation string, input map[string]any) map[string]any {
	t.Helper()
	body, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	made, err := d.Login(t.Context(), control.Login{Role: "arn:aws:iam::123456789012:role/example"})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.server.Addresses.Endpoint+"/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "secretsmanager."+operation)
	credentials, err := d.configOf(made, "").Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := v4.NewSigner().SignHTTP(t.Context(), credentials, req, sha256Hex(body), "secretsmanager", "us-west-2", time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	decoder := json.NewDecoder(resp.Body)
	decoder.UseNumber()
	var answer map[string]any
	if err := decoder.Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v, %v", operation, resp.Status, answer, err)
	}
	return answer
}

// seedOf is the secret that an example's output speaks of.
func seedOf(t *testing.T, output map[string]any) []control.Secret {
	t.Helper()
	var s struct {
		Arn, Name, Description, KmsKeyID, SecretString, VersionID string
		VersionStages                                             []string
		CreatedDate, LastChangedDate                              float64
		VersionIDsToStages, SecretVersionsToStages                map[string][]string
		Tags                                                      []struct{ Key, Value string }
	}
	recode(t, output, &s)
	arn := strings.Split(s.Arn, ":")
	first := control.Secret{
		Region: arn[3], Name: s.Name, Suffix: s.Arn[len(s.Arn)-6:], Description: s.Description, KMSKeyID: s.KmsKeyID,
		Created: timeOf(cmp.Or(s.CreatedDate, s.LastChangedDate)), Details: map[string]any{}, Tags: map[string]string{},
	}
	for _, tag := range s.Tags {
		first.Tags[tag.Key] = tag.Value
	}
	for _, name := range []string{"LastAccessedDate", "LastRotatedDate", "NextRotationDate", "RotationEnabled", "RotationLambdaARN", "RotationRules"} {
		if value, ok := output[name]; ok {
			first.Details[name] = value
		}
	}
	if s.VersionID != "" {
		first.VersionID, first.String = s.VersionID, &s.SecretString
		return []control.Secret{first}
	}
	var versions []control.Secret
	stages := s.VersionIDsToStages
	if stages == nil {
		stages = s.SecretVersionsToStages
	}
	for id, names := range stages {
		v := first
		v.VersionID, v.Stages, v.String = id, names, ptr("x")
		versions = append(versions, v)
	}
	return versions
}

func model(t *testing.T, service string) *models.Model {
	t.Helper()
	m, err := models.Load(service)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func sha256Hex(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func timeOf(seconds float64) time.Time { return time.UnixMilli(int64(seconds*1000 + 0.5)).UTC() }

func recode(t *testing.T, from, to any) {
	t.Helper()
	encoded, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(encoded, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// fix changes what AWS' examples have wrong: dates as strings, tags in no order,
// and a version that GetSecretValue would not answer without being asked for it.
func fix(operation string, output map[string]any) {
	for name, value := range output {
		if text, ok := value.(string); ok && strings.HasSuffix(name, "Date") {
			output[name] = json.Number(text)
		}
	}
	if operation == "GetSecretValue" {
		output["VersionStages"] = []any{"AWSCURRENT"}
	}
	if tags, ok := output["Tags"].([]any); ok && len(tags) == 2 {
		output["Tags"] = []any{tags[1], tags[0]}
	}
}

// without removes members that the double tells and the example does not: when the
// secret was made, and tags that it has none of.
func without(answer, example map[string]any) {
	for _, name := range []string{"CreatedDate", "Tags"} {
		if _, ok := example[name]; !ok {
			delete(answer, name)
		}
	}
}

func TestExamplesOfSecretsManager(t *testing.T) {
	t.Parallel()
	replayed := 0
	for operation, examples := range examples(t, "secretsmanager/2017-10-17") {
		for _, e := range examples {
			if _, served := model(t, "secretsmanager").Operations[operation]; !served {
				continue
			}
			replayed++
			t.Run(operation, func(t *testing.T) {
				t.Parallel()
				d := exampleDouble(t)
				entries := []any{e.Output}
				for _, list := range []string{"SecretValues", "SecretList"} {
					if inner, ok := e.Output[list].([]any); ok {
						entries = inner
					}
				}
				for _, entry := range entries {
					fix(operation, entry.(map[string]any))
					d.apply(t, control.Document{Secrets: seedOf(t, entry.(map[string]any))})
				}
				got := d.replay(t, operation, e.Input)
				without(got, e.Output)
				if inner, ok := got["SecretList"].([]any); ok {
					for i, entry := range inner {
						without(entry.(map[string]any), entries[i].(map[string]any))
					}
				}
				if diff := gocmp.Diff(e.Output, got); diff != "" {
					t.Errorf("%s (-AWS' example +answer):\n%s", e.Title, diff)
				}
			})
		}
	}
	if replayed != 4 {
		t.Errorf("%d examples, want one of each operation", replayed)
	}
}

// The example of STS is of a token that is none of OpenID Connect, so it cannot
// be replayed: its input has to pass the model, and its output to be written and
// read as it is.
func TestExampleOfSTS(t *testing.T) {
	t.Parallel()
	all := examples(t, "sts/2011-06-15")["AssumeRoleWithWebIdentity"]
	if len(all) != 1 {
		t.Fatalf("%d examples, want 1", len(all))
	}
	sts := model(t, "sts")
	if found := sts.CheckInput("AssumeRoleWithWebIdentity", any(all[0].Input)); len(found) != 0 {
		t.Errorf("input: %v", found)
	}
	if found := sts.CheckOutput("AssumeRoleWithWebIdentity", any(all[0].Output)); len(found) != 0 {
		t.Errorf("output: %v", found)
	}
	d := start(t, aws.Config{})
	form := url.Values{"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}}
	for name, value := range all[0].Input {
		switch value := value.(type) {
		case string:
			form.Set(name, value)
		case json.Number:
			form.Set(name, value.String())
		}
	}
	resp, err := d.http.PostForm(d.server.Addresses.Endpoint, form)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		XMLName xml.Name
		Error   struct{ Type, Code, Message string }
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if answer.XMLName.Space != "https://sts.amazonaws.com/doc/2011-06-15/" || answer.Error.Code != "InvalidIdentityToken" || answer.Error.Type != "Sender" {
		t.Errorf("%s: %+v", resp.Status, answer)
	}
}
