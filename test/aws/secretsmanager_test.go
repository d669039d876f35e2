package aws_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
)

// version ids as long as AWS wants them.
const (
	v1 = "00000000-0000-0000-0000-000000000001"
	v2 = "00000000-0000-0000-0000-000000000002"
	v3 = "00000000-0000-0000-0000-000000000003"
)

// secret is a version of prod/db.
func secret(id, contents string, stages ...string) control.Secret {
	return control.Secret{Region: region, Name: "prod/db", String: &contents, VersionID: id, Stages: stages, Suffix: "AbCdEf"}
}

const dbARN = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/db-AbCdEf"

func TestGetSecretValue(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{
		secret(v1, "one"), secret(v2, "two"), secret(v3, "three", "green"),
		{Region: "us-east-1", Name: "prod/db", String: ptr("american"), Suffix: "AbCdEf"},
		{Region: region, Name: "ends-abcdef", String: ptr("trap"), Suffix: "XyZ123"},
		{Region: region, Name: "binary", Binary: []byte{0, 255}},
	}})
	client := d.secrets(t)
	for name, test := range map[string]struct {
		id, version, stage   string
		want, wantID         string
		wantStages           []string
		wantCode, wantSaying string
	}{
		"current":                  {id: "prod/db", want: "two", wantID: v2, wantStages: []string{"AWSCURRENT"}},
		"previous":                 {id: "prod/db", stage: "AWSPREVIOUS", want: "one", wantID: v1, wantStages: []string{"AWSPREVIOUS"}},
		"own stage":                {id: "prod/db", stage: "green", want: "three", wantID: v3, wantStages: []string{"green"}},
		"version":                  {id: "prod/db", version: v1, want: "one", wantID: v1, wantStages: []string{"AWSPREVIOUS"}},
		"version and stage":        {id: "prod/db", version: v1, stage: "AWSPREVIOUS", want: "one", wantID: v1, wantStages: []string{"AWSPREVIOUS"}},
		"version of another stage": {id: "prod/db", version: v1, stage: "green", wantCode: "InvalidRequestException"},
		"ARN":                      {id: dbARN, want: "two", wantID: v2, wantStages: []string{"AWSCURRENT"}},
		"ARN without its end":      {id: strings.TrimSuffix(dbARN, "-AbCdEf"), want: "two", wantID: v2, wantStages: []string{"AWSCURRENT"}},
		"ARN with a wrong end":     {id: strings.TrimSuffix(dbARN, "AbCdEf") + "AbCdEg", wantCode: "ResourceNotFoundException"},
		"name that ends as an ARN": {id: "arn:aws:secretsmanager:eu-west-1:111122223333:secret:ends-abcdef", wantCode: "ResourceNotFoundException"},
		"ARN of another region":    {id: strings.Replace(dbARN, "eu-west-1", "us-east-1", 1), wantCode: "ResourceNotFoundException"},
		"no such secret":           {id: "prod/other", wantCode: "ResourceNotFoundException", wantSaying: "Secrets Manager can't find the specified secret."},
		"no such stage":            {id: "prod/db", stage: "blue", wantCode: "ResourceNotFoundException", wantSaying: "Secrets Manager can't find the specified secret value for staging label: blue"},
		"no such version":          {id: "prod/db", version: strings.Replace(v1, "0", "f", 1), wantCode: "ResourceNotFoundException"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := &secretsmanager.GetSecretValueInput{SecretId: &test.id}
			if test.version != "" {
				in.VersionId = &test.version
			}
			if test.stage != "" {
				in.VersionStage = &test.stage
			}
			out, err := client.GetSecretValue(t.Context(), in)
			if test.wantCode != "" {
				wantError(t, err, test.wantCode, test.wantSaying)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if *out.SecretString != test.want || *out.VersionId != test.wantID || *out.Name != "prod/db" || *out.ARN != dbARN {
				t.Errorf("got %q version %s of %s %s", *out.SecretString, *out.VersionId, *out.Name, *out.ARN)
			}
			if diff := cmp.Diff(test.wantStages, out.VersionStages); diff != "" {
				t.Errorf("stages (-want +got):\n%s", diff)
			}
			if age := time.Since(*out.CreatedDate); age < 0 || age > time.Hour {
				t.Errorf("created %s ago", age)
			}
		})
	}
	t.Run("binary", func(t *testing.T) {
		t.Parallel()
		out, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("binary")})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(out.SecretBinary, []byte{0, 255}) || out.SecretString != nil {
			t.Errorf("got %v, %v", out.SecretBinary, out.SecretString)
		}
	})
	t.Run("other region", func(t *testing.T) {
		t.Parallel()
		client := secretsmanager.NewFromConfig(d.config(t, "us-east-1"))
		out, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db")})
		if err != nil || *out.SecretString != "american" {
			t.Errorf("got %+v, %v", out, err)
		}
	})
}

