package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

// doubleEnv names the test double of AWS, test/cmd/postern-aws. It verifies each
// signature and policy, and checks requests and answers with AWS' service models.
const doubleEnv = "POSTERN_TEST_AWS"

type double struct {
	t        *testing.T
	client   *http.Client
	Endpoint string `json:"endpoint"`
	Control  string `json:"control"`
}

// startDouble runs one for the time of a test. At its end there must be nothing
// that broke the models.
func startDouble(t *testing.T) *double {
	t.Helper()
	binary := os.Getenv(doubleEnv)
	if binary == "" {
		t.Fatalf("%s does not name the test double of AWS: run the tests with make unit/providers/aws, or build it: cd test && go build -o /tmp/postern-aws ./cmd/postern-aws", doubleEnv)
	}
	ready := filepath.Join(t.TempDir(), "ready.json")
	command := exec.Command(binary, "--ready-file", ready, "--pod-identity", "off")
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when a test times out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	d := &double{t: t, client: &http.Client{Transport: transport}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; {
		if data, err := os.ReadFile(ready); err == nil && json.Unmarshal(data, d) == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the test double does not get ready")
		}
		<-time.After(10 * time.Millisecond) // it cannot be waited for otherwise
	}
	t.Cleanup(func() {
		var found struct{ Violations []any }
		if d.call(http.MethodGet, "/violations", nil, &found); len(found.Violations) > 0 {
			t.Errorf("requests or answers that break AWS' service models: %v", found.Violations)
		}
	})
	return d
}

// of is the same double, for a part of the test.
func (d *double) of(t *testing.T) *double {
	t.Helper()
	one := *d
	one.t = t
	return &one
}

type document map[string]any

func (d *double) apply(doc document) { d.call(http.MethodPost, "/apply", doc, nil) }

func (d *double) call(method, path string, in, out any) {
	d.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		d.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(context.Background(), method, d.Control+path, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := d.client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		d.t.Fatalf("%s %s: %s: %s (%v)", method, path, resp.Status, data, err)
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			d.t.Fatal(err)
		}
	}
}

// operations counts the requests of a role since the last call.
func (d *double) operations(role string) string {
	d.t.Helper()
	var got struct {
		Requests []struct{ Operation, Role string }
	}
	d.call(http.MethodGet, "/requests", nil, &got)
	d.call(http.MethodDelete, "/calls", nil, nil)
	m := &memoryAWS{}
	for _, r := range got.Requests {
		if strings.HasSuffix(r.Role, "/"+role) {
			m.requests = append(m.requests, request{operation: r.Operation})
		}
	}
	return m.operations()
}

// as makes a role that may do what actions say with anything but "forbidden", and
// returns the home region with its credentials.
func (d *double) as(role string, actions ...string) Region {
	d.t.Helper()
	arn := "arn:aws:iam::" + account + ":role/" + role
	d.apply(document{"roles": []any{document{"arn": arn, "policy": document{"Version": "2012-10-17", "Statement": []any{
		document{"Effect": "Allow", "Action": actions, "Resource": "*"},
		document{"Effect": "Deny", "Action": "*", "Resource": []string{"arn:aws:secretsmanager:*:*:secret:forbidden-*", "arn:aws:ssm:*:*:parameter/forbidden"}},
	}}}}})
	var key struct{ AccessKeyID, SecretAccessKey, SessionToken string }
	d.call(http.MethodPost, "/credentials", document{"role": arn, "session": "s", "lifetime": "1h"}, &key)
	return Region{Name: home, Identity: role, Credentials: credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey, key.SessionToken)}
}

func (d *double) store() *Store {
	return New(Config{AWS: aws.Config{
		HTTPClient: d.client, BaseEndpoint: &d.Endpoint, RetryMaxAttempts: 1, // its waits are tested in other time
		Credentials: credentials.NewStaticCredentialsProvider("AKIAPROVIDER", "powerful", ""),
	}})
}

