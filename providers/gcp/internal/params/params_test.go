package params

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
)

const name = "projects/my-project/secrets/a/versions/latest"

// one is a list of one object, with fields in YAML's flow style.
func one(fields string) string {
	return "- {resourceName: " + name + ", fileName: f, " + fields + "}"
}

func parse(secrets string) (*Spec, error) {
	return Parse(sdk.Parameters{ParameterSecrets: secrets})
}

// parseOne parses a list of one object.
func parseOne(t *testing.T, secrets string) Object {
	t.Helper()
	spec, err := parse(secrets)
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.Secrets) != 1 {
		t.Fatalf("%d objects", len(spec.Secrets))
	}
	return spec.Secrets[0]
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

// wantViolations checks that there are these violations and no other, of which texts
// are the beginnings.
func wantViolations(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", texts)
	}
	got := violations(t, err)
	same := len(got) == len(texts)
	for i := 0; same && i < len(got); i++ {
		same = strings.HasPrefix(got[i], texts[i])
	}
	if !same {
		t.Errorf("violations:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(texts, "\n"))
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := parse(`
- resourceName: "projects/my-project/secrets/testsecret/versions/latest"
  fileName: "good1.txt"
- resourceName: "projects/my-project/secrets/testsecret/versions/latest"
  path: "good2.txt"
  mode: 0400
- resourceName: "projects/123456789012/locations/europe-west3/secrets/regional_1/versions/7"
  path: "nested/good3.txt"
  fileName: ignored
  extractJSONKey: user
- resourceName: "projects/my-project/locations/global/parameters/p/versions/v1.0"
  fileName: parameter/*.txt
  extractYAMLKey: "*"
  optional: true
- resourceName: "projects/my-project/locations/us-central1/parameters/p/versions/v1"
  fileName: regional
`)
	if err != nil {
		t.Fatal(err)
	}
	secret := func(index int, file string) Object {
		return Object{
			Index: index, Kind: Secret, Resource: "projects/my-project/secrets/testsecret/versions/latest",
			Project: "my-project", Name: "testsecret", Version: "latest", File: file,
		}
	}
	second := secret(1, "good2.txt")
	second.Mode = 0o400
	want := &Spec{Secrets: []Object{
		secret(0, "good1.txt"), second,
		{
			Index: 2, Kind: Secret, Resource: "projects/123456789012/locations/europe-west3/secrets/regional_1/versions/7",
			Project: "123456789012", Location: "europe-west3", Name: "regional_1", Version: "7", File: "nested/good3.txt",
			Rule: &Rule{Format: JSON, Key: "user"},
		},
		{
			Index: 3, Kind: Parameter, Resource: "projects/my-project/locations/global/parameters/p/versions/v1.0",
			Project: "my-project", Name: "p", Version: "v1.0", File: "parameter/*.txt", Rule: &Rule{Format: YAML, Key: "*", All: true}, Optional: true,
		},
		{
			Index: 4, Kind: Parameter, Resource: "projects/my-project/locations/us-central1/parameters/p/versions/v1",
			Project: "my-project", Location: "us-central1", Name: "p", Version: "v1", File: "regional",
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAuth(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Auth{"": AuthDefault, "pod-adc": PodADC, "provider-adc": ProviderADC} {
		spec, err := Parse(sdk.Parameters{ParameterSecrets: one(""), ParameterAuth: text, "objects": "x", "csi.storage.k8s.io/pod.name": "y"})
		if err != nil || spec.Auth != want {
			t.Errorf("%q: %+v, %v", text, spec, err)
		}
	}
	for _, text := range []string{"super-good-auth", "Pod-ADC", " pod-adc", "provider-adc\n"} {
		_, err := Parse(sdk.Parameters{ParameterSecrets: one(""), ParameterAuth: text})
		wantViolations(t, err, fmt.Sprintf("auth: unknown auth configuration: %q: write pod-adc", text))
	}
}

func TestAllViolationsAreTold(t *testing.T) {
	t.Parallel()
	_, err := Parse(sdk.Parameters{ParameterAuth: "x", ParameterSecrets: `
- {resourceName: r, mode: 0, optional: yes}
- {resourceName: ` + name + `, fileName: f, limit: 1}
- just text
- {resourceName: ` + name + `, fileName: f, extractJSONKey: a, extractYAMLKey: b}`})
	wantViolations(
		t, err,
		`auth: unknown auth configuration: "x"`,
		`secrets[0].resourceName: unknown resource type: "r"`,
		"secrets[0].fileName: is required",
		`secrets[0].mode: "0" is not the mode of a file`,
		"secrets[0].optional: must be true or false",
		"secrets[1].limit: is for labels and namePrefix alone",
		"secrets[2]: failed to unmarshal secrets attribute: yaml: unmarshal errors: it is no mapping",
		"secrets[3].extractYAMLKey: both ExtractJSONKey and ExtractYAMLKey can't be simultaneously non empty strings",
		`secrets[3].fileName: "f" is already the file of secrets[1].fileName: set another fileName`,
	)
}

func TestParameters(t *testing.T) {
	t.Parallel()
	var names []string
	for _, p := range Parameters() {
		if p.Description == "" || p.Required != (p.Name == ParameterSecrets) {
			t.Errorf("%+v", p)
		}
		names = append(names, p.Name)
	}
	if diff := cmp.Diff([]string{"secrets", "auth"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestShown(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                    "",
		`a "b" 'c' \ é ✓`:                     `a "b" 'c' \ é ✓`,
		"a\nb\x1b[31m\x00":                    `a\nb\x1b[31m\x00`,
		"a\u2028b":                            `a\u2028b`,
		strings.Repeat("x", maxShown):         strings.Repeat("x", maxShown),
		strings.Repeat("x", maxShown+1):       strings.Repeat("x", maxShown) + "...",
		strings.Repeat("x", maxShown-1) + "é": strings.Repeat("x", maxShown-1) + "...",
	} {
		if got := shown(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
