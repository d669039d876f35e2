package params

import (
	"fmt"
	"regexp"
	"strings"
)

// Latest is the version of a secret that is its newest one.
const Latest = "latest"

// global is the location of parameters that are in none.
const global = "global"

// resource decodes the full name of a version.
func (e *entry) resource(o *Object) {
	o.Resource = e.ResourceName
	parts := strings.Split(e.ResourceName, "/")
	values := func(pattern string) bool { return matches(parts, strings.Split(pattern, "/")) }
	var problem string
	switch {
	case values("projects/*/secrets/*/versions/*"):
		o.Kind, o.Project, o.Name, o.Version = Secret, parts[1], parts[3], parts[5]
		problem = secretProblem(o)
	case values("projects/*/locations/*/secrets/*/versions/*"):
		o.Kind, o.Project, o.Location, o.Name, o.Version = Secret, parts[1], parts[3], parts[5], parts[7]
		problem = secretProblem(o)
	case values("projects/*/locations/*/parameters/*/versions/*"):
		o.Kind, o.Project, o.Location, o.Name, o.Version = Parameter, parts[1], parts[3], parts[5], parts[7]
		if o.Location == global {
			o.Location = ""
		}
		problem = parameterProblem(o)
	case e.ResourceName == "":
		problem = "unknown resource type: it is not set: " + wantedResource
	default:
		problem = fmt.Sprintf(`unknown resource type: %s: %s`, quoted(e.ResourceName), wantedResource)
	}
	if problem != "" {
		e.violate("resourceName", "%s", problem)
	}
}

const wantedResource = "write projects/<project>/secrets/<secret>/versions/<version>, " +
	"projects/<project>/locations/<location>/secrets/<secret>/versions/<version> " +
	"or projects/<project>/locations/<location>/parameters/<parameter>/versions/<version>"

// matches reports whether parts are those of a pattern, in which "*" is any text.
func matches(parts, pattern []string) bool {
	if len(parts) != len(pattern) {
		return false
	}
	for i, part := range parts {
		if part == "" || pattern[i] != "*" && pattern[i] != part {
			return false
		}
	}
	return true
}

// The syntax of names' parts. Of projects it is less strict than for new ones, of
// which the oldest know nothing; of parameters Google says none, so it is what cannot
// be taken for anything else.
var (
	projectSyntax       = regexp.MustCompile(`^([0-9]{1,19}|([a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?:)?[a-z]([a-z0-9-]{0,61}[a-z0-9])?)$`)
	locationSyntax      = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)
	idSyntax            = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	versionSyntax       = regexp.MustCompile(`^([0-9]{1,19}|[A-Za-z][A-Za-z0-9_-]{0,62})$`)
	parameterPartSyntax = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}$`)
)

// maxLocation is how long a location may be, which becomes a part of a host's name.
const maxLocation = 30

func secretProblem(o *Object) string {
	if o.Location != "" {
		if problem := secretLocationProblem(o.Location); problem != "" {
			return problem
		}
	}
	switch problem := projectProblem(o.Project); {
	case problem != "":
		return invalid(o, problem)
	case !idSyntax.MatchString(o.Name):
		return invalid(o, quoted(o.Name)+" is not the name of a secret, which has up to 255 letters, digits, - and _")
	case !versionSyntax.MatchString(o.Version):
		return invalid(o, quoted(o.Version)+" is not a version: write its number, latest, or an alias of the secret")
	default:
		return ""
	}
}

func parameterProblem(o *Object) string {
	if o.Location != "" {
		if problem := locationProblem(o.Location); problem != "" {
			return problem
		}
	}
	switch problem := projectProblem(o.Project); {
	case problem != "":
		return invalid(o, problem)
	case !parameterPartSyntax.MatchString(o.Name):
		return invalid(o, quoted(o.Name)+" is not the name of a parameter")
	case !parameterPartSyntax.MatchString(o.Version):
		return invalid(o, quoted(o.Version)+" is not the name of a version")
	default:
		return ""
	}
}

func invalid(o *Object, problem string) string {
	return fmt.Sprintf("Invalid %s resource name: %s: %s", o.Kind, shown(o.Resource), problem)
}

func projectProblem(project string) string {
	if projectSyntax.MatchString(project) {
		return ""
	}
	return fmt.Sprintf(`%s is not a project: write its id, such as my-project, or its number`, quoted(project))
}

// secretLocationProblem is that of a regional secret's location. Secrets that are not
// regional have none in their names.
func secretLocationProblem(location string) string {
	if location == global {
		return "Invalid location: global: secrets that are not regional have no location: leave locations/global out"
	}
	return locationProblem(location)
}

func locationProblem(location string) string {
	switch {
	case len(location) > maxLocation:
		return fmt.Sprintf("Invalid location: %s, location length exceeds limit of %d", shown(location), maxLocation)
	case !locationSyntax.MatchString(location):
		return fmt.Sprintf("Invalid location: %s, write one such as europe-west3", shown(location))
	default:
		return ""
	}
}