func TestDouble(t *testing.T) {
	t.Parallel()
	d := startDouble(t)
	var secrets, parameters []any
	for i := range 25 {
		secrets = append(secrets, document{"region": home, "name": fmt.Sprintf("app/s%02d", i), "versionId": versionOf(fmt.Sprintf("s%02d", i)), "string": fmt.Sprint("value ", i), "tags": document{"team": "web"}})
		parameters = append(parameters, document{"region": home, "name": fmt.Sprintf("/app/p%02d", i), "type": "SecureString", "value": fmt.Sprint("value ", i), "tags": document{"team": "web"}})
	}
	d.apply(document{"secrets": append(
		secrets,
		document{"region": home, "name": "rotated", "versionId": versionOf("old"), "string": "old"},
		document{"region": home, "name": "rotated", "versionId": versionOf("new"), "string": "new"},
		document{"region": home, "name": "binary", "versionId": versionOf("bin"), "binary": base64.StdEncoding.EncodeToString([]byte{0, 0xff})},
		document{"region": home, "name": "deleted", "string": "x", "deleted": true},
		document{"region": home, "name": "forbidden", "string": "x"},
		document{"region": home, "name": "kms", "string": "x", "kms": "denied"},
		document{"region": home, "name": "team/x", "string": "x", "tags": document{"team": "webstore"}},
	), "parameters": append(
		parameters,
		document{"region": home, "name": "/rotated", "value": "one", "labels": []string{"blue"}},
		document{"region": home, "name": "/rotated", "value": "two", "labels": []string{"green"}},
		document{"region": home, "name": "/rotated", "value": "three"},
		document{"region": home, "name": "/forbidden", "value": "x"},
		document{"region": home, "name": "/kms", "type": "SecureString", "value": "x", "kms": "denied"},
	)})
	t.Run("secrets", d.testSecrets)
	t.Run("parameters", d.testParameters)
	t.Run("versions", d.testVersions)
	t.Run("lists", d.testLists)
	t.Run("failures", d.testFailures)
}

const (
	readSecrets    = "secretsmanager:GetSecretValue"
	batchSecrets   = "secretsmanager:BatchGetSecretValue"
	readParameters = "ssm:GetParameters"
)

func (d *double) testSecrets(t *testing.T) {
	d = d.of(t)
	var refs []Ref
	var want []string
	for i := range 25 {
		refs, want = append(refs, secretRef(fmt.Sprintf("app/s%02d", i))), append(want, fmt.Sprintf("s%02d value %d", i, i))
	}
	refs = append(refs, secretRef("rotated").label("AWSPREVIOUS"), secretRef("rotated").version(versionOf("new")), secretRef("rotated"),
		secretRef("binary"), secretRef("deleted"), secretRef("forbidden"), secretRef("kms"), secretRef("none"))
	want = append(want, "old old", "new new", "new new", "bin \x00\xff",
		`not found GetSecretValue InvalidRequestException "deleted"`, `denied GetSecretValue AccessDeniedException "forbidden"`,
		`denied GetSecretValue AccessDeniedException "kms"`, `not found GetSecretValue ResourceNotFoundException "none"`)
	s := d.store()
	may, mayNot := d.as("batch", readSecrets, batchSecrets), d.as("single", readSecrets)
	d.operations("")
	answers := read(t, s, may, refs...)
	wantTexts(t, answers, want...)
	if got, want := d.operations("batch"), "BatchGetSecretValue:2 GetSecretValue:2"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
	if e, ok := errors.AsType[*Error](answers[30].Err); !ok || !strings.Contains(e.Message, "not authorized to perform: secretsmanager:GetSecretValue on resource: forbidden") {
		t.Errorf("denial is %v", answers[30].Err)
	}
	wantTexts(t, read(t, s, mayNot, refs...), want...)
	if got, want := d.operations("single"), "BatchGetSecretValue:2 GetSecretValue:33"; got != want {
		t.Errorf("requests of who may not batch are %q, want %q", got, want)
	}
	wantTexts(t, read(t, s, mayNot, refs[:5]...), want[:5]...)
	if got, want := d.operations("single"), "GetSecretValue:5"; got != want {
		t.Errorf("requests of who may not batch are then %q, want %q", got, want)
	}
}

