// Package resource reads the names of secrets and parameters.
package resource

import "strings"

// Collections.
const (
	Secrets    = "secrets"
	Parameters = "parameters"
)

// Latest is the alias of the version that was made last.
const Latest = "latest"

// Name is one of a secret or a parameter, or of one of its versions.
type Name struct {
	Project string
	// Location is "" for a global secret, "global" for a global parameter.
	Location   string
	Collection string
	ID         string
	// Version is "" without one.
	Version string
}

// Parse reads a name.
func Parse(name string) (Name, bool) {
	parts := strings.Split(name, "/")
	var n Name
	next := func(collection string, value *string) bool {
		if len(parts) < 2 || parts[0] != collection || !legal(parts[1]) {
			return false
		}
		*value, parts = parts[1], parts[2:]
		return true
	}
	if !next("projects", &n.Project) {
		return Name{}, false
	}
	next("locations", &n.Location)
	if len(parts) < 2 || (parts[0] != Secrets && parts[0] != Parameters) {
		return Name{}, false
	}
	n.Collection = parts[0]
	if !next(n.Collection, &n.ID) || (n.Collection == Parameters && n.Location == "") {
		return Name{}, false
	}
	next("versions", &n.Version)
	return n, len(parts) == 0
}

// ParseParent reads the name of a project or of one of its locations.
func ParseParent(name string) (project, location string, ok bool) {
	n, ok := Parse(name + "/" + Secrets + "/x")
	return n.Project, n.Location, ok && n.Version == "" && n.ID == "x"
}

// maxPart is the most that a part of a name has.
const maxPart = 255

func legal(part string) bool {
	return part != "" && len(part) <= maxPart && !strings.ContainsFunc(part, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_.:-", r)
	})
}

// Parent returns the name without a version.
func (n Name) Parent() Name { n.Version = ""; return n }

// String returns the name.
func (n Name) String() string {
	name := "projects/" + n.Project
	if n.Location != "" {
		name += "/locations/" + n.Location
	}
	name += "/" + n.Collection + "/" + n.ID
	if n.Version != "" {
		name += "/versions/" + n.Version
	}
	return name
}
