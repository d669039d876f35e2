package params

import (
	"maps"
	"slices"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
)

// Service is where an object is.
type Service string

// The services, as ARNs name them.
const (
	SecretsManager Service = "secretsmanager"
	ParameterStore Service = "ssm"
)

// Object is what a class asks for in one entry of its list.
type Object struct {
	// Index is its place in the class, for messages: objects[2].
	Index   int
	Service Service
	// Sources are one for each region. None with Select.
	Sources []Source
	// File is the path of its file. "" with Select.
	File string
	// Mode is zero for the request's default.
	Mode  sdk.FileMode
	Rules []Rule
	// Optional says that it is no error if the store does not have it.
	Optional bool
	// Select asks for many objects instead of one. Usually nil.
	Select *Select
}

// Name is what messages call the object.
func (o Object) Name() string {
	switch {
	case o.Select != nil:
		return o.Select.String()
	case len(o.Sources) > 0:
		return o.Sources[0].ID
	default:
		return o.File
	}
}

// Source is where an object is in one region.
type Source struct {
	// ID is a name, path or full ARN, as AWS wants it.
	ID string
	// Version is a secret's version id or a parameter's version number.
	Version string
	// Label is a secret's stage or a parameter's label.
	Label string
}

// Rule is one jmesPath entry: a file with what an expression selects of an object's
// JSON document.
type Rule struct {
	Expression string
	File       string
	// Mode is the object's if the rule has none of its own.
	Mode sdk.FileMode
	// All says that File holds a "*", for which each key of the JSON object that
	// Expression selects is put: one file for each. The expression "*" is then the
	// whole document.
	All bool
}

// Select asks for all objects with a prefix and tags.
type Select struct {
	NamePrefix string
	Tags       map[string]string
	// Limit is how many there may be.
	Limit int
	// FilePattern holds one "*", which stands for the rest of the name after the
	// prefix. "" is the whole name.
	FilePattern string
}

// String is what messages call the selection.
func (s *Select) String() string {
	var parts []string
	if s.NamePrefix != "" {
		parts = append(parts, "namePrefix "+s.NamePrefix)
	}
	if len(s.Tags) > 0 {
		var tags []string
		for _, key := range slices.Sorted(maps.Keys(s.Tags)) {
			tags = append(tags, key+"="+s.Tags[key])
		}
		parts = append(parts, "tags "+strings.Join(tags, ","))
	}
	return strings.Join(parts, " ")
}

// File is the path of the file of one of the selected objects.
func (s *Select) File(name, translation string) string {
	if s.FilePattern == "" {
		return Translate(name, translation)
	}
	return strings.Replace(s.FilePattern, "*", Translate(strings.TrimPrefix(name, s.NamePrefix), translation), 1)
}

// Translate is pathTranslation applied to a name. Where "/" is kept, leading ones
// are not: a path is relative.
func Translate(name, translation string) string {
	if translation == "" {
		return strings.TrimLeft(name, "/")
	}
	return strings.ReplaceAll(name, "/", translation)
}
