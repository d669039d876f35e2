package params

import "github.com/postern-dev/postern/providers/sdk"

// Kind is what an object is a version of.
type Kind string

// The kinds.
const (
	Secret    Kind = "secret"    // of Secret Manager
	Parameter Kind = "parameter" // of Parameter Manager
)

// Object is what a class asks for in one entry of its list.
type Object struct {
	// Index is its place in the class, for messages: secrets[2].
	Index int
	// Kind is Secret with Select.
	Kind Kind
	// Resource is the full name of the version, as written. "" with Select.
	Resource string
	// Project, Location, Name and Version are its parts; "" with Select. Location is
	// "" for what is global, also for parameters, whose names say so. Else it is a
	// DNS label, fit for the name of an endpoint's host.
	Project, Location, Name, Version string
	// File is the path of its file. With Rule.All it holds exactly one "*". "" with
	// Select.
	File string
	// Mode is zero for the request's default.
	Mode sdk.FileMode
	// Rule says what of the contents to write. Nil: all of them.
	Rule *Rule
	// Optional says that it is no error if the store does not have it.
	Optional bool
	// Select asks for many secrets instead of one version. Usually nil.
	Select *Select
}

// Title is what messages call the object.
func (o Object) Title() string {
	if o.Select != nil {
		return o.Select.String()
	}
	return o.Resource
}

// Format is the language of a document.
type Format string

// The formats, as messages call them.
const (
	JSON Format = "JSON"
	YAML Format = "YAML"
)

// Rule selects of a document what is to be written.
type Rule struct {
	Format Format
	// Key is one of the document's own, not of what is nested in it.
	Key string
	// All says that Key is "*": there is a file for each key of the document, for
	// which the "*" of the object's File stands.
	All bool
}

// Title is what messages call the key: cut if it is long, in one line.
func (r *Rule) Title() string { return shown(r.Key) }
