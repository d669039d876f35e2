package aws_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
)

func TestCallsAreCounted(t *testing.T) {
	t.Parallel()
	d, i := start(t, aws.Config{}), newIssuer(t, issuerURL)
	d.apply(t, control.Document{
		Issuers:    []control.Issuer{{URL: issuerURL, JWKS: i.jwks()}},
		Roles:      []control.Role{{ARN: role, ServiceAccounts: []string{"shop/web"}, Policy: json.RawMessage(all)}},
		Secrets:    []control.Secret{secret(v1, "one")},
		Parameters: []control.Parameter{parameter("a", "x")},
	})
	if _, err := d.sts().AssumeRoleWithWebIdentity(t.Context(), assume(i.token(t, nil))); err != nil {
		t.Fatal(err)
	}
	secrets := d.secrets(t)
	for _, id := range []string{"prod/db", "prod/db", "absent"} {
		_, _ = secrets.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &id})
	}
	_, _ = secrets.BatchGetSecretValue(t.Context(), &secretsmanager.BatchGetSecretValueInput{SecretIdList: []string{"prod/db", "absent"}})
	_, _ = d.parameters(t).GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{"a", "b", "c"}})
	calls, err := d.Calls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []control.Call{
		{Service: "secretsmanager", Operation: "BatchGetSecretValue", Region: region, Role: role, Count: 1, Items: 2},
		{Service: "secretsmanager", Operation: "GetSecretValue", Region: region, Role: role, Count: 2, Items: 2},
		{Service: "secretsmanager", Operation: "GetSecretValue", Region: region, Role: role, Code: "ResourceNotFoundException", Count: 1, Items: 1},
		{Service: "ssm", Operation: "GetParameters", Region: region, Role: role, Count: 1, Items: 3},
		{Service: "sts", Operation: "AssumeRoleWithWebIdentity", Role: role, Count: 1},
	}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	requests, err := d.Requests(t.Context())
	if err != nil || len(requests) != 6 {
		t.Fatalf("requests %+v, %v", requests, err)
	}
	last := requests[5]
	if !slices.Equal(last.Items, []string{"a", "b", "c"}) || last.Session != "session" || last.Status != 200 || !strings.HasPrefix(last.AccessKeyID, "ASIA") {
		t.Errorf("the last request is %+v", last)
	}
	if got := requests[3]; got.Code != "ResourceNotFoundException" || got.Status != 400 {
		t.Errorf("the request that failed is %+v", got)
	}
	if err := d.ResetCalls(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls, err = d.Calls(t.Context())
	requests, err2 := d.Requests(t.Context())
	if len(calls) != 0 || len(requests) != 0 || err != nil || err2 != nil {
		t.Errorf("after the reset: %+v, %+v, %v, %v", calls, requests, err, err2)
	}
}

// post sends a request that the SDK would not.
func (d *double) post(t *testing.T, target, contentType, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.server.Addresses.Endpoint, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Amz-Target", target)
	req.Header.Set("Content-Type", contentType)
	resp, err := d.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	contents, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(contents)
}

func TestRequestsThatBreakAWSModelsAreViolations(t *testing.T) {
	t.Parallel()
	const jsonType, form = "application/x-amz-json-1.1", "application/x-www-form-urlencoded"
	for name, test := range map[string]struct {
		target, contentType, body string
		status                    int
		want, path                string
	}{
		"too many":          {"AmazonSSM.GetParameters", jsonType, `{"Names":["1","2","3","4","5","6","7","8","9","10","11"]}`, 400, "ValidationException", "names"},
		"unknown member":    {"secretsmanager.GetSecretValue", jsonType, `{"SecretId":"a","Versionid":"b"}`, 400, "ValidationException", "versionid"},
		"no JSON":           {"secretsmanager.GetSecretValue", jsonType, `{`, 400, "SerializationException", ""},
		"other type":        {"secretsmanager.GetSecretValue", "application/json", `{"SecretId":"a"}`, 400, "SerializationException", ""},
		"unknown operation": {"secretsmanager.PutSecretValue", jsonType, `{}`, 404, "UnknownOperationException", ""},
		"unknown service":   {"DynamoDB_20120810.GetItem", jsonType, `{}`, 404, "UnknownOperationException", ""},
		"no target":         {"", jsonType, `{}`, 404, "UnknownOperationException", ""},
		"STS's version":     {"", form, `Action=AssumeRoleWithWebIdentity&Version=2010-05-08`, 400, "InvalidAction", ""},
		"STS's action":      {"", form, `Action=AssumeRole&Version=2011-06-15`, 400, "InvalidAction", ""},
		"STS's members":     {"", form, `Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn:aws:iam::1:role/abc&RoleSessionName=ab&WebIdentityToken=abcd&DurationSeconds=1`, 400, "ValidationException", "durationSeconds"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startUnchecked(t, aws.Config{})
			status, answer := d.post(t, test.target, test.contentType, test.body)
			if status != test.status || !strings.Contains(answer, test.want) {
				t.Errorf("%d %s, want %d %s", status, answer, test.status, test.want)
			}
			violations, err := d.Violations(t.Context())
			if err != nil || len(violations) != 1 || violations[0].Side != "request" || violations[0].Path != test.path {
				t.Errorf("violations %+v, %v, want one of a request at %q", violations, err, test.path)
			}
			if err := d.ResetViolations(t.Context()); err != nil {
				t.Fatal(err)
			}
			if violations, err := d.Violations(t.Context()); err != nil || len(violations) != 0 {
				t.Errorf("after the reset: %+v, %v", violations, err)
			}
		})
	}
}

