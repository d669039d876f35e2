// Package extract makes the files of an object's contents.
package extract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/aws/internal/query"
	"github.com/postern-dev/postern/providers/sdk"
)

// File is a file to be.
type File struct {
	Path string
	// Mode is zero for the request's default.
	Mode sdk.FileMode
	// Contents of an object's own file are the object's, not a copy.
	Contents sdk.Secret
}

// Error says why contents do not give a file. It holds nothing of the contents, not
// even a key: Message is made of what the class says.
type Error struct {
	// Object is what messages call the object.
	Object string
	// Rule is the expression of the rule concerned, "" for the object's own file.
	Rule    string
	Message string
	// NothingThere says that the document has nothing where the rule points: all
	// else is wrong with the class, or not what the class says.
	NothingThere bool
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Files makes the files of an object's contents: the contents themselves in o.File,
// then those of its rules, in order. The error is an [*Error].
//
// A string that a rule selects is written as it is, a number as it stands in the
// document, anything else as compact JSON with sorted keys.
func Files(o params.Object, translation string, contents []byte) ([]File, error) {
	if _, problem := sdk.CheckPaths([]string{o.File}); problem != "" { // of a selection, only now
		return nil, (&extractor{object: o}).failed("", "%q cannot be a file: %s", o.File, problem)
	}
	e := &extractor{object: o, translation: translation, contents: contents}
	e.add(params.Rule{Mode: o.Mode}, o.File, contents)
	for _, rule := range o.Rules {
		if err := e.apply(rule); err != nil {
			return nil, err
		}
	}
	if err := e.checkKeys(); err != nil {
		return nil, err
	}
	return e.files, nil
}

type extractor struct {
	object      params.Object
	translation string
	contents    []byte
	files       []File
	// rules say by which of them each of the files is; none is the object's own.
	rules []params.Rule
}

func (e *extractor) add(rule params.Rule, path string, contents []byte) {
	e.files = append(e.files, File{Path: path, Mode: rule.Mode, Contents: sdk.NewSecret(contents)})
	e.rules = append(e.rules, rule)
}

// checkKeys checks that keys have given files of their own. The class is known to
// name each file once.
func (e *extractor) checkKeys() error {
	paths := make([]string, len(e.files))
	for i, f := range e.files {
		paths[i] = f.Path
	}
	i, problem := sdk.CheckPaths(paths) // its text may hold a key
	switch rule := e.rules[i]; {
	case problem == "":
		return nil
	case rule.All:
		return e.failed(rule.Expression, "%s selects a key whose file is there already, or is below another: set another objectAlias", about(rule))
	default:
		return e.failed(rule.Expression, `%q is there already, or is below another file, made of a key for which a "*" stands: set another objectAlias`,
			paths[i])
	}
}

func (e *extractor) failed(rule, format string, args ...any) *Error {
	return &Error{Object: e.object.Name(), Rule: rule, Message: fmt.Sprintf(format, args...)}
}

// apply adds a rule's files.
func (e *extractor) apply(rule params.Rule) error {
	value, err := e.search(rule)
	if err != nil {
		return err
	}
	if value == nil {
		nothing := e.failed(rule.Expression, "%s does not point to a valid object. The document has nothing there, or null", about(rule))
		nothing.NothingThere = true
		return nothing
	}
	if rule.All {
		return e.applyAll(rule, value)
	}
	return e.addValue(rule, rule.File, value)
}

// applyAll adds a file for each key of an object.
func (e *extractor) applyAll(rule params.Rule, value any) error {
	object, ok := value.(map[string]any)
	if !ok {
		return e.failed(rule.Expression, `%s does not point to a JSON object, for whose keys the "*" stands`, about(rule))
	}
	keys := slices.Sorted(maps.Keys(object))
	for i, key := range keys {
		if object[key] == nil {
			continue
		}
		path := strings.Replace(rule.File, "*", params.Translate(key, e.translation), 1)
		if _, problem := sdk.CheckPaths([]string{path}); problem != "" {
			return e.failed(rule.Expression, "%s selects a key that cannot be a file, number %d of %d in alphabetical order: %s",
				about(rule), i+1, len(keys), problem)
		}
		if err := e.addValue(rule, path, object[key]); err != nil {
			return err
		}
	}
	return nil
}

// search evaluates a rule's expression.
func (e *extractor) search(rule params.Rule) (any, error) {
	text := rule.Expression
	if rule.All && text == "*" {
		text = "@"
	}
	expression, err := query.Compile(text)
	if err != nil {
		return nil, e.failed(rule.Expression, "%v", err)
	}
	value, err := expression.Search(e.contents)
	if err != nil {
		return nil, e.searchFailed(rule, err)
	}
	return value, nil
}

// searchFailed keeps to the texts that users of AWS' own provider know.
func (e *extractor) searchFailed(rule params.Rule, err error) *Error {
	switch evaluation, ok := errors.AsType[*query.EvaluationError](err); {
	case ok:
		return e.failed(rule.Expression, "Invalid JMES Path: %s. It cannot be evaluated: %s", rule.Expression, evaluation.Reason)
	case errors.Is(err, query.ErrNotJSON):
		return e.failed(rule.Expression, "Invalid JSON used with jmesPath in secret: %s. Store a JSON document, or take jmesPath out of the class",
			e.object.Name())
	case errors.Is(err, query.ErrNoValue):
		return e.failed(rule.Expression, "Invalid JMES search result type for path:%s. Select what JSON has: a string, number, boolean, list or object",
			rule.Expression)
	default: // sentinels of the package, which hold nothing of the document
		return e.failed(rule.Expression, "%s: %v", about(rule), err)
	}
}

func about(rule params.Rule) string {
	return fmt.Sprintf("JMES Path - %s for object alias - %s", rule.Expression, rule.File)
}

func (e *extractor) addValue(rule params.Rule, path string, value any) error {
	contents, err := encode(value)
	if err != nil {
		return e.failed(rule.Expression, "%s cannot be written as JSON", about(rule))
	}
	e.add(rule, path, contents)
	return nil
}

func encode(value any) ([]byte, error) {
	switch v := value.(type) {
	case string:
		return []byte(v), nil
	case json.Number:
		return []byte(v), nil
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
