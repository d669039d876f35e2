package params

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// How many objects a selection may have, unless it says, and at most.
const (
	defaultLimit = 50
	maxLimit     = 200
)

// Select asks for all objects of which the name matches a pattern, and which have
// some tags.
type Select struct {
	// Pattern holds exactly one "*", which stands for any text.
	Pattern string
	Tags    map[string]string
	// Limit is how many there may be.
	Limit int
	// FilePattern holds exactly one "*", for which is put what that of Pattern stood
	// for. "" is the whole name.
	FilePattern string
}

// String is what messages call the selection.
func (s *Select) String() string {
	parts := []string{"namePattern " + s.Pattern}
	if len(s.Tags) > 0 {
		var tags []string
		for _, key := range slices.Sorted(maps.Keys(s.Tags)) {
			tags = append(tags, key+"="+s.Tags[key])
		}
		parts = append(parts, "tags "+strings.Join(tags, ","))
	}
	return strings.Join(parts, " ")
}

// Matches reports whether an object is one of those. A vault does not tell names
// apart that differ in case alone, so neither does the pattern; of tags, both the
// name and the value have to be the same.
func (s *Select) Matches(name string, tags map[string]string) bool {
	if _, ok := s.star(name); !ok {
		return false
	}
	for key, value := range s.Tags {
		if got, ok := tags[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// File is the path of the file of one of the selected objects.
func (s *Select) File(name string) string {
	star, ok := s.star(name)
	if s.FilePattern == "" || !ok {
		return name
	}
	return strings.Replace(s.FilePattern, "*", star, 1)
}

// star returns what the pattern's "*" stands for in a name, and whether the name
// matches.
func (s *Select) star(name string) (string, bool) {
	before, after, _ := strings.Cut(s.Pattern, "*")
	if len(name) < len(before)+len(after) {
		return "", false
	}
	end := len(name) - len(after)
	if !strings.EqualFold(name[:len(before)], before) || !strings.EqualFold(name[end:], after) {
		return "", false
	}
	return name[len(before):end], true
}

var patternSyntax = regexp.MustCompile(`^[0-9a-zA-Z-]*\*[0-9a-zA-Z-]*$`)

// selection decodes what is for many objects.
func (e *entry) selection() *Select {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"objectName", e.ObjectName != ""},
		{"objectVersion", e.ObjectVersion != ""},
		{"objectVersionHistory", e.ObjectVersionHistory != 0},
	} {
		if f.set {
			e.violate(f.name, "cannot be used with namePattern or tags, which ask for many objects")
		}
	}
	pattern := cmp.Or(e.NamePattern, "*")
	if !patternSyntax.MatchString(pattern) {
		e.violate("namePattern", `%q is not a pattern: it has letters, digits and -, and one "*", which stands for any text`, pattern)
	}
	if _, ok := e.Tags[""]; ok {
		e.violate("tags", "a tag has no name")
	}
	return &Select{Pattern: pattern, Tags: e.Tags, Limit: e.limit(), FilePattern: e.filePattern()}
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

// filePattern is where the files of the selected objects are.
func (e *entry) filePattern() string {
	pattern := e.ObjectAlias
	switch {
	case pattern == "":
	case strings.Count(pattern, "*") != 1:
		e.violate("objectAlias", `%q must have one "*", which stands for what that of namePattern stands for`, pattern)
	case e.checkPath(strings.Replace(pattern, "*", "x", 1)):
		e.claimPattern(pattern)
	}
	return pattern
}