func TestAnswersThatBreakAWSModelsAreViolations(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, aws.Config{})
	wrong := secret(v1, "one")
	wrong.Details = map[string]any{"RotationEnabled": "yes"}
	d.apply(t, control.Document{Secrets: []control.Secret{wrong}})
	_, _ = d.secrets(t).DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: ptr("prod/db")})
	violations, err := d.Violations(t.Context())
	want := []control.Violation{{Service: "secretsmanager", Operation: "DescribeSecret", Side: "answer", Path: "rotationEnabled", Problem: "not a boolean"}}
	if diff := cmp.Diff(want, violations); diff != "" || err != nil {
		t.Errorf("violations, %v (-want +got):\n%s", err, diff)
	}
}

func TestSignaturesAreVerified(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{
		Secrets: []control.Secret{secret(v1, "one")},
		Users:   []control.User{{Name: "admin", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "key", Policy: json.RawMessage(all)}},
	})
	good, err := d.Login(t.Context(), control.Login{Role: role})
	if err != nil {
		t.Fatal(err)
	}
	expired, err := d.Login(t.Context(), control.Login{Role: role, Lifetime: control.Duration(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	const mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	for name, test := range map[string]struct {
		change     func(*control.Credentials)
		code, says string
	}{
		"good": {func(*control.Credentials) {}, "", ""},
		"a user's": {func(c *control.Credentials) {
			*c = control.Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "key"}
		}, "", ""},
		"expired":        {func(c *control.Credentials) { *c = expired }, "ExpiredTokenException", "The security token included in the request is expired"},
		"another secret": {func(c *control.Credentials) { c.SecretAccessKey = "x" }, "InvalidSignatureException", mismatch},
		"another key":    {func(c *control.Credentials) { c.AccessKeyID = "ASIAXXXXXXXXXXXXXXXX" }, "UnrecognizedClientException", "The security token included in the request is invalid."},
		"another token":  {func(c *control.Credentials) { c.SessionToken = "x" }, "UnrecognizedClientException", ""},
		"no token":       {func(c *control.Credentials) { c.SessionToken = "" }, "UnrecognizedClientException", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := good
			test.change(&c)
			client := secretsmanager.NewFromConfig(d.configOf(c, ""))
			_, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db")})
			if test.code != "" {
				wantError(t, err, test.code, test.says)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("unsigned", func(t *testing.T) {
		t.Parallel()
		status, answer := d.post(t, "secretsmanager.GetSecretValue", "application/x-amz-json-1.1", `{"SecretId":"prod/db"}`)
		if status != 400 || !strings.Contains(answer, "MissingAuthenticationTokenException") {
			t.Errorf("%d %s", status, answer)
		}
	})
	t.Run("with a bearer token", func(t *testing.T) {
		t.Parallel()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.server.Addresses.Endpoint, strings.NewReader(`{"SecretId":"prod/db"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{
			"X-Amz-Target": {"secretsmanager.GetSecretValue"}, "Content-Type": {"application/x-amz-json-1.1"}, "Authorization": {"Bearer x"},
		}
		resp, err := d.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "IncompleteSignatureException") {
			t.Errorf("%s %s, %v", resp.Status, body, err)
		}
	})
	t.Run("for another service", func(t *testing.T) {
		t.Parallel()
		client := secretsmanager.NewFromConfig(d.configOf(good, ""), func(o *secretsmanager.Options) {
			o.AuthSchemeResolver = scopedTo("ssm")
		})
		_, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db")})
		wantError(t, err, "InvalidSignatureException", "Credential should be scoped to correct service: 'secretsmanager'.")
	})
	t.Run("of yesterday", func(t *testing.T) {
		t.Parallel()
		old := start(t, aws.Config{Now: func() time.Time { return time.Now().Add(24 * time.Hour) }})
		read := old.reader(t)
		wantError(t, read(), "InvalidSignatureException", "")
	})
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	read := d.reader(t)
	if err := read(); err != nil {
		t.Fatal(err)
	}
	if err := d.Expire(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	wantError(t, read(), "ExpiredTokenException", "")
	if err := d.ForgetSessions(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	wantError(t, read(), "UnrecognizedClientException", "")
	if d.Expire(t.Context(), role) == nil || d.ForgetSessions(t.Context(), role) == nil {
		t.Error("no session is left: want an error")
	}
	read = d.reader(t)
	if err := d.DeleteRole(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	wantError(t, read(), "AccessDeniedException", "")
	if d.DeleteRole(t.Context(), role) == nil {
		t.Error("the role is gone: want an error")
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{
		Secrets: []control.Secret{secret(v1, "one")}, Parameters: []control.Parameter{parameter("a", "x")},
		Faults: []control.Fault{{Kind: control.Throttle}}, PageSize: ptr(1),
	})
	before := d.reader(t)
	wantError(t, before(), "ThrottlingException", "")
	if err := d.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls, err := d.Calls(t.Context())
	if len(calls) != 0 || err != nil {
		t.Errorf("calls %+v, %v", calls, err)
	}
	wantError(t, before(), "UnrecognizedClientException", "")
	d.policy(t, `{"Effect":"Allow","Action":"*","Resource":"*"}`)
	_, err = d.secrets(t).GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db")})
	wantError(t, err, "ResourceNotFoundException", "")
	d.apply(t, control.Document{Secrets: numbered(3), Parameters: []control.Parameter{parameter("b", "x"), parameter("c", "x")}})
	listed, err := d.secrets(t).ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{})
	if err != nil || len(listed.SecretList) != 3 {
		t.Errorf("secrets %+v, %v", listed, err)
	}
	described, err := d.parameters(t).DescribeParameters(t.Context(), &ssm.DescribeParametersInput{})
	if err != nil || len(described.Parameters) != 2 {
		t.Errorf("parameters %+v, %v", described, err)
	}
}

func TestDocumentsThatAreRefused(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	for name, document := range map[string]string{
		"unknown member":        `{"secret":[]}`,
		"member of a member":    `{"secrets":[{"region":"r","name":"n","value":"v"}]}`,
		"secret without region": `{"secrets":[{"name":"n","string":"v"}]}`,
		"both contents":         `{"secrets":[{"region":"r","name":"n","string":"v","binary":"AA=="}]}`,
		"policy of a secret":    `{"secrets":[{"region":"r","name":"n","string":"v","resourcePolicy":{}}]}`,
		"parameter's name":      `{"parameters":[{"region":"r","name":"a b","value":"v"}]}`,
		"parameter, no value":   `{"parameters":[{"region":"r","name":"a"}]}`,
		"parameter's version":   `{"parameters":[{"region":"r","name":"a","value":"v","version":3}]}`,
		"role's ARN":            `{"roles":[{"arn":"app"}]}`,
		"role's policy":         `{"roles":[{"arn":"arn:aws:iam::1:role/a","policy":{"Version":"1"}}]}`,
		"role's trust":          `{"roles":[{"arn":"arn:aws:iam::1:role/a","trust":{"Version":"1"}}]}`,
		"association's role":    `{"associations":[{"namespace":"a","serviceAccount":"b","role":"c"}]}`,
		"issuer without url":    `{"issuers":[{}]}`,
		"issuer's keys":         `{"issuers":[{"url":"u","jwks":{"keys":[]}}]}`,
		"issuer's certificates": `{"issuers":[{"url":"u","caPem":"x"}]}`,
		"latency":               `{"faults":[{"kind":"latency","latency":"soon"}]}`,
	} {
		resp, err := d.http.Post(d.server.Addresses.Control+"/apply", "application/json", bytes.NewReader([]byte(document)))
		if err != nil {
			t.Fatal(err)
		}
		var answer struct{ Error string }
		err = json.NewDecoder(resp.Body).Decode(&answer)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest || err != nil || answer.Error == "" {
			t.Errorf("%s: %s %+v, %v", name, resp.Status, answer, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{PodIdentity: aws.Off})
	got, err := d.Addresses(t.Context())
	if diff := cmp.Diff(d.server.Addresses, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got.PodIdentity != "" || got.PodIdentity6 != "" {
		t.Errorf("the agent listens at %q and %q", got.PodIdentity, got.PodIdentity6)
	}
	if _, err := aws.Start(t.Context(), aws.Config{Listen: strings.TrimPrefix(got.Endpoint, "http://")}); err == nil {
		t.Error("a second one at the same address: want an error")
	}
	if _, err := aws.Start(t.Context(), aws.Config{STSUpstream: "http://127.0.0.1:1"}); err == nil {
		t.Error("an upstream without its role: want an error")
	}
}
