package params

import (
	"fmt"
	"strings"
	"testing"
)

func resourceYAML(resource string) string {
	return fmt.Sprintf("- {resourceName: %q, fileName: f}", resource)
}

func TestResource(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("x", 255)
	for _, tt := range []struct {
		resource string
		want     Object
	}{
		{"projects/p/secrets/s/versions/latest", Object{Kind: Secret, Project: "p", Name: "s", Version: "latest"}},
		{"projects/p/secrets/s/versions/12", Object{Kind: Secret, Project: "p", Name: "s", Version: "12"}},
		{"projects/p/secrets/s/versions/my-Alias_1", Object{Kind: Secret, Project: "p", Name: "s", Version: "my-Alias_1"}},
		{"projects/42/secrets/-_9A/versions/1", Object{Kind: Secret, Project: "42", Name: "-_9A", Version: "1"}},
		{"projects/example.com:p-1/secrets/s/versions/1", Object{Kind: Secret, Project: "example.com:p-1", Name: "s", Version: "1"}},
		{"projects/p/secrets/" + id + "/versions/1", Object{Kind: Secret, Project: "p", Name: id, Version: "1"}},
		{"projects/p/locations/us-central1/secrets/s/versions/1", Object{Kind: Secret, Project: "p", Location: "us-central1", Name: "s", Version: "1"}},
		{
			"projects/p/locations/" + strings.Repeat("l", 30) + "/secrets/s/versions/1",
			Object{Kind: Secret, Project: "p", Location: strings.Repeat("l", 30), Name: "s", Version: "1"},
		},
		{"projects/p/locations/global/parameters/a/versions/v", Object{Kind: Parameter, Project: "p", Name: "a", Version: "v"}},
		{"projects/p/locations/global/parameters/a.b/versions/1.0_x-", Object{Kind: Parameter, Project: "p", Name: "a.b", Version: "1.0_x-"}},
		{"projects/p/locations/eu/parameters/a/versions/latest", Object{Kind: Parameter, Project: "p", Location: "eu", Name: "a", Version: "latest"}},
		// What is a word of names elsewhere is a name here.
		{"projects/secrets/secrets/secrets/versions/versions", Object{Kind: Secret, Project: "secrets", Name: "secrets", Version: "versions"}},
		{"projects/p/locations/global/parameters/secrets/versions/latest", Object{Kind: Parameter, Project: "p", Name: "secrets", Version: "latest"}},
	} {
		tt.want.Resource, tt.want.File = tt.resource, "f"
		if got := parseOne(t, resourceYAML(tt.resource)); got != tt.want || got.Title() != tt.resource {
			t.Errorf("%s: %+v, want %+v", tt.resource, got, tt.want)
		}
	}
}