func (d *double) testParameters(t *testing.T) {
	d = d.of(t)
	arn := "arn:aws:ssm:" + home + ":" + account + ":parameter/rotated"
	refs := []Ref{
		parameterRef("/rotated"), parameterRef("/rotated").label("blue"), parameterRef("/rotated").label("green"), parameterRef("/rotated").version("1"),
		parameterRef("/rotated").label("red"), parameterRef("/none"), parameterRef(arn).label("green"), parameterRef(arn).version("3"),
	}
	want := []string{
		"3 three", "1 one", "2 two", "1 one", `not found GetParameters InvalidParameters "/rotated"`,
		`not found GetParameters InvalidParameters "/none"`, "2 two", "3 three",
	}
	for i := range 12 {
		refs, want = append(refs, parameterRef(fmt.Sprintf("/app/p%02d", i))), append(want, fmt.Sprintf("1 value %d", i))
	}
	may := d.as("parameters", readParameters)
	d.operations("")
	wantTexts(t, read(t, d.store(), may, refs...), want...)
	if got, want := d.operations("parameters"), "GetParameters:3"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
	for id, code := range map[string]string{"/forbidden": "AccessDeniedException", "/kms": "AccessDeniedException"} {
		wantTexts(t, read(t, d.store(), may, parameterRef("/rotated"), parameterRef(id), parameterRef("/app/p01")),
			"3 three", fmt.Sprintf("denied GetParameters %s %q", code, id), "1 value 1")
		if got, want := d.operations("parameters"), "GetParameters:4"; got != want {
			t.Errorf("requests with %s are %q, want %q", id, got, want)
		}
	}
}

func (d *double) testVersions(t *testing.T) {
	d = d.of(t)
	refs := []Ref{
		secretRef("rotated"), secretRef("rotated").label("AWSPREVIOUS"), secretRef("app/s01"), secretRef("none").version("v"),
		parameterRef("/rotated"), parameterRef("/rotated").label("green"), parameterRef("/kms"),
	}
	want := []string{versionOf("new"), versionOf("old"), versionOf("s01"), "v", "3", "2", "1"}
	may := d.as("versions", "secretsmanager:DescribeSecret", readParameters)
	d.operations("")
	got, ok, err := d.store().Versions(t.Context(), may, refs)
	for i, version := range got {
		if got[i] = withoutTime(version); (refs[i].Service == params.ParameterStore) != (got[i] != version) {
			t.Errorf("the version of %s is %q", refs[i].ID, version)
		}
	}
	if !ok || err != nil || !slices.Equal(got, want) {
		t.Errorf("versions are %q, %t, %v; want %q", got, ok, err, want)
	}
	if got, want := d.operations("versions"), "DescribeSecret:2 GetParameters:1"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
	for id, told := range map[string]bool{"deleted": true, "none": true, "forbidden": false} {
		if got, ok, err := d.store().Versions(t.Context(), may, []Ref{secretRef(id)}); ok != told || err != nil || ok && got[0] != "" {
			t.Errorf("versions of %s are %q, %t, %v", id, got, ok, err)
		}
	}
}

func (d *double) testLists(t *testing.T) {
	d = d.of(t)
	d.apply(document{"pageSize": 4})
	may := d.as("lists", "secretsmanager:ListSecrets", "ssm:DescribeParameters", readSecrets)
	for _, sel := range []params.Select{
		{NamePrefix: "app/", Limit: 50}, {Tags: map[string]string{"team": "web"}, Limit: 50}, {NamePrefix: "app/s", Tags: map[string]string{"team": "web"}, Limit: 50},
	} {
		list, err := d.store().List(t.Context(), may, params.SecretsManager, &sel)
		if err != nil || len(list) != 25 || list[7].Name != "app/s07" || list[7].Version != versionOf("s07") {
			t.Fatalf("%v: %d secrets, %v", sel, len(list), err)
		}
		wantTexts(t, read(t, d.store(), may, secretRef(list[7].ID)), "s07 value 7")
	}
	for _, sel := range []params.Select{
		{NamePrefix: "/app/", Limit: 50}, {Tags: map[string]string{"team": "web"}, Limit: 50}, {NamePrefix: "/app/p", Tags: map[string]string{"team": "web"}, Limit: 50},
	} {
		list, err := d.store().List(t.Context(), may, params.ParameterStore, &sel)
		if err != nil || len(list) != 25 || list[7] != (Item{ID: "/app/p07", Name: "/app/p07", Version: "1"}) {
			t.Fatalf("%v: %d parameters, %v", sel, len(list), err)
		}
	}
	list, err := d.store().List(t.Context(), may, params.SecretsManager, &params.Select{NamePrefix: "app/", Limit: 6})
	if err != nil || len(list) != 7 {
		t.Errorf("%d secrets, %v, want one beyond the limit", len(list), err)
	}
	if _, err = d.store().List(t.Context(), d.as("no-lists", readSecrets), params.SecretsManager, &params.Select{NamePrefix: "a", Limit: 1}); text(Answer{Err: err}) != `denied ListSecrets AccessDeniedException ""` {
		t.Errorf("error is %v", err)
	}
}

