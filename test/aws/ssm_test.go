package aws_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
)

// parameter is a version of a parameter.
func parameter(name, value string, labels ...string) control.Parameter {
	return control.Parameter{Region: region, Name: name, Value: &value, Labels: labels}
}

const urlARN = "arn:aws:ssm:eu-west-1:111122223333:parameter/prod/url"

func TestGetParameters(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{Parameters: []control.Parameter{
		parameter("/prod/url", "one", "green"), parameter("/prod/url", "two", "blue"), parameter("/prod/url", "three", "green"),
		parameter("plain", "p"), parameter("/top", "t"),
		{Region: region, Name: "list", Value: ptr("a,b"), Type: "StringList"},
		{Region: "us-east-1", Name: "/prod/url", Value: ptr("american")},
	}})
	client := d.parameters(t)
	for name, test := range map[string]struct {
		names       []string
		want        map[string]string // name and selector, and value
		wantInvalid []string
	}{
		"latest":                {names: []string{"/prod/url", "plain"}, want: map[string]string{"/prod/url": "three", "plain": "p"}},
		"version":               {names: []string{"/prod/url:1"}, want: map[string]string{"/prod/url:1": "one"}},
		"label":                 {names: []string{"/prod/url:blue"}, want: map[string]string{"/prod/url:blue": "two"}},
		"label that moved":      {names: []string{"/prod/url:green"}, want: map[string]string{"/prod/url:green": "three"}},
		"two labels of one":     {names: []string{"/prod/url:blue", "/prod/url:green"}, want: map[string]string{"/prod/url:blue": "two", "/prod/url:green": "three"}},
		"ARN":                   {names: []string{urlARN}, want: map[string]string{"/prod/url": "three"}},
		"ARN and version":       {names: []string{urlARN + ":2"}, want: map[string]string{"/prod/url:2": "two"}},
		"ARN of a plain name":   {names: []string{"arn:aws:ssm:eu-west-1:111122223333:parameter/plain"}, want: map[string]string{"plain": "p"}},
		"ARN of the top":        {names: []string{"arn:aws:ssm:eu-west-1:111122223333:parameter/top"}, want: map[string]string{"/top": "t"}},
		"ARN of another region": {names: []string{strings.Replace(urlARN, "eu-west-1", "us-east-1", 1)}, want: map[string]string{}, wantInvalid: []string{strings.Replace(urlARN, "eu-west-1", "us-east-1", 1)}},
		"list":                  {names: []string{"list"}, want: map[string]string{"list": "a,b"}},
		"not there":             {names: []string{"absent", "plain", "/prod/url:9", "/prod/url:red"}, want: map[string]string{"plain": "p"}, wantInvalid: []string{"absent", "/prod/url:9", "/prod/url:red"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: test.names})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, p := range out.Parameters {
				selector := ""
				if p.Selector != nil {
					selector = *p.Selector
				}
				got[*p.Name+selector] = *p.Value
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !slices.Equal(test.wantInvalid, out.InvalidParameters) {
				t.Errorf("invalid %q, want %q", out.InvalidParameters, test.wantInvalid)
			}
		})
	}
	t.Run("members", func(t *testing.T) {
		t.Parallel()
		out, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{"/prod/url:2"}})
		if err != nil {
			t.Fatal(err)
		}
		p := out.Parameters[0]
		if *p.ARN != urlARN || p.Version != 2 || p.Type != types.ParameterTypeString || *p.DataType != "text" || p.LastModifiedDate == nil {
			t.Errorf("got %+v", p)
		}
	})
	t.Run("name that is none", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"a b", "a/b", "arn:aws:s3:eu-west-1:1:x"} {
			_, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{name}})
			wantError(t, err, "ValidationException", "")
		}
	})
}

func TestSecureString(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	secure := control.Parameter{Region: region, Name: "secure", Value: ptr("hunter2"), Type: "SecureString"}
	d.apply(t, control.Document{Parameters: []control.Parameter{secure}})
	client := d.parameters(t)
	read := func(decrypt bool) (string, error) {
		out, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{"secure"}, WithDecryption: &decrypt})
		if err != nil {
			return "", err
		}
		return *out.Parameters[0].Value, nil
	}
	if got, err := read(true); got != "hunter2" || err != nil {
		t.Errorf("decrypted: %q, %v", got, err)
	}
	if got, err := read(false); !strings.HasPrefix(got, "AQICAH") || strings.Contains(got, "hunter2") || err != nil {
		t.Errorf("not decrypted: %q, %v", got, err)
	}
	d.apply(t, control.Document{Parameters: []control.Parameter{{Region: region, Name: "secure", KMS: ptr(control.KMSDenied)}}})
	_, err := read(true)
	wantError(t, err, "AccessDeniedException", "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access. (Service: AWSKMS; Status Code: 400; Error Code: AccessDeniedException)")
	if _, err := read(false); err != nil {
		t.Errorf("without decryption no key is needed: %v", err)
	}
	d.apply(t, control.Document{Parameters: []control.Parameter{{Region: region, Name: "secure", Value: ptr("hunter3"), KMS: ptr("")}}})
	if got, err := read(true); got != "hunter3" || err != nil {
		t.Errorf("a new version keeps the type: %q, %v", got, err)
	}
	if got, err := read(false); strings.Contains(got, "hunter3") || err != nil {
		t.Errorf("a new version, not decrypted: %q, %v", got, err)
	}
}