func TestDescribeSecret(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	tagged := secret(v1, "one")
	tagged.Tags, tagged.Description, tagged.KMSKeyID = map[string]string{"app": "web"}, "a database", "alias/db"
	d.apply(t, control.Document{Secrets: []control.Secret{tagged, secret(v2, "two")}})
	client := d.secrets(t)
	for _, id := range []string{"prod/db", dbARN} {
		out, err := client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: &id})
		if err != nil {
			t.Fatal(err)
		}
		if *out.Name != "prod/db" || *out.ARN != dbARN || *out.Description != "a database" || *out.KmsKeyId != "alias/db" || len(out.Tags) != 1 || out.DeletedDate != nil {
			t.Errorf("%s: %+v", id, out)
		}
		if diff := cmp.Diff(map[string][]string{v1: {"AWSPREVIOUS"}, v2: {"AWSCURRENT"}}, out.VersionIdsToStages); diff != "" {
			t.Errorf("%s: versions (-want +got):\n%s", id, diff)
		}
	}
	_, err := client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: ptr("absent")})
	wantError(t, err, "ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	d.policy(t, `{"Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":"*"}`)
	_, err = client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: ptr("prod/db")})
	wantError(t, err, "AccessDeniedException", "User: "+session+" is not authorized to perform: secretsmanager:DescribeSecret on resource: prod/db because no identity-based policy allows the secretsmanager:DescribeSecret action")
	_, err = client.ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{})
	wantError(t, err, "AccessDeniedException", "User: "+session+" is not authorized to perform: secretsmanager:ListSecrets because no identity-based policy allows the secretsmanager:ListSecrets action")
}

// Policies may ask for the tags of what is read, for its stage and for its version.
func TestConditionsOnSecrets(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	tagged := secret(v1, "one")
	tagged.Tags = map[string]string{"app": "web"}
	d.apply(t, control.Document{Secrets: []control.Secret{tagged, secret(v2, "two"), {Region: region, Name: "untagged", String: ptr("x")}}})
	client := d.secrets(t)
	for condition, want := range map[string][3]bool{ // current, previous, untagged
		`"aws:ResourceTag/app":"web"`:                      {true, true, false},
		`"secretsmanager:ResourceTag/app":"web"`:           {true, true, false},
		`"secretsmanager:ResourceTag/app":"api"`:           {false, false, false},
		`"secretsmanager:VersionStage":"AWSCURRENT"`:       {true, false, true},
		`"secretsmanager:SecretId":"` + dbARN + `"`:        {true, true, false},
		`"secretsmanager:VersionId":"` + v1 + `"`:          {false, true, false},
		`"aws:PrincipalArn":"` + role + `"`:                {true, true, true},
		`"aws:PrincipalArn":"arn:aws:iam::1:role/another"`: {false, false, false},
	} {
		d.policy(t, `{"Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":"*","Condition":{"StringEquals":{`+condition+`}}}`)
		for i, in := range []*secretsmanager.GetSecretValueInput{
			{SecretId: ptr("prod/db")}, {SecretId: ptr("prod/db"), VersionId: ptr(v1)}, {SecretId: ptr("untagged")},
		} {
			if _, err := client.GetSecretValue(t.Context(), in); (err == nil) != want[i] {
				t.Errorf("%s: request %d: %v, want it allowed: %t", condition, i, err, want[i])
			}
		}
	}
}

func TestStagesMove(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(v1, "one"), secret(v2, "two"), secret(v3, "three")}})
	client := d.secrets(t)
	stages := func() map[string][]string {
		t.Helper()
		out, err := client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: ptr("prod/db")})
		if err != nil {
			t.Fatal(err)
		}
		return out.VersionIdsToStages
	}
	if diff := cmp.Diff(map[string][]string{v2: {"AWSPREVIOUS"}, v3: {"AWSCURRENT"}}, stages()); diff != "" {
		t.Errorf("after three versions (-want +got):\n%s", diff)
	}
	out, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db"), VersionId: ptr(v1)})
	if err != nil || *out.SecretString != "one" || out.VersionStages != nil {
		t.Errorf("a version without a stage: %+v, %v", out, err)
	}
	d.apply(t, control.Document{Secrets: []control.Secret{
		{Region: region, Name: "prod/db", VersionID: v1, Stages: []string{"AWSCURRENT"}},
	}})
	if diff := cmp.Diff(map[string][]string{v1: {"AWSCURRENT"}, v3: {"AWSPREVIOUS"}}, stages()); diff != "" {
		t.Errorf("after going back (-want +got):\n%s", diff)
	}
	_, err = d.Apply(t.Context(), control.Document{Secrets: []control.Secret{
		{Region: region, Name: "prod/db", VersionID: "none", Stages: []string{"x"}},
	}})
	if err == nil {
		t.Error("a stage for no version: want an error")
	}
}

