package params

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// TestDuplicates is ASCP's matrix for two objects of one name, alias and label each
// absent, the same or another. What ASCP takes and would write to one file is refused
// by another text, since one of the two would be lost.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	const (
		nothing   = "objects[1].objectName: found descriptor with duplicate object name s, no object alias, and no version label"
		label     = "objects[1].objectName: found descriptor with duplicate object name s, no object alias, and duplicate version label x"
		alias     = "objects[1].objectName: found descriptor with duplicate object name s, duplicate object alias a, and no version label"
		both      = "objects[1].objectName: found descriptor with duplicate object name s, duplicate object alias a, and duplicate version label x"
		aliasOnly = "objects[1].objectAlias: found duplicate object alias a"
		file      = `objects[1].objectName: "s" is already the file of objects[0].objectName: set another objectAlias`
		fine      = ""
	)
	for _, tt := range []struct {
		alias1, label1, alias2, label2 string
		want                           string
	}{
		{"", "", "", "", nothing},
		{"", "x", "", "x", label},
		{"", "x", "", "y", file},
		{"", "x", "", "", file},
		{"", "", "", "x", file},
		{"a", "", "a", "", alias},
		{"a", "x", "a", "x", both},
		{"a", "x", "a", "y", aliasOnly},
		{"a", "x", "a", "", aliasOnly},
		{"a", "", "a", "x", aliasOnly},
		{"a", "", "b", "", fine},
		{"a", "x", "b", "x", fine},
		{"a", "x", "b", "y", fine},
		{"a", "", "b", "y", fine},
		{"a", "", "", "", fine},
		{"", "", "b", "", fine},
		{"a", "x", "", "x", fine},
		{"", "x", "b", "y", fine},
	} {
		for _, objectType := range []string{"secretsmanager", "ssmparameter"} {
			object := "- {objectName: s, objectType: " + objectType + ", objectAlias: '%s', objectVersionLabel: '%s'}\n"
			_, err := parseObjects(fmt.Sprintf(object+object, tt.alias1, tt.label1, tt.alias2, tt.label2), nil)
			if tt.want != fine {
				oneViolation(t, err, tt.want)
			} else if err != nil {
				t.Errorf("%+v: %v", tt, err)
			}
		}
	}
}

