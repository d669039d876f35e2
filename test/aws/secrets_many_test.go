package aws_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
)

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
