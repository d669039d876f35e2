package aws_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
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

// numbered are n secrets.
func numbered(n int) []control.Secret {
	secrets := make([]control.Secret, n)
	for i := range secrets {
		secrets[i] = control.Secret{Region: region, Name: fmt.Sprintf("s%02d", i), String: ptr(fmt.Sprint(i))}
	}
	return secrets
}

func TestBatchGetSecretValue(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.policy(t, `{"Effect":"Allow","Action":"secretsmanager:BatchGetSecretValue","Resource":"*"},
		{"Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":"arn:aws:secretsmanager:*:*:secret:s*"}`)
	d.apply(t, control.Document{
		Secrets: append(numbered(2),
			control.Secret{Region: region, Name: "hidden", String: ptr("x")},
			control.Secret{Region: region, Name: "s-deleted", String: ptr("x"), Deleted: ptr(true)},
			control.Secret{Region: region, Name: "s-broken", String: ptr("x")}),
		Faults: []control.Fault{{Kind: control.ErrorAnswer, Item: "s-broken", Code: "InternalServiceError", Message: "an injected error", Count: 1}},
	})
	client := d.secrets(t)
	ids := []string{"s01", "s00", "hidden", "s-absent", "s-deleted", "s-broken"}
	out, err := client.BatchGetSecretValue(t.Context(), &secretsmanager.BatchGetSecretValueInput{SecretIdList: ids})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, value := range out.SecretValues {
		got[*value.Name] = *value.SecretString
	}
	for _, failed := range out.Errors {
		got[*failed.SecretId] = *failed.ErrorCode + ": " + *failed.Message
	}
	want := map[string]string{
		"s00": "0", "s01": "1",
		"hidden":    "AccessDeniedException: User: " + session + " is not authorized to perform: secretsmanager:GetSecretValue on resource: hidden because no identity-based policy allows the secretsmanager:GetSecretValue action",
		"s-absent":  "ResourceNotFoundException: Secrets Manager can't find the specified secret.",
		"s-deleted": "InvalidRequestException: You can't perform this operation on the secret because it was marked for deletion.",
		"s-broken":  "InternalServiceError: an injected error",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	again, err := client.BatchGetSecretValue(t.Context(), &secretsmanager.BatchGetSecretValueInput{SecretIdList: []string{"s-broken"}})
	if err != nil || len(again.Errors) != 0 {
		t.Errorf("after its one fault: %+v, %v", again, err)
	}
}

func TestBatchGetSecretValueDenied(t *testing.T) {
	t.Parallel()
	for name, resource := range map[string]string{
		"no statement":              "arn:aws:ssm:*:*:parameter/x",
		"a resource, where none is": "arn:aws:secretsmanager:*:*:secret:*",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, aws.Config{})
			d.policy(t, `{"Effect":"Allow","Action":["secretsmanager:*"],"Resource":"`+resource+`"}`)
			_, err := d.secrets(t).BatchGetSecretValue(t.Context(), &secretsmanager.BatchGetSecretValueInput{SecretIdList: []string{"a"}})
			wantError(t, err, "AccessDeniedException", "User: "+session+
				" is not authorized to perform: secretsmanager:BatchGetSecretValue because no identity-based policy allows the secretsmanager:BatchGetSecretValue action")
		})
	}
}

func TestBatchGetSecretValueArguments(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{Secrets: numbered(3)})
	client := d.secrets(t)
	byName := []types.Filter{{Key: types.FilterNameStringTypeName, Values: []string{"s0"}}}
	for name, test := range map[string]struct {
		in       secretsmanager.BatchGetSecretValueInput
		want     int
		wantCode string
	}{
		"filters":             {in: secretsmanager.BatchGetSecretValueInput{Filters: byName}, want: 3},
		"both":                {in: secretsmanager.BatchGetSecretValueInput{Filters: byName, SecretIdList: []string{"s00"}}, wantCode: "InvalidParameterException"},
		"neither":             {in: secretsmanager.BatchGetSecretValueInput{}, wantCode: "InvalidParameterException"},
		"page size of a list": {in: secretsmanager.BatchGetSecretValueInput{SecretIdList: []string{"s00"}, MaxResults: ptr(int32(1))}, wantCode: "InvalidParameterException"},
		"bad token":           {in: secretsmanager.BatchGetSecretValueInput{Filters: byName, NextToken: ptr("x")}, wantCode: "InvalidNextTokenException"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := client.BatchGetSecretValue(t.Context(), &test.in)
			if test.wantCode != "" {
				wantError(t, err, test.wantCode, "")
				return
			}
			if err != nil || len(out.SecretValues) != test.want {
				t.Errorf("got %+v, %v", out, err)
			}
		})
	}
}

func TestBatchGetSecretValueByFiltersNeedsListSecrets(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.policy(t, `{"Effect":"Allow","Action":["secretsmanager:GetSecretValue","secretsmanager:BatchGetSecretValue"],"Resource":"*"}`)
	byName := []types.Filter{{Key: types.FilterNameStringTypeName, Values: []string{"s0"}}}
	_, err := d.secrets(t).BatchGetSecretValue(t.Context(), &secretsmanager.BatchGetSecretValueInput{Filters: byName})
	wantError(t, err, "AccessDeniedException", "User: "+session+
		" is not authorized to perform: secretsmanager:ListSecrets because no identity-based policy allows the secretsmanager:ListSecrets action")
}

