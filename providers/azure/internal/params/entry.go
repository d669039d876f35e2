package params

import (
	"cmp"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
)

// maxHistory is how many versions of an object may be asked for.
const maxHistory = 100

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

// object decodes what is asked for, in the order in which problems are looked for.
func (e *entry) object() Object {
	o := Object{Type: ObjectType(e.ObjectType)}
	o.Format = e.format()
	o.Encoding = e.encoding()
	if e.NamePattern != "" || len(e.Tags) > 0 {
		o.Select = e.selection()
	} else {
		e.single(&o)
	}
	e.checkType()
	o.Mode = e.permission()
	o.Optional = e.optional()
	return o
}

// single decodes what is for one object alone.
func (e *entry) single(o *Object) {
	if e.Limit != nil {
		e.violate("limit", "is for namePattern and tags alone")
	}
	o.Name, o.Alias = e.name(), e.ObjectAlias
	o.Version = e.version()
	o.History = e.history()
	if e.checkPath(o.File()) {
		e.claim(o)
	}
}

// format is compared in any case, also where the type is not secret.
func (e *entry) format() Format {
	format := Format(strings.ToLower(cmp.Or(e.ObjectFormat, string(PEM))))
	switch {
	case format != PEM && format != PFX:
		e.violate("objectFormat", "invalid objectFormat: %v, should be PEM or PFX", e.ObjectFormat)
	case format == PFX && ObjectType(e.ObjectType) != Secret:
		e.violate("objectFormat", "PFX format only supported for objectType: secret")
	}
	return format
}

func (e *entry) encoding() Encoding {
	encoding := Encoding(strings.ToLower(cmp.Or(e.ObjectEncoding, string(UTF8))))
	switch {
	case e.ObjectEncoding == "":
	case ObjectType(e.ObjectType) != Secret:
		e.violate("objectEncoding", "objectEncoding only supported for objectType: secret")
	case encoding != UTF8 && encoding != Hex && encoding != Base64:
		e.violate("objectEncoding", "invalid objectEncoding: %v, should be hex, base64 or utf-8", e.ObjectEncoding)
	}
	return encoding
}

func (e *entry) checkType() {
	switch ObjectType(e.ObjectType) {
	case Secret, Key, Certificate:
	default:
		e.violate("objectType", "Invalid vaultObjectTypes. Should be secret, key, or cert, not %q", e.ObjectType)
	}
}

// Names and versions become parts of an URL's path, and must not leave it.
var (
	nameSyntax    = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)
	versionSyntax = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)
)

func (e *entry) name() string {
	switch {
	case e.ObjectName == "" && e.ObjectAlias == "":
		e.violate("objectName", "file name must not be empty: set objectName")
	case e.ObjectName == "":
		e.violate("objectName", "is required: the object's name in the vault")
	case !nameSyntax.MatchString(e.ObjectName):
		e.violate("objectName", "%q is not the name of an object: it has up to 127 letters, digits and -", e.ObjectName)
	}
	return e.ObjectName
}

func (e *entry) version() string {
	switch {
	case e.ObjectVersion == "latest":
		return ""
	case e.ObjectVersion != "" && !versionSyntax.MatchString(e.ObjectVersion):
		e.violate("objectVersion", "%q is not a version: write its 32 hexadecimal digits, or latest", e.ObjectVersion)
	}
	return e.ObjectVersion
}

func (e *entry) history() int {
	if e.ObjectVersionHistory < 0 || e.ObjectVersionHistory > maxHistory {
		e.violate("objectVersionHistory", "must be from 0 to %d, not %d", maxHistory, e.ObjectVersionHistory)
		return 0
	}
	return int(e.ObjectVersionHistory)
}

// permission decodes a file's mode, "" for none. Mode 0 is refused: zero stands for
// the default, which would let read whom the class does not.
func (e *entry) permission() sdk.FileMode {
	if e.FilePermission == "" {
		return 0
	}
	mode, err := strconv.ParseInt(e.FilePermission, 8, 32)
	if err != nil || mode < 1 || mode > 0o777 {
		e.violate("filePermission", `file permission must be a valid octal number, from "0001" to "0777", not %q`, e.FilePermission)
		return 0
	}
	return sdk.FileMode(mode)
}

func (e *entry) optional() bool {
	switch optional := e.Optional.(type) {
	case nil:
		return false
	case bool:
		return optional
	default:
		e.violate("optional", "must be true or false")
		return false
	}
}

// pathField is the field that a file's path is of.
func (e *entry) pathField() string {
	if e.ObjectAlias != "" {
		return "objectAlias"
	}
	return "objectName"
}

// checkPath reports whether a path can be a file's.
func (e *entry) checkPath(file string) bool {
	if file == "" {
		return false // what is wrong has been said
	}
	switch _, problem := sdk.CheckPaths([]string{file}); {
	case path.IsAbs(file):
		e.violate(e.pathField(), "file name must be a relative path: %s", file)
	case strings.Contains(file, ".."):
		e.violate(e.pathField(), "file name must not contain '..': %s", file)
	case problem != "":
		e.violate(e.pathField(), "%q cannot be a file: %s", file, problem)
	default:
		return true
	}
	return false
}
