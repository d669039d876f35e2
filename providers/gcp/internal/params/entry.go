package params

import (
	"encoding/json"
	"io/fs"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
)

// entry is one object while it is decoded.
type entry struct {
	*sdk.Decoder
	*document

	paths *sdk.Paths
	field string
}

func (e *entry) violate(field, format string, args ...any) {
	e.Violate(e.field+"."+field, format, args...)
}

func (e *entry) object() Object {
	var o Object
	if e.Parent != "" || e.NamePrefix != "" || len(e.Labels) > 0 {
		o.Kind = Secret
		o.Select = e.selection()
		o.Rule = e.rule()
		if o.Rule != nil && o.Rule.All {
			e.violate(e.keyField(), `"*" cannot be used with many secrets: name a key, or each secret`)
		}
	} else {
		e.single(&o)
	}
	o.Mode = e.mode()
	o.Optional = e.optional()
	return o
}

// single decodes what is for one version alone.
func (e *entry) single(o *Object) {
	if e.Limit != nil {
		e.violate("limit", "is for labels and namePrefix alone")
	}
	e.resource(o)
	o.Rule = e.rule()
	o.File = e.file()
	switch {
	case o.File == "":
		e.violate("fileName", "is required: the path of the file, here or in path")
	case o.Rule != nil && o.Rule.All:
		e.checkPattern("each key of the document")
	case e.checkPath(o.File):
		e.taken(e.paths.Claim(o.File, e.owner()))
	}
}

func (e *entry) rule() *Rule {
	switch {
	case e.ExtractJSONKey != "" && e.ExtractYAMLKey != "":
		e.violate("extractYAMLKey", "both ExtractJSONKey and ExtractYAMLKey can't be simultaneously non empty strings: leave one out")
		return nil
	case e.ExtractJSONKey != "":
		return &Rule{Format: JSON, Key: e.ExtractJSONKey, All: e.ExtractJSONKey == "*"}
	case e.ExtractYAMLKey != "":
		return &Rule{Format: YAML, Key: e.ExtractYAMLKey, All: e.ExtractYAMLKey == "*"}
	default:
		return nil
	}
}

func (e *entry) keyField() string {
	if e.ExtractJSONKey != "" {
		return "extractJSONKey"
	}
	return "extractYAMLKey"
}

// file is the path, or the pattern of paths.
func (e *entry) file() string {
	if e.Path != "" {
		return e.Path
	}
	return e.FileName
}

// pathField is the field that counts as the path.
func (e *entry) pathField() string {
	if e.Path != "" {
		return "path"
	}
	return "fileName"
}

// owner is what messages about other objects call the field.
func (e *entry) owner() string { return e.field + "." + e.pathField() }

// checkPattern checks a path in which "*" stands for something.
func (e *entry) checkPattern(something string) {
	pattern := e.file()
	switch {
	case strings.Count(pattern, "*") != 1:
		e.violate(e.pathField(), `%s must have one "*", which stands for %s`, quoted(pattern), something)
	case e.checkPath(strings.Replace(pattern, "*", "x", 1)):
		e.taken(e.paths.ClaimPattern(pattern, e.owner()))
	}
}

// checkPath reports whether the path, or one of its pattern, can be a file's.
func (e *entry) checkPath(file string) bool {
	_, problem := sdk.CheckPaths([]string{file})
	if problem != "" {
		e.violate(e.pathField(), `%s cannot be a file: %s`, quoted(e.file()), problem)
	}
	return problem == ""
}

func (e *entry) taken(problem string) {
	if problem != "" {
		e.violate(e.pathField(), "%s: set another %s", problem, e.pathField())
	}
}

// mode decodes a file's mode: a whole number in any of YAML's spellings, or octal
// digits in quotes. Mode 0 is refused: zero stands for the default, which would let
// read whom the class does not.
func (e *entry) mode() sdk.FileMode {
	var mode sdk.FileMode
	var number int64
	var ok bool
	switch tag := e.Mode.ShortTag(); {
	case tag == "!!null" || tag == "!!str" && e.Mode.Value == "": // also that of no node
		return 0
	case tag == "!!int":
		ok = e.Mode.Decode(&number) == nil
	case tag == "!!str":
		text, err := json.Marshal(e.Mode.Value)
		ok = err == nil && mode.UnmarshalJSON(text) == nil
		number = int64(mode)
	}
	if !ok || number < 1 || number > int64(fs.ModePerm) {
		e.violate("mode", `%s is not the mode of a file: write an octal number from 0001 to 0777, such as 0400`, quoted(e.Mode.Value))
		return 0
	}
	return sdk.FileMode(number)
}

// optional takes true and false alone: yes is a text in YAML 1.2.
func (e *entry) optional() bool {
	var optional bool
	switch tag := e.Optional.ShortTag(); {
	case tag == "!!null": // also that of no node
	case tag != "!!bool" || e.Optional.Decode(&optional) != nil:
		e.violate("optional", "must be true or false")
	}
	return optional
}