func TestResourceViolations(t *testing.T) {
	t.Parallel()
	const unknown = "unknown resource type: "
	for resource, want := range map[string]string{
		"":                                                  unknown + "it is not set: write projects/<project>/secrets/<secret>/versions/<version>, ",
		"a":                                                 unknown + `"a": write projects/`,
		"projects/p/secrets/s":                              unknown,
		"projects/p/secrets/s/versions":                     unknown,
		"projects/p/secrets/s/versions/":                    unknown,
		"projects//secrets/s/versions/1":                    unknown,
		"projects/p/secrets/s/versions/1/":                  unknown,
		"/projects/p/secrets/s/versions/1":                  unknown,
		"Projects/p/secrets/s/versions/1":                   unknown,
		"projects/p/secrets/s/version/1":                    unknown,
		"projects/p/parameters/s/versions/1":                unknown,
		"projects/p/locations/l/s/versions/1":               unknown,
		"projects/p/folders/l/secrets/s/versions/1":         unknown,
		"projects/p/folders/l/parameters/s/versions/1":      unknown,
		"x/projects/p/locations/l/secrets/s/versions/1":     unknown,
		"projects/p/locations/l/secrets/s/versions/1/x":     unknown,
		"projects/p/locations//parameters/s/versions/1":     unknown,
		"//secretmanager.googleapis.com/projects/p/secrets": unknown,

		"projects/P/secrets/s/versions/1":                                `Invalid secret resource name: projects/P/secrets/s/versions/1: "P" is not a project`,
		"projects/-/secrets/s/versions/1":                                "Invalid secret resource name: ",
		"projects/1p/secrets/s/versions/1":                               "Invalid secret resource name: ",
		"projects/p-/secrets/s/versions/1":                               "Invalid secret resource name: ",
		"projects/p%2f/secrets/s/versions/1":                             "Invalid secret resource name: ",
		"projects/example.com:/secrets/s/versions/1":                     "Invalid secret resource name: ",
		"projects/$PROJECT_ID/secrets/s/versions/1":                      `Invalid secret resource name: projects/$PROJECT_ID/secrets/s/versions/1: "$PROJECT_ID" is not a project: write its id`,
		"projects/p/secrets/s.t/versions/1":                              `Invalid secret resource name: projects/p/secrets/s.t/versions/1: "s.t" is not the name of a secret`,
		"projects/p/secrets/../versions/1":                               "Invalid secret resource name: ",
		"projects/p/secrets/*/versions/1":                                "Invalid secret resource name: ",
		"projects/p/secrets/é/versions/1":                                "Invalid secret resource name: ",
		"projects/p/secrets/" + strings.Repeat("x", 256) + "/versions/1": "Invalid secret resource name: ",
		"projects/p/secrets/s/versions/v1.0":                             `Invalid secret resource name: projects/p/secrets/s/versions/v1.0: "v1.0" is not a version: write its number, latest, or an alias`,
		"projects/p/secrets/s/versions/-1":                               "Invalid secret resource name: ",
		"projects/p/secrets/s/versions/1a":                               "Invalid secret resource name: ",
		"projects/p/secrets/s/versions/1\n":                              `Invalid secret resource name: projects/p/secrets/s/versions/1\n: "1\n" is not a version`,
		"projects/p/secrets/s/versions/latest ":                          "Invalid secret resource name: ",
		"projects/p/secrets/s/versions/a" + strings.Repeat("x", 63):      "Invalid secret resource name: ",

		"projects/P/locations/global/parameters/a/versions/v":   `Invalid parameter resource name: projects/P/locations/global/parameters/a/versions/v: "P" is not a project`,
		"projects/p/locations/global/parameters/../versions/v":  `Invalid parameter resource name: projects/p/locations/global/parameters/../versions/v: ".." is not the name of a parameter`,
		"projects/p/locations/global/parameters/a b/versions/v": "Invalid parameter resource name: ",
		"projects/p/locations/global/parameters/a/versions/.":   `Invalid parameter resource name: projects/p/locations/global/parameters/a/versions/.: "." is not the name of a version`,
		"projects/p/locations/global/parameters/a/versions/v?x": "Invalid parameter resource name: ",

		"projects/p/locations/global/secrets/s/versions/1":                             "Invalid location: global: secrets that are not regional have no location",
		"projects/p/locations/" + strings.Repeat("l", 31) + "/secrets/s/versions/1":    "Invalid location: " + strings.Repeat("l", 31) + ", location length exceeds limit",
		"projects/p/locations/" + strings.Repeat("l", 31) + "/parameters/s/versions/1": "Invalid location: " + strings.Repeat("l", 31),
		"projects/p/locations/evil.example.com/secrets/s/versions/1":                   "Invalid location: evil.example.com, write one such as europe-west3",
		"projects/p/locations/evil.com:443/parameters/s/versions/1":                    "Invalid location: evil.com:443",
		"projects/p/locations/us-central1-/secrets/s/versions/1":                       "Invalid location: ",
		"projects/p/locations/-us/secrets/s/versions/1":                                "Invalid location: ",
		"projects/p/locations/1/secrets/s/versions/1":                                  "Invalid location: ",
		"projects/p/locations/US/secrets/s/versions/1":                                 "Invalid location: ",
		"projects/p/locations/GLOBAL/parameters/s/versions/1":                          "Invalid location: ",
		"projects/p/locations/us@x/secrets/s/versions/1":                               "Invalid location: ",
		"projects/p/locations/us\n/secrets/s/versions/1":                               `Invalid location: us\n, write`,
		"projects/p/locations/#/parameters/s/versions/1":                               "Invalid location: ",
		"projects/p/locations/é/parameters/s/versions/1":                               "Invalid location: ",
	} {
		_, err := parse(resourceYAML(resource))
		wantViolations(t, err, "secrets[0].resourceName: "+want)
	}
}
