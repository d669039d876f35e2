package params

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// How many secrets a selection may have, unless it says, and at most.
const (
	defaultLimit = 50
	maxLimit     = 200
)

// Select asks for the newest versions of all secrets of which the name begins with a
// prefix, and which have some labels.
type Select struct {
	// Project and Location are as those of [Object].
	Project, Location string
	// Labels are such that a filter may hold them as they are, in quotes.
	Labels     map[string]string
	NamePrefix string
	// Limit is how many there may be.
	Limit int
	// FilePattern holds exactly one "*", which stands for a secret's name.
	FilePattern string
}

// Parent is the full name of the project, or of the location in it.
func (s *Select) Parent() string {
	if s.Location == "" {
		return "projects/" + s.Project
	}
	return "projects/" + s.Project + "/locations/" + s.Location
}

// Resource is the full name of the newest version of one of the selected secrets.
func (s *Select) Resource(name string) string {
	return s.Parent() + "/secrets/" + name + "/versions/" + Latest
}

// File is the path of the file of one of the selected secrets.
func (s *Select) File(name string) string { return strings.Replace(s.FilePattern, "*", name, 1) }

// Matches reports whether a secret is one of those.
func (s *Select) Matches(name string, labels map[string]string) bool {
	if !strings.HasPrefix(name, s.NamePrefix) {
		return false
	}
	for key, value := range s.Labels {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// String is what messages call the selection.
func (s *Select) String() string {
	parts := []string{s.Parent()}
	if s.NamePrefix != "" {
		parts = append(parts, "namePrefix "+s.NamePrefix)
	}
	if len(s.Labels) > 0 {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
			labels = append(labels, key+"="+s.Labels[key])
		}
		parts = append(parts, "labels "+strings.Join(labels, ","))
	}
	return strings.Join(parts, " ")
}

// Labels, as Secret Manager has them. None has a character that means something in a
// filter.
var (
	labelKeySyntax   = regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}$`)
	labelValueSyntax = regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$`)
)

// maxLabels is how many labels a secret may have.
const maxLabels = 64

// selection decodes what is for many secrets.
func (e *entry) selection() *Select {
	if e.ResourceName != "" {
		e.violate("resourceName", "cannot be used with parent, labels and namePrefix, which ask for many secrets")
	}
	if e.NamePrefix == "" && len(e.Labels) == 0 {
		e.violate("parent", "asks for all secrets there: set labels or namePrefix, or both")
	}
	if e.NamePrefix != "" && !idSyntax.MatchString(e.NamePrefix) {
		e.violate("namePrefix", `%s is not the beginning of a secret's name, which has letters, digits, - and _`, quoted(e.NamePrefix))
	}
	s := &Select{Labels: e.labels(), NamePrefix: e.NamePrefix, Limit: e.limit()}
	s.Project, s.Location = e.parent()
	s.FilePattern = e.filePattern()
	return s
}

// parent decodes where the secrets are.
func (e *entry) parent() (project, location string) {
	const wanted = "write projects/<project>, or projects/<project>/locations/<location> for regional secrets"
	if e.Parent == "" {
		e.violate("parent", "is required with labels and namePrefix: %s", wanted)
		return "", ""
	}
	parts := strings.Split(e.Parent, "/")
	switch {
	case len(parts) == 2 && parts[0] == "projects":
	case len(parts) == 4 && parts[0] == "projects" && parts[2] == "locations":
		location = parts[3]
		if problem := secretLocationProblem(location); problem != "" {
			e.violate("parent", "%s", problem)
			return "", ""
		}
	default:
		e.violate("parent", `%s is no project: %s`, quoted(e.Parent), wanted)
		return "", ""
	}
	if problem := projectProblem(parts[1]); problem != "" {
		e.violate("parent", "%s", problem)
	}
	return parts[1], location
}

// labels checks the labels, and tells of the first that is wrong.
func (e *entry) labels() map[string]string {
	if len(e.Labels) > maxLabels {
		e.violate("labels", "are %d, and a secret has at most %d", len(e.Labels), maxLabels)
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(e.Labels)) {
		switch value := e.Labels[key]; {
		case !labelKeySyntax.MatchString(key):
			e.violate("labels", `%s is not the key of a label: it has up to 63 small letters, digits, - and _, and begins with a letter`, quoted(key))
			return nil
		case !labelValueSyntax.MatchString(value):
			e.violate("labels", `%s is not the value of a label, which the key %s is to have: it has up to 63 small letters, digits, - and _`,
				quoted(value), key)
			return nil
		}
	}
	return e.Labels
}

func (e *entry) limit() int {
	switch {
	case e.Limit == nil:
		return defaultLimit
	case *e.Limit < 1 || *e.Limit > maxLimit:
		e.violate("limit", "must be from 1 to %d, not %d", maxLimit, *e.Limit)
	}
	return *e.Limit
}

// filePattern is where the files of the selected secrets are: next to each other, by
// their names, unless the class says.
func (e *entry) filePattern() string {
	if e.file() == "" {
		return "*"
	}
	e.checkPattern("a secret's name")
	return e.file()
}
