package params

import "github.com/postern-dev/postern/providers/sdk"

// ObjectType says what an object is.
type ObjectType string

// The types, as classes name them.
const (
	Secret      ObjectType = "secret"
	Key         ObjectType = "key"
	Certificate ObjectType = "cert"
)

// Format is the form of a certificate's secret in its file.
type Format string

// The formats.
const (
	PEM Format = "pem" // the default
	PFX Format = "pfx"
)

// Encoding is what a secret's text is decoded from.
type Encoding string

// The encodings.
const (
	UTF8   Encoding = "utf-8" // the default: the text is the content
	Hex    Encoding = "hex"
	Base64 Encoding = "base64"
)

// Object is what a class asks for in one entry of its list.
type Object struct {
	// Index is its place in the class, for messages: objects[2].
	Index int
	Type  ObjectType
	// Name is as written: the vault does not tell cases apart. "" with Select.
	Name string
	// Version is "" for the newest.
	Version string
	// History is how many versions to read, from Version back. 0 and 1 are the same:
	// one version, and one file.
	History int
	// Alias is the path of the file, if that is not the name. "" with Select.
	Alias    string
	Format   Format
	Encoding Encoding
	// Mode is zero for the request's default.
	Mode sdk.FileMode
	// Optional says that it is no error if the vault does not have it.
	Optional bool
	// Select asks for many objects instead of one. Usually nil.
	Select *Select
}

// Title is what messages call the object.
func (o Object) Title() string {
	if o.Select != nil {
		return o.Select.String()
	}
	return o.Name
}

// File is the path of its file, or with a History of more than one, of the directory
// of its files. "" with Select.
func (o Object) File() string {
	if o.Alias != "" {
		return o.Alias
	}
	return o.Name
}