func TestDeletedAndBrokenSecrets(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{
		{Region: region, Name: "deleted", String: ptr("x"), Deleted: ptr(true)},
		{Region: region, Name: "denied", String: ptr("x"), KMS: ptr(control.KMSDenied)},
		{Region: region, Name: "broken", String: ptr("x"), KMS: ptr(control.KMSFailure)},
	}})
	client := d.secrets(t)
	get := func(id string) error {
		_, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &id})
		return err
	}
	wantError(t, get("deleted"), "InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
	wantError(t, get("denied"), "AccessDeniedException", "Access to KMS is not allowed")
	wantError(t, get("broken"), "DecryptionFailure", "Secrets Manager can't decrypt the protected secret text using the provided KMS key.")
	out, err := client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: ptr("deleted")})
	if err != nil || out.DeletedDate == nil {
		t.Errorf("DescribeSecret of a deleted one: %+v, %v", out, err)
	}
	d.apply(t, control.Document{Secrets: []control.Secret{
		{Region: region, Name: "deleted", Deleted: ptr(false)}, {Region: region, Name: "denied", KMS: ptr("")},
	}})
	if err := get("deleted"); err != nil {
		t.Errorf("restored: %v", err)
	}
	if err := get("denied"); err != nil {
		t.Errorf("with a key that works: %v", err)
	}
	if err := d.DeleteSecret(t.Context(), region, "deleted"); err != nil {
		t.Fatal(err)
	}
	wantError(t, get("deleted"), "ResourceNotFoundException", "")
	if err := d.DeleteSecret(t.Context(), region, "deleted"); err == nil {
		t.Error("deleted twice: want an error")
	}
}

func TestReplicas(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	primary := secret(v1, "one")
	primary.Replicas = []string{"us-east-1"}
	d.apply(t, control.Document{Secrets: []control.Secret{primary, secret(v2, "two")}})
	for _, in := range []string{region, "us-east-1"} {
		client := secretsmanager.NewFromConfig(d.config(t, in))
		out, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db")})
		if err != nil {
			t.Fatal(err)
		}
		if *out.SecretString != "two" || *out.VersionId != v2 || *out.ARN != strings.Replace(dbARN, region, in, 1) {
			t.Errorf("in %s: %q %s %s", in, *out.SecretString, *out.VersionId, *out.ARN)
		}
		described, err := client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: ptr("prod/db")})
		if err != nil || *described.PrimaryRegion != region {
			t.Errorf("in %s: DescribeSecret: %+v, %v", in, described, err)
		}
		if got := len(described.ReplicationStatus) == 1; got != (in == region) {
			t.Errorf("in %s: status of replicas: %+v", in, described.ReplicationStatus)
		}
	}
	_, err := d.Apply(t.Context(), control.Document{Secrets: []control.Secret{{Region: "us-east-1", Name: "prod/db", String: ptr("x")}}})
	if err == nil {
		t.Error("a new version of a replica: want an error")
	}
	if err := d.DeleteSecret(t.Context(), region, "prod/db"); err != nil {
		t.Fatal(err)
	}
	client := secretsmanager.NewFromConfig(d.config(t, "us-east-1"))
	_, err = client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db")})
	wantError(t, err, "ResourceNotFoundException", "")
}

func TestSecretOfAnotherAccount(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	foreign := control.Secret{Region: region, Account: "444455556666", Name: "shared", String: ptr("x")}
	applied := d.apply(t, control.Document{Secrets: []control.Secret{foreign}})
	client := d.secrets(t)
	get := func(id string) error {
		_, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &id})
		return err
	}
	arn := applied.Secrets[0].ARN
	wantError(t, get(arn), "AccessDeniedException", "User: "+session+" is not authorized to perform: secretsmanager:GetSecretValue on resource: "+arn+
		" because no resource-based policy allows the secretsmanager:GetSecretValue action")
	foreign.ResourcePolicy = json.RawMessage(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + role + `"},"Action":"secretsmanager:GetSecretValue","Resource":"*"}}`)
	if _, err := d.Apply(t.Context(), control.Document{Secrets: []control.Secret{foreign}}); err != nil {
		t.Fatal(err)
	}
	if err := get(arn); err != nil {
		t.Errorf("with a policy of the secret: %v", err)
	}
	wantError(t, get("shared"), "ResourceNotFoundException", "")
}
