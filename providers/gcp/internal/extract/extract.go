// Package extract makes the files of an object's contents.
package extract

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// File is a file to be.
type File struct {
	Path string
	// Mode is zero for the request's default.
	Mode sdk.FileMode
	// Contents of an object without a rule are the object's, not a copy.
	Contents sdk.Secret
}

// Error says why contents do not give a file. It holds nothing of the contents, not
// even a key: Message is made of what the class says.
type Error struct {
	// Object is what messages call the object.
	Object  string
	Message string
	// NothingThere says that the document has not got what the rule asks for, or has
	// null: all else is wrong with the class, or not what the class says.
	NothingThere bool
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// maxKeys is how many files a document may become.
const maxKeys = 1000

// Files makes the files of an object's contents: one at path, which of an object
// with Rule.All holds a "*" and becomes one for each key of the document, in
// alphabetical order. The error is an [*Error].
//
// A string of the document is written as it is, a number as it stands there, a
// boolean as true or false, anything else as JSON without spaces.
func Files(o params.Object, path string, contents []byte) ([]File, error) {
	e := &extractor{object: o, path: path, contents: contents}
	switch {
	case o.Rule == nil:
		return e.whole()
	case o.Rule.All:
		return e.all()
	default:
		return e.one()
	}
}

type extractor struct {
	object   params.Object
	path     string
	contents []byte
}

func (e *extractor) failed(format string, args ...any) *Error {
	return &Error{Object: e.object.Title(), Message: fmt.Sprintf(format, args...)}
}

func (e *extractor) file(path string, contents []byte) File {
	return File{Path: path, Mode: e.object.Mode, Contents: sdk.NewSecret(contents)}
}

// checkPath checks a path made of the name of a secret that the class does not name.
// Any other has been checked.
func (e *extractor) checkPath() error {
	if _, problem := sdk.CheckPaths([]string{e.path}); problem != "" {
		return e.failed("%q cannot be a file: %s", e.path, problem)
	}
	return nil
}

func (e *extractor) whole() ([]File, error) {
	if err := e.checkPath(); err != nil {
		return nil, err
	}
	return []File{e.file(e.path, e.contents)}, nil
}

// one makes the file of a key.
func (e *extractor) one() ([]File, error) {
	if err := e.checkPath(); err != nil {
		return nil, err
	}
	doc, err := e.document()
	if err != nil {
		return nil, err
	}
	contents, err := doc.value(e.object.Rule.Key)
	if err != nil {
		return nil, e.valueFailed("'"+e.object.Rule.Title()+"'", err)
	}
	return []File{e.file(e.path, contents)}, nil
}

// all makes a file of each key.
func (e *extractor) all() ([]File, error) {
	doc, err := e.document()
	if err != nil {
		return nil, err
	}
	keys := doc.keys()
	if len(keys) > maxKeys {
		return nil, e.failed("the %s has %d keys, and %d at most can be files: name those that are wanted", e.object.Rule.Format, len(keys), maxKeys)
	}
	slices.Sort(keys)
	var files []File
	var paths []string
	for i, key := range keys {
		path := strings.Replace(e.path, "*", key, 1)
		if _, problem := sdk.CheckPaths([]string{path}); problem != "" {
			return nil, e.failed("key %s cannot be a file: %s", number(i, keys), problem)
		}
		contents, err := doc.value(key)
		switch {
		case errors.Is(err, errNothing):
			continue
		case err != nil:
			return nil, e.valueFailed(number(i, keys), err)
		}
		files, paths = append(files, e.file(path, contents)), append(paths, path)
	}
	if _, problem := sdk.CheckPaths(paths); problem != "" { // its text may hold a key
		return nil, e.failed("the %s has a key that would be a file, and a directory for another key's", e.object.Rule.Format)
	}
	return files, nil
}

// number is what messages call a key that is the contents' own.
func number(i int, keys []string) string {
	return fmt.Sprintf("number %d of %d in alphabetical order", i+1, len(keys))
}

// document is contents that have been parsed. Errors hold nothing of them.
type document interface {
	// keys are in no order.
	keys() []string
	// value returns what is to be written of a key's value. The error is errNothing,
	// errUnsupported, or says what is wrong with the document.
	value(key string) ([]byte, error)
}

var (
	errNothing     = errors.New("it is not there, or null")
	errUnsupported = errors.New("it has no form in JSON")
)

// How large contents may be of which a part is wanted. Secret Manager keeps 64 KiB and
// Parameter Manager 1 MiB, which the secrets in it may add to. A parsed YAML document
// takes some hundred times its size.
const (
	maxJSON = 4 << 20
	maxYAML = 1 << 20
)

func (e *extractor) document() (document, error) {
	format, limit, parse := params.JSON, maxJSON, parseJSON
	if e.object.Rule.Format == params.YAML {
		format, limit, parse = params.YAML, maxYAML, parseYAML
	}
	if len(e.contents) > limit {
		return nil, e.failed("failed to unmarshal %s: it takes %d bytes, and may take %d", format, len(e.contents), limit)
	}
	doc, err := parse(e.contents)
	if err != nil {
		return nil, e.failed("failed to unmarshal %s: %v. Invalid %s format for key extraction: store another version, or take extract%sKey out",
			format, err, format, format)
	}
	return doc, nil
}

// valueFailed keeps to the texts that users of Google's own provider know.
func (e *extractor) valueFailed(key string, err error) *Error {
	format := e.object.Rule.Format
	switch {
	case errors.Is(err, errNothing):
		nothing := e.failed("key %s not found in %s: %v", key, format, err)
		nothing.NothingThere = true
		return nothing
	case errors.Is(err, errUnsupported):
		return e.failed("unsupported value type for key %s: %v", key, err)
	default:
		return e.failed("failed to unmarshal %s: key %s: %v", format, key, err)
	}
}