func TestSecretsPages(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{Secrets: numbered(5), PageSize: ptr(2)})
	client := d.secrets(t)
	var listed []string
	pages := 0
	for p := secretsmanager.NewListSecretsPaginator(client, &secretsmanager.ListSecretsInput{}); p.HasMorePages(); pages++ {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range out.SecretList {
			listed = append(listed, *entry.Name)
		}
	}
	want := []string{"s00", "s01", "s02", "s03", "s04"}
	if diff := cmp.Diff(want, listed); diff != "" || pages != 3 {
		t.Errorf("%d pages (-want +got):\n%s", pages, diff)
	}
	var read []string
	pages = 0
	in := &secretsmanager.BatchGetSecretValueInput{SecretIdList: want}
	for p := secretsmanager.NewBatchGetSecretValuePaginator(client, in); p.HasMorePages(); pages++ {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range out.SecretValues {
			read = append(read, *value.Name)
		}
	}
	if diff := cmp.Diff(want, read); diff != "" || pages != 3 {
		t.Errorf("%d pages of a batch (-want +got):\n%s", pages, diff)
	}
	for _, token := range []string{"none", "99", "0", "-1"} {
		encoded := base64.StdEncoding.EncodeToString([]byte(token))
		_, err := client.ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{NextToken: &encoded})
		wantError(t, err, "InvalidNextTokenException", "")
	}
}

func TestListSecrets(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{
		{Region: region, Name: "prod/a", String: ptr("x"), VersionID: v1, Description: "the Web database", Tags: map[string]string{"app": "web", "tier": "gold"}},
		{Region: region, Name: "prod/b", String: ptr("x"), Tags: map[string]string{"app": "api", "owner": "web"}},
		{Region: region, Name: "Prod/c", String: ptr("x")},
		{Region: region, Name: "prod/gone", String: ptr("x"), Deleted: ptr(true)},
		{Region: "us-east-1", Name: "prod/d", String: ptr("x")},
		{Region: region, Name: "prod/e", String: ptr("x"), Account: "444455556666"},
	}})
	client := d.secrets(t)
	filters := func(keysAndValues ...string) (f []types.Filter) {
		for pair := range slices.Chunk(keysAndValues, 2) {
			f = append(f, types.Filter{Key: types.FilterNameStringType(pair[0]), Values: strings.Split(pair[1], ",")})
		}
		return f
	}
	for name, test := range map[string]struct {
		in   secretsmanager.ListSecretsInput
		want []string
	}{
		"all":              {want: []string{"Prod/c", "prod/a", "prod/b"}},
		"name":             {in: secretsmanager.ListSecretsInput{Filters: filters("name", "prod/")}, want: []string{"prod/a", "prod/b"}},
		"one of two names": {in: secretsmanager.ListSecretsInput{Filters: filters("name", "prod/a,Prod")}, want: []string{"Prod/c", "prod/a"}},
		"not that name":    {in: secretsmanager.ListSecretsInput{Filters: filters("name", "!prod/a")}, want: []string{"Prod/c", "prod/b"}},
		"tag's key":        {in: secretsmanager.ListSecretsInput{Filters: filters("tag-key", "tie")}, want: []string{"prod/a"}},
		"key and value are not looked at together": {
			in: secretsmanager.ListSecretsInput{Filters: filters("tag-key", "app", "tag-value", "web")}, want: []string{"prod/a", "prod/b"},
		},
		"description, in any case": {in: secretsmanager.ListSecretsInput{Filters: filters("description", "web")}, want: []string{"prod/a"}},
		"anything":                 {in: secretsmanager.ListSecretsInput{Filters: filters("all", "GOLD")}, want: []string{"prod/a"}},
		"deleted too":              {in: secretsmanager.ListSecretsInput{IncludePlannedDeletion: ptr(true), Filters: filters("name", "prod/")}, want: []string{"prod/a", "prod/b", "prod/gone"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := client.ListSecrets(t.Context(), &test.in)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, entry := range out.SecretList {
				got = append(got, *entry.Name)
			}
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("order", func(t *testing.T) {
		t.Parallel()
		var got []string
		for _, order := range []types.SortOrderType{types.SortOrderTypeAsc, types.SortOrderTypeDesc} {
			out, err := client.ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{SortOrder: order, MaxResults: ptr(int32(1)), Filters: filters("name", "prod/a,prod/b")})
			if err != nil || len(out.SecretList) != 1 {
				t.Fatalf("got %+v, %v", out, err)
			}
			got = append(got, *out.SecretList[0].Name)
		}
		if diff := cmp.Diff([]string{"prod/a", "prod/b"}, got); diff != "" {
			t.Errorf("the first of each order (-want +got):\n%s", diff)
		}
	})
	t.Run("entry", func(t *testing.T) {
		t.Parallel()
		out, err := client.ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{Filters: filters("name", "prod/a")})
		if err != nil || len(out.SecretList) != 1 {
			t.Fatalf("got %+v, %v", out, err)
		}
		entry := out.SecretList[0]
		if diff := cmp.Diff(map[string][]string{v1: {"AWSCURRENT"}}, entry.SecretVersionsToStages); diff != "" {
			t.Errorf("versions (-want +got):\n%s", diff)
		}
		tags := map[string]string{}
		for _, tag := range entry.Tags {
			tags[*tag.Key] = *tag.Value
		}
		if diff := cmp.Diff(map[string]string{"app": "web", "tier": "gold"}, tags); diff != "" {
			t.Errorf("tags (-want +got):\n%s", diff)
		}
	})
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