func (d *double) testFailures(t *testing.T) {
	d = d.of(t)
	may := d.as("failures", readSecrets, batchSecrets, readParameters)
	two := []Ref{secretRef("app/s01"), secretRef("app/s02")}
	for name, tt := range map[string]struct {
		fault document
		want  []string
		after time.Duration
	}{
		"throttled": {
			document{"kind": "throttle", "retryAfter": 60},
			[]string{`throttled BatchGetSecretValue ThrottlingException "app/s01"`, `throttled BatchGetSecretValue ThrottlingException "app/s02"`},
			time.Minute,
		},
		"down": {
			document{"kind": "error", "status": 501, "code": "InternalFailure", "message": "no", "operation": "GetSecretValue"},
			[]string{"s01 value 1", "s02 value 2"},
			0,
		},
		"unknown operation": {
			document{"kind": "unknown-operation", "operation": "BatchGetSecretValue"},
			[]string{"s01 value 1", "s02 value 2"},
			0,
		},
		"item": {
			document{"operation": "BatchGetSecretValue", "item": "app/s02", "code": "InternalServiceError", "kind": "error"},
			[]string{"s01 value 1", "s02 value 2"},
			0,
		},
		"garbage": {
			document{"kind": "garbage"},
			[]string{`unavailable BatchGetSecretValue  "app/s01"`, `unavailable BatchGetSecretValue  "app/s02"`},
			0,
		},
	} {
		d.apply(document{"faults": []any{tt.fault}})
		answers := read(t, d.store(), may, two...)
		wantTexts(t, answers, tt.want...)
		if e, ok := errors.AsType[*Error](answers[0].Err); ok && e.RetryAfter != tt.after {
			t.Errorf("%s: to be tried again after %s, want %s", name, e.RetryAfter, tt.after)
		}
		d.call(http.MethodDelete, "/faults", nil, nil)
	}
	d.call(http.MethodPost, "/expire", document{"role": "arn:aws:iam::" + account + ":role/failures"}, nil)
	wantTexts(t, read(t, d.store(), may, secretRef("app/s01"), parameterRef("/app/p01")),
		`bad credentials GetSecretValue ExpiredTokenException "app/s01"`, `bad credentials GetParameters ExpiredTokenException "/app/p01"`)
	d.call(http.MethodDelete, "/sessions?role=arn:aws:iam::"+account+":role/failures", nil, nil)
	wantTexts(t, read(t, d.store(), may, secretRef("app/s01")), `bad credentials GetSecretValue UnrecognizedClientException "app/s01"`)
	forged, err := may.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	may = d.as("failures", readSecrets)
	fresh, err := may.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	may.Credentials = credentials.NewStaticCredentialsProvider(fresh.AccessKeyID, forged.SecretAccessKey, fresh.SessionToken)
	a := read(t, d.store(), may, secretRef("app/s01"))[0]
	if e, ok := errors.AsType[*Error](a.Err); !ok || e.Kind != BadCredentials || strings.Contains(printed(t, e), fresh.SessionToken) {
		t.Errorf("error of a wrong signature is %v", a.Err)
	}
}
