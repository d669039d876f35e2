package params

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/postern-dev/postern/providers/aws/internal/query"
	"github.com/postern-dev/postern/providers/sdk"
)

// document is an object as users write it.
type document struct {
	ObjectName         string            `json:"objectName"`
	ObjectType         string            `json:"objectType"`
	ObjectAlias        string            `json:"objectAlias"`
	ObjectVersion      string            `json:"objectVersion"`
	ObjectVersionLabel string            `json:"objectVersionLabel"`
	FilePermission     string            `json:"filePermission"`
	JMESPath           []jmesPath        `json:"jmesPath"`
	FailoverObject     failoverObject    `json:"failoverObject"`
	Optional           bool              `json:"optional"`
	NamePrefix         string            `json:"namePrefix"`
	Tags               map[string]string `json:"tags"`
	Limit              *int              `json:"limit"`
}

type jmesPath struct {
	Path           string `json:"path"`
	ObjectAlias    string `json:"objectAlias"`
	FilePermission string `json:"filePermission"`
}

type failoverObject struct {
	ObjectName         string `json:"objectName"`
	ObjectVersion      string `json:"objectVersion"`
	ObjectVersionLabel string `json:"objectVersionLabel"`
}

// decodeObjects decodes the parameter "objects", a YAML list.
func decodeObjects(d *sdk.Decoder, spec *Spec) []Object {
	var documents []*document
	if !d.YAML(Objects, &documents) && strings.TrimSpace(d.String(Objects, "")) != "" {
		return nil
	}
	if len(documents) == 0 {
		d.Violate(Objects, "is required: a YAML list of what to read, such as - {objectName: app/db, objectType: secretsmanager}")
		return nil
	}
	objects := make([]Object, len(documents))
	seen := newSeen()
	for i, doc := range documents {
		e := &entry{Decoder: d, spec: spec, seen: seen, document: doc, field: fmt.Sprintf("%s[%d]", Objects, i)}
		if doc == nil {
			d.Violate(e.field, "Empty descriptor entry: take the item out, or say what to read")
			continue
		}
		objects[i] = e.object()
		objects[i].Index = i
	}
	return objects
}

// entry is one object while it is decoded.
type entry struct {
	*sdk.Decoder
	*document

	spec  *Spec
	seen  *seen
	field string
}

func (e *entry) violate(field, format string, args ...any) {
	e.Violate(e.field+"."+field, format, args...)
}

func (e *entry) object() Object {
	if e.NamePrefix != "" || len(e.Tags) > 0 {
		return e.selection()
	}
	if e.Limit != nil {
		e.violate("limit", "is for namePrefix and tags alone")
	}
	o := Object{Optional: e.Optional, Service: e.service()}
	primary := e.source("objectVersionLabel", o.Service, Source{ID: e.ObjectName, Version: e.ObjectVersion, Label: e.ObjectVersionLabel})
	o.Mode = e.mode("filePermission", e.FilePermission)
	o.File = e.file()
	o.Rules = e.rules(o.Mode)
	o.Sources = append([]Source{primary}, e.failover(o.Service)...)
	e.claim(o)
	return o
}

// permission is a file mode in octal, with its leading zero.
var permission = regexp.MustCompile(`^[0-7]{4}$`)

// mode decodes a file mode, "" for none. Mode 0000 is refused: zero stands for the
// default, which would let read whom the class does not.
func (e *entry) mode(field, text string) sdk.FileMode {
	if text == "" {
		return 0
	}
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || !permission.MatchString(text) || mode == 0 || mode > 0o777 {
		e.violate(field, `Invalid File Permission: %s: write four octal digits as a string, from "0001" to "0777"`, text)
		return 0
	}
	return sdk.FileMode(mode)
}

// traversal is a ".." that is a part of a path, also behind an ARN's colon.
var traversal = regexp.MustCompile(`(^|[/:])\.\.(/|$)`)

// file is the path of the object's own file.
func (e *entry) file() string {
	name, from := e.ObjectAlias, "objectAlias"
	if name == "" {
		name, from = e.ObjectName, "objectName"
	}
	path := Translate(name, e.spec.Translation)
	if !e.checkPath(from, name, path) {
		return ""
	}
	return path
}

// checkPath checks the path that a name or alias becomes.
func (e *entry) checkPath(field, name, path string) bool {
	switch {
	case traversal.MatchString(path):
		e.violate(field, "path can not contain ../: %s", name)
		return false
	case path == "" && name != "":
		e.violate(field, "%q gives no file name: set another objectAlias", name)
		return false
	}
	return true
}

// rules are the jmesPath entries, with the mode of their object unless they have
// their own.
func (e *entry) rules(parent sdk.FileMode) []Rule {
	var rules []Rule
	for i, doc := range e.JMESPath {
		e.checkExpression(rule(i, "path"), doc.Path)
		mode := e.mode(rule(i, "filePermission"), doc.FilePermission)
		if mode == 0 {
			mode = parent
		}
		rules = append(rules, Rule{
			Expression: doc.Path, Mode: mode,
			File: e.ruleFile(rule(i, "objectAlias"), doc.ObjectAlias), All: strings.Contains(doc.ObjectAlias, "*"),
		})
	}
	return rules
}

// rule names a field of a jmesPath entry.
func rule(i int, field string) string { return fmt.Sprintf("jmesPath[%d].%s", i, field) }

func (e *entry) checkExpression(field, text string) {
	if text == "" {
		e.violate(field, "Path must be specified for JMES object")
		return
	}
	if _, err := query.Compile(text); err != nil {
		e.violate(field, "%v", err)
	}
}

func (e *entry) ruleFile(field, alias string) string {
	path := Translate(alias, e.spec.Translation)
	switch {
	case alias == "":
		e.violate(field, "Object alias must be specified for JMES object")
	case !e.checkPath(field, alias, path):
		return ""
	case strings.Contains(alias, "*") && strings.Count(path, "*") > 1:
		e.violate(field, `%q has more than one "*", which stands for each key`, alias)
		return ""
	}
	return path
}