func TestFilesAreUnique(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		objects, translation, text string
	}{
		"alias of two": {
			"[{objectName: a, objectAlias: f}, {objectName: b, objectAlias: f}]", "_",
			"objects[1].objectAlias: found duplicate object alias f",
		},
		"last of the name is another": {
			"[{objectName: s, objectAlias: a}, {objectName: s, objectAlias: b}, {objectName: s, objectAlias: a}]", "_",
			"objects[2].objectAlias: found duplicate object alias a",
		},
		"name between": {
			"[{objectName: s}, {objectName: s, objectAlias: b}, {objectName: s}]", "_",
			`objects[2].objectName: "s" is already the file of objects[0].objectName`,
		},
		"alias and entry": {
			"[{objectName: a, objectAlias: f}, {objectName: b, jmesPath: [{path: p, objectAlias: f}]}]", "_",
			"objects[1].jmesPath[0].objectAlias: Name already in use for objectAlias: found duplicate object alias f in JMES path entry p",
		},
		"own alias and entry": {
			"[{objectName: a, objectAlias: f, jmesPath: [{path: p, objectAlias: f}]}]", "_",
			"objects[0].jmesPath[0].objectAlias: Name already in use for objectAlias: found duplicate object alias f in JMES path entry p",
		},
		"two entries": {
			"[{objectName: a, jmesPath: [{path: p, objectAlias: f}, {path: q, objectAlias: f}]}]", "_",
			"objects[0].jmesPath[1].objectAlias: Name already in use for objectAlias: found duplicate object alias f in JMES path entry q",
		},
		"entry, then alias": {
			"[{objectName: a, jmesPath: [{path: p, objectAlias: f}]}, {objectName: b, objectAlias: f}]", "_",
			"objects[1].objectAlias: found duplicate object alias f",
		},
		"name and alias": {
			"[{objectName: a}, {objectName: b, objectAlias: a}]", "_",
			`objects[1].objectAlias: "a" is already the file of objects[0].objectName: set another objectAlias`,
		},
		"name and own entry": {
			"[{objectName: a, jmesPath: [{path: p, objectAlias: a}]}]", "_",
			`objects[0].jmesPath[0].objectAlias: "a" is already the file of objects[0].objectName`,
		},
		"names alike when translated": {
			"[{objectName: a/b}, {objectName: a_b}]", "_",
			`objects[1].objectName: "a_b" is already the file of objects[0].objectName`,
		},
		"file, then below it": {
			"[{objectName: a}, {objectName: a/b/c}]", "False",
			`objects[1].objectName: "a" is already the file of objects[0].objectName, and cannot be a directory too`,
		},
		"directory, then file": {
			"[{objectName: a/b/c}, {objectName: o, jmesPath: [{path: p, objectAlias: a/b}]}]", "False",
			`objects[1].jmesPath[0].objectAlias: "a/b" is already a directory of objects[0].objectName`,
		},
		"file, then pattern below it": {
			"[{objectName: a}, {objectName: b, jmesPath: [{path: p, objectAlias: a/*}]}]", "False",
			`objects[1].jmesPath[0].objectAlias: "a" is already the file of objects[0].objectName, and cannot be a directory too`,
		},
		"pattern, then its directory": {
			"[{namePrefix: x, objectAlias: a/b-*}, {objectName: a}]", "False",
			`objects[1].objectName: "a" is already a directory of objects[0].objectAlias`,
		},
		"absolute pattern": {
			"[{objectName: b, jmesPath: [{path: p, objectAlias: a//*}]}]", "False",
			`objects[0].jmesPath[0].objectAlias: "a//*" cannot be a file: the path is not in clean form`,
		},
		"no file": {
			"[{objectName: /}]", "False",
			`objects[0].objectName: "/" gives no file name`,
		},
		"no clean path": {"[{objectName: a//b}]", "False", `objects[0].objectName: "a//b" cannot be a file: the path is not in clean form`},
		"no entry's file": {
			"[{objectName: a, jmesPath: [{path: p, objectAlias: //}]}]", "False",
			`objects[0].jmesPath[0].objectAlias: "//" gives no file name`,
		},
		"absolute path": {"[{objectName: /a}]", "/", `objects[0].objectName: "/a" cannot be a file: the path is absolute`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := strings.NewReplacer("{objectName", "{objectType: secretsmanager, objectName", "{namePrefix", "{objectType: secretsmanager, namePrefix").
				Replace(tt.objects)
			_, err := parseObjects(objects, sdk.Parameters{PathTranslation: tt.translation})
			oneViolation(t, err, tt.text)
		})
	}
}

// TestFilesSideBySide has paths that look alike and can all be mounted.
func TestFilesSideBySide(t *testing.T) {
	t.Parallel()
	for _, objects := range []string{
		"[{objectName: a/b}, {objectName: a/c}, {objectName: ab}]",
		"[{objectName: a, objectAlias: b}, {objectName: b, objectAlias: a}]",
		// A pattern is a file only when its keys are known.
		"[{objectName: a, jmesPath: [{path: '*', objectAlias: '*'}]}, {objectName: b, jmesPath: [{path: '*', objectAlias: '*'}]}, {objectName: x}]",
		"[{objectName: a, jmesPath: [{path: '*', objectAlias: 'd/*'}]}, {objectName: b, objectAlias: d/x}, {objectName: x/y}]",
		"[{objectName: a, jmesPath: [{path: '*', objectAlias: 'd*/f'}]}, {objectName: b, objectAlias: dx}]",
		// Of a plain object, "*" is a name.
		"[{objectName: a, objectAlias: '*'}, {objectName: b, objectAlias: '**'}]",
	} {
		objects := strings.ReplaceAll(objects, "{objectName", "{objectType: ssmparameter, objectName")
		if _, err := parseObjects(objects, sdk.Parameters{PathTranslation: "False"}); err != nil {
			t.Errorf("%s: %v", objects, err)
		}
	}
}