func TestGetParameter(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{Parameters: []control.Parameter{parameter("a", "one", "green"), parameter("a", "two")}})
	client := d.parameters(t)
	get := func(name string) (string, error) {
		out, err := client.GetParameter(t.Context(), &ssm.GetParameterInput{Name: &name})
		if err != nil {
			return "", err
		}
		return *out.Parameter.Value, nil
	}
	for name, want := range map[string]string{"a": "two", "a:1": "one", "a:green": "one"} {
		if got, err := get(name); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	_, err := get("b")
	wantError(t, err, "ParameterNotFound", "Parameter b not found.")
	_, err = get("a:9")
	wantError(t, err, "ParameterVersionNotFound", "Systems Manager could not find version 9 of a. Verify the version and try again.")
	if err := d.DeleteParameter(t.Context(), region, "a"); err != nil {
		t.Fatal(err)
	}
	_, err = get("a")
	wantError(t, err, "ParameterNotFound", "")
	if err := d.DeleteParameter(t.Context(), region, "a"); err == nil {
		t.Error("deleted twice: want an error")
	}
}

func TestParametersDenied(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.policy(t, `{"Effect":"Allow","Action":"ssm:GetParameters","Resource":"arn:aws:ssm:*:*:parameter/prod/*"}`)
	d.apply(t, control.Document{Parameters: []control.Parameter{parameter("/prod/url", "x"), parameter("/dev/url", "x")}})
	client := d.parameters(t)
	if _, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{"/prod/url"}}); err != nil {
		t.Errorf("allowed: %v", err)
	}
	// One that is denied takes all with it.
	_, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{"/prod/url", "/dev/url"}})
	wantError(t, err, "AccessDeniedException", "User: "+session+" is not authorized to perform: ssm:GetParameters on resource: "+
		"arn:aws:ssm:eu-west-1:111122223333:parameter/dev/url because no identity-based policy allows the ssm:GetParameters action")
	_, err = client.GetParameter(t.Context(), &ssm.GetParameterInput{Name: ptr("/prod/url")})
	wantError(t, err, "AccessDeniedException", "User: "+session+" is not authorized to perform: ssm:GetParameter on resource: "+
		urlARN+" because no identity-based policy allows the ssm:GetParameter action")
	_, err = client.DescribeParameters(t.Context(), &ssm.DescribeParametersInput{})
	wantError(t, err, "AccessDeniedException", "User: "+session+" is not authorized to perform: ssm:DescribeParameters on resource: "+
		"arn:aws:ssm:eu-west-1:111122223333:* because no identity-based policy allows the ssm:DescribeParameters action")
}

func TestConditionsOnParameters(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	tagged := parameter("a", "x")
	tagged.Tags = map[string]string{"app": "web"}
	d.apply(t, control.Document{Parameters: []control.Parameter{tagged, parameter("b", "x")}})
	client := d.parameters(t)
	for _, key := range []string{"aws:ResourceTag/app", "ssm:resourceTag/app"} {
		d.policy(t, `{"Effect":"Allow","Action":"ssm:GetParameters","Resource":"*","Condition":{"StringEquals":{"`+key+`":"web"}}}`)
		for name, want := range map[string]bool{"a": true, "b": false} {
			if _, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{name}}); (err == nil) != want {
				t.Errorf("%s of %s: %v, want it allowed: %t", key, name, err, want)
			}
		}
	}
}

// A label may be put to a version that is there, and leaves the one that had it.
func TestLabelsMove(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{Parameters: []control.Parameter{parameter("a", "one"), parameter("a", "two", "green")}})
	client := d.parameters(t)
	read := func() string {
		t.Helper()
		out, err := client.GetParameter(t.Context(), &ssm.GetParameterInput{Name: ptr("a:green")})
		if err != nil {
			t.Fatal(err)
		}
		return *out.Parameter.Value
	}
	if got := read(); got != "two" {
		t.Errorf("green is %q", got)
	}
	d.apply(t, control.Document{Parameters: []control.Parameter{{Region: region, Name: "a", Version: 1, Labels: []string{"green"}}}})
	if got := read(); got != "one" {
		t.Errorf("green is %q after it was moved", got)
	}
	_, err := d.Apply(t.Context(), control.Document{Parameters: []control.Parameter{{Region: region, Name: "a", Version: 9, Labels: []string{"green"}}}})
	if err == nil {
		t.Error("a label for no version: want an error")
	}
}

