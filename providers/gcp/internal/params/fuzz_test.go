package params

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// FuzzParse checks that nothing makes a panic, and that what is accepted can be read
// from Google and mounted.
func FuzzParse(f *testing.F) {
	f.Add("", one(""))
	f.Add("pod-adc", one("path: a/b, mode: 0400, extractJSONKey: '*'")+"\n- &a {<<: {fileName: g}, resourceName: projects/1/locations/l/parameters/p/versions/v}\n- *a")
	f.Add("provider-adc", "- {parent: projects/p/locations/l, labels: {a: b}, namePrefix: c, limit: 7, path: d/*, extractYAMLKey: e, optional: true}")
	f.Add("x", "- {resourceName: projects/p/locations/global/secrets/s/versions/1, mode: '0400', fileName: 1}\n- null\n- [[]]\n- *a")
	f.Fuzz(func(t *testing.T, auth, secrets string) {
		spec, err := Parse(sdk.Parameters{ParameterAuth: auth, ParameterSecrets: secrets})
		if err != nil {
			if e, ok := errors.AsType[*sdk.Error](err); !ok || len(e.Fields) == 0 || spec != nil {
				t.Fatalf("error of type %T, with %+v", err, spec)
			}
			return
		}
		if len(spec.Secrets) == 0 || string(spec.Auth) != auth {
			t.Fatalf("accepted %+v", spec)
		}
		var paths []string
		for i, o := range spec.Secrets {
			if o.Index != i || o.Mode > 0o777 || o.Title() == "" || o.Rule != nil && (o.Rule.Key == "" || o.Rule.All != (o.Rule.Key == "*")) {
				t.Fatalf("accepted %+v", o)
			}
			switch {
			case o.Select != nil:
				checkSelect(t, o)
			case o.Rule != nil && o.Rule.All:
				checkResource(t, o)
				checkPattern(t, o.File)
			default:
				checkResource(t, o)
				paths = append(paths, o.File)
			}
		}
		if i, problem := sdk.CheckPaths(paths); problem != "" {
			t.Fatalf("accepted file %q: %s", paths[i], problem)
		}
	})
}

// checkResource checks that a name is made of its parts.
func checkResource(t *testing.T, o Object) {
	t.Helper()
	checkLocation(t, o.Location)
	parent := (&Select{Project: o.Project, Location: o.Location}).Parent()
	switch {
	case o.Kind == Secret:
		parent += "/secrets/"
	case o.Kind == Parameter && o.Location == "":
		parent += "/locations/global/parameters/"
	case o.Kind == Parameter:
		parent += "/parameters/"
	}
	if want := parent + o.Name + "/versions/" + o.Version; o.Resource != want || strings.Count(want, "/") > 7 {
		t.Fatalf("accepted %+v, want %s", o, want)
	}
	for _, r := range o.Resource {
		if r <= ' ' || r > '~' {
			t.Fatalf("accepted %q", o.Resource)
		}
	}
}

// checkLocation checks that what is made of a location is the host of one of Google's
// endpoints.
func checkLocation(t *testing.T, location string) {
	t.Helper()
	if location == "" {
		return
	}
	host := "secretmanager." + location + ".rep.googleapis.com"
	u, err := url.Parse("https://" + host + ":443/")
	if err != nil || u.Hostname() != host || u.Port() != "443" || strings.Count(host, ".") != 4 || strings.ToLower(host) != host || len(location) > 30 {
		t.Fatalf("accepted location %q: %v, %v", location, u, err)
	}
}

func checkPattern(t *testing.T, pattern string) {
	t.Helper()
	if _, problem := sdk.CheckPaths([]string{strings.Replace(pattern, "*", "x", 1)}); problem != "" || strings.Count(pattern, "*") != 1 {
		t.Fatalf("accepted pattern %q: %s", pattern, problem)
	}
}

func checkSelect(t *testing.T, o Object) {
	t.Helper()
	s := o.Select
	if o.Kind != Secret || o.File != "" || o.Resource+o.Project+o.Location+o.Name+o.Version != "" || o.Rule != nil && o.Rule.All ||
		s.Limit < 1 || s.Limit > maxLimit || s.NamePrefix == "" && len(s.Labels) == 0 || s.Project == "" {
		t.Fatalf("accepted %+v, %+v", o, s)
	}
	checkPattern(t, s.FilePattern)
	checkLocation(t, s.Location)
	for key, value := range s.Labels {
		if key == "" || strings.ContainsAny(key+value, " \t\r\n\"'\\=:.*()<>!,~/") {
			t.Fatalf("accepted label %q: %q", key, value)
		}
	}
}
