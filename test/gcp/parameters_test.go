package gcp_test

import (
	"encoding/json"
	"strings"
	"testing"

	parametermanager "cloud.google.com/go/parametermanager/apiv1"
	"cloud.google.com/go/parametermanager/apiv1/parametermanagerpb"
	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
)

const (
	parameterHost = "parametermanager.googleapis.com"
	config        = "projects/shop/locations/global/parameters/config"
	westConfig    = "projects/shop/locations/europe-west1/parameters/config"
)

func render(t *testing.T, c *parametermanager.Client, name string) (string, error) {
	t.Helper()
	got, err := c.RenderParameterVersion(t.Context(), &parametermanagerpb.RenderParameterVersionRequest{Name: name})
	if err == nil && got.GetParameterVersion() != strings.Replace(name, number, "shop", 1) {
		t.Errorf("version %s of %s", got.GetParameterVersion(), name)
	}
	return string(got.GetRenderedPayload()), err
}

func parameter(name, version, format, value string) control.Parameter {
	return control.Parameter{Name: name, Version: version, Format: format, Value: &value}
}

func ref(secret string) string { return `__REF__(//secretmanager.googleapis.com/` + secret + `)` }

// The parameter itself reads the secrets that it refers to.
func TestRender(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	text := `{"user":"u","password":"` + ref(db+"/versions/latest") + `","again":"__REF__('//secretmanager.googleapis.com/` + db + `/versions/1')"}`
	applied := d.apply(t, control.Document{
		Secrets:    []control.Secret{secret(db, `say "hi"`)},
		Parameters: []control.Parameter{parameter(config, "v1", control.JSON, text), parameter(config+"-raw", "v1", "", text)},
	})
	c := d.parametersAt(t, parameterHost)
	_, err := render(t, c, config+"/versions/v1")
	wantStatus(t, err, codes.PermissionDenied, "IAM_PERMISSION_DENIED", "secretmanager.versions.access")
	member := applied.Parameters[0].PolicyMember
	if want := "principal://parametermanager.googleapis.com/projects/" + number + "/name/locations/global/parameters/config"; member != want {
		t.Errorf("member %s, want %s", member, want)
	}
	described, err := c.GetParameter(t.Context(), &parametermanagerpb.GetParameterRequest{Name: config})
	if err != nil || described.GetFormat() != parametermanagerpb.ParameterFormat_JSON || described.GetPolicyMember().GetIamPolicyNamePrincipal() != member {
		t.Fatalf("%v, %v", described, err)
	}
	for _, m := range []string{member, described.GetPolicyMember().GetIamPolicyUidPrincipal()} {
		d.bind(t, db, accessor, m)
		for _, project := range []string{"shop", number} {
			got, err := render(t, c, strings.Replace(config, "shop", project, 1)+"/versions/v1")
			var document map[string]string
			if json.Unmarshal([]byte(got), &document) != nil || err != nil || document["password"] != `say "hi"` || document["again"] != `say "hi"` {
				t.Errorf("%v: %s", err, got)
			}
		}
	}
	if got, err := render(t, c, config+"-raw/versions/v1"); err != nil || got != text {
		t.Errorf("%v: a parameter without a format is rendered: %s", err, got)
	}
}

func TestParametersThatAreRefused(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{
		Secrets: []control.Secret{secret(db, "x"), secret(westDB, "west")},
		Parameters: []control.Parameter{
			parameter(config, "off", control.YAML, "a: b"),
			{Name: config, Version: "off", Disabled: ptr(true)},
			parameter(config, "region", "", ref(westDB+"/versions/1")), parameter(config, "form", "", ref(db)),
			parameter(config, "gone", "", ref(db+"/versions/7")), parameter(config, "many", "", strings.Repeat(ref(db+"/versions/1"), 16)),
			parameter(config, "most", "", strings.Repeat(ref(db+"/versions/1"), 15)), parameter(westConfig, "v1", control.YAML, "a: "+ref(westDB+"/versions/1")),
		},
	})
	d.bind(t, "projects/shop", accessor, "allAuthenticatedUsers")
	c, west := d.parametersAt(t, parameterHost), d.parametersAt(t, "parametermanager.europe-west1.rep.googleapis.com")
	for version, want := range map[string]string{"off": "is disabled", "region": "secret reference", "form": "secret reference", "many": "16 secret references"} {
		_, err := render(t, c, config+"/versions/"+version)
		wantStatus(t, err, codes.FailedPrecondition, "", want)
	}
	for name, want := range map[string]string{config + "/versions/gone": "Secret Version", config + "/versions/none": "was not found", config + "2/versions/v1": "was not found"} {
		_, err := render(t, c, name)
		wantStatus(t, err, codes.NotFound, "", want)
	}
	for _, name := range []string{config, "projects/shop/parameters/config/versions/v1", westConfig + "/versions/v1", db + "/versions/1"} {
		_, err := render(t, c, name)
		wantStatus(t, err, codes.InvalidArgument, "", "")
	}
	_, err := render(t, c, "projects/other/locations/global/parameters/config/versions/v1")
	wantStatus(t, err, codes.PermissionDenied, "IAM_PERMISSION_DENIED", "Permission 'parametermanager.parameterVersions.render' denied on resource")
	_, err = render(t, west, config+"/versions/most")
	wantStatus(t, err, codes.InvalidArgument, "", "not served at this endpoint")
	if got, err := render(t, c, config+"/versions/most"); err != nil || got != strings.Repeat("x", 15) {
		t.Errorf("%v: %s", err, got)
	}
	if got, err := render(t, west, westConfig+"/versions/v1"); err != nil || got != "a: west" {
		t.Errorf("%v: %s", err, got)
	}
}

func TestVersionsOfParameters(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Parameters: []control.Parameter{parameter(config, "v1", control.YAML, "a: b"), {Name: config, Labels: map[string]string{"x": "y"}}}})
	c := d.parametersAt(t, parameterHost)
	get := func(view parametermanagerpb.View) *parametermanagerpb.ParameterVersion {
		t.Helper()
		got, err := c.GetParameterVersion(t.Context(), &parametermanagerpb.GetParameterVersionRequest{Name: config + "/versions/v1", View: view})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	full := get(parametermanagerpb.View_FULL)
	if string(full.GetPayload().GetData()) != "a: b" || full.GetDisabled() || full.GetUpdateTime() == nil {
		t.Errorf("%v", full)
	}
	if got := get(parametermanagerpb.View_BASIC); got.GetPayload() != nil {
		t.Errorf("%v", got)
	}
	d.apply(t, control.Document{Parameters: []control.Parameter{{Name: config, Version: "v1", Disabled: ptr(true)}}})
	if got := get(parametermanagerpb.View_FULL); got.GetPayload() != nil || !got.GetDisabled() || !got.GetUpdateTime().AsTime().After(full.GetUpdateTime().AsTime()) {
		t.Errorf("%v, made %v", got, full)
	}
	if got, err := c.GetParameter(t.Context(), &parametermanagerpb.GetParameterRequest{Name: config}); err != nil || got.GetLabels()["x"] != "y" {
		t.Errorf("%v, %v", got, err)
	}
	for _, name := range []string{config + "/versions/v1", config} {
		if err := d.DeleteParameter(t.Context(), name); err != nil {
			t.Error(err)
		}
		if err := d.DeleteParameter(t.Context(), name); err == nil {
			t.Errorf("%s is deleted twice", name)
		}
	}
}