func TestDescribeParameters(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	web := parameter("/prod/web", "x")
	web.Tags = map[string]string{"app": "web"}
	api := parameter("/prod/web/api", "x")
	api.Tags, api.Type = map[string]string{"app": "api"}, "SecureString"
	other := parameter("/shared", "x")
	other.Account = "444455556666"
	d.apply(t, control.Document{Parameters: []control.Parameter{web, api, parameter("dev", "x"), parameter("dev", "y"), other}})
	client := d.parameters(t)
	filter := func(key, option string, values ...string) []types.ParameterStringFilter {
		f := types.ParameterStringFilter{Key: &key, Values: values}
		if option != "" {
			f.Option = &option
		}
		return []types.ParameterStringFilter{f}
	}
	for name, test := range map[string]struct {
		in       ssm.DescribeParametersInput
		want     []string
		wantCode string
	}{
		"all":                {want: []string{"/prod/web", "/prod/web/api", "dev"}},
		"shared":             {in: ssm.DescribeParametersInput{Shared: ptr(true)}, want: []string{"/shared"}},
		"equals":             {in: ssm.DescribeParametersInput{ParameterFilters: filter("Name", "", "/prod/web")}, want: []string{"/prod/web"}},
		"begins with":        {in: ssm.DescribeParametersInput{ParameterFilters: filter("Name", "BeginsWith", "/prod/web")}, want: []string{"/prod/web", "/prod/web/api"}},
		"contains":           {in: ssm.DescribeParametersInput{ParameterFilters: filter("Name", "Contains", "ev")}, want: []string{"dev"}},
		"tag":                {in: ssm.DescribeParametersInput{ParameterFilters: filter("tag:app", "", "web", "none")}, want: []string{"/prod/web"}},
		"tag of any value":   {in: ssm.DescribeParametersInput{ParameterFilters: filter("tag:app", "")}, want: []string{"/prod/web", "/prod/web/api"}},
		"two filters":        {in: ssm.DescribeParametersInput{ParameterFilters: append(filter("tag:app", ""), filter("Type", "", "SecureString")...)}, want: []string{"/prod/web/api"}},
		"path":               {in: ssm.DescribeParametersInput{ParameterFilters: filter("Path", "OneLevel", "/prod")}, want: []string{"/prod/web"}},
		"path, recursively":  {in: ssm.DescribeParametersInput{ParameterFilters: filter("Path", "Recursive", "/prod")}, want: []string{"/prod/web", "/prod/web/api"}},
		"the older filters":  {in: ssm.DescribeParametersInput{Filters: []types.ParametersFilter{{Key: types.ParametersFilterKeyName, Values: []string{"de"}}}}, want: []string{"dev"}},
		"key that is none":   {in: ssm.DescribeParametersInput{ParameterFilters: filter("Label", "", "x")}, wantCode: "InvalidFilterKey"},
		"option that is not": {in: ssm.DescribeParametersInput{ParameterFilters: filter("tag:app", "BeginsWith", "w")}, wantCode: "InvalidFilterOption"},
		"no value":           {in: ssm.DescribeParametersInput{ParameterFilters: filter("Name", "")}, wantCode: "InvalidFilterValue"},
		"bad token":          {in: ssm.DescribeParametersInput{NextToken: ptr("x")}, wantCode: "InvalidNextToken"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := client.DescribeParameters(t.Context(), &test.in)
			if test.wantCode != "" {
				wantError(t, err, test.wantCode, "")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range out.Parameters {
				got = append(got, *p.Name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("members", func(t *testing.T) {
		t.Parallel()
		out, err := client.DescribeParameters(t.Context(), &ssm.DescribeParametersInput{ParameterFilters: filter("Name", "", "dev", "/prod/web/api")})
		if err != nil {
			t.Fatal(err)
		}
		secure, dev := out.Parameters[0], out.Parameters[1]
		if dev.Version != 2 || *dev.ARN != "arn:aws:ssm:eu-west-1:111122223333:parameter/dev" || dev.KeyId != nil {
			t.Errorf("dev is %+v", dev)
		}
		if *secure.KeyId != "alias/aws/ssm" || secure.Type != types.ParameterTypeSecureString {
			t.Errorf("the SecureString is %+v", secure)
		}
	})
}

// A page is filtered after it was cut: it may be empty, and yet another follows.
func TestParametersPages(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{
		Parameters: []control.Parameter{parameter("a", "x"), parameter("b", "x"), parameter("c", "x"), parameter("d", "x"), parameter("z", "x")},
		PageSize:   ptr(2),
	})
	in := &ssm.DescribeParametersInput{ParameterFilters: []types.ParameterStringFilter{{Key: ptr("Name"), Values: []string{"a", "z"}}}}
	var sizes []int
	var got []string
	for p := ssm.NewDescribeParametersPaginator(d.parameters(t), in); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(out.Parameters))
		for _, found := range out.Parameters {
			got = append(got, *found.Name)
		}
	}
	for _, token := range []string{"none", "99", "0", "-1"} {
		encoded := base64.StdEncoding.EncodeToString([]byte(token))
		_, err := d.parameters(t).DescribeParameters(t.Context(), &ssm.DescribeParametersInput{NextToken: &encoded})
		wantError(t, err, "InvalidNextToken", "")
	}
	if !slices.Equal(sizes, []int{1, 0, 1}) || !slices.Equal(got, []string{"a", "z"}) {
		t.Errorf("pages of %v: %v", sizes, got)
	}
}
