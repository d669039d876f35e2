package rules_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// pathsOf returns all paths that a provider could find in a list of objects,
// whether it minds the case of names or not, and whatever document it takes.
func pathsOf(t *testing.T, source string) []string {
	t.Helper()
	var paths []string
	decoder := yaml.NewDecoder(strings.NewReader(source))
	for {
		var document any
		if err := decoder.Decode(&document); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Logf("%q: %v", source, err)
			}
			return paths
		}
		if mapping, ok := document.(map[string]any); ok {
			document = mapping["array"]
		}
		items, _ := document.([]any)
		for _, item := range items {
			if text, ok := item.(string); ok {
				item = nil
				if err := yaml.Unmarshal([]byte(text), &item); err != nil {
					t.Logf("%q: %v", text, err)
				}
			}
			fields, _ := item.(map[string]any)
			for name, value := range fields {
				if path, ok := value.(string); ok && strings.EqualFold(name, "secretPath") {
					paths = append(paths, path)
				}
			}
		}
	}
}

// TestObjects_Forms: what each provider's list looks like.
func TestObjects_Forms(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ parameter, value, expression string }{
		"vault": {
			"objects", "- objectName: user\n  secretPath: secret/data/db\n  filePermission: 0640\n  secretArgs: {ttl: 1h}\n",
			`objects[0].secretPath == 'secret/data/db' && objects[0].filePermission == 416 && objects[0].secretArgs.ttl == '1h' && size(objects) == 1`,
		},
		"aws": {
			"objects", "- objectName: shop/db\n  objectType: secretsmanager\n  jmesPath: [{path: user, objectAlias: u}]\n  failoverObject: {objectName: shop/db2}\n",
			`objects.all(o, o.objectName.startsWith('shop/') && o.failoverObject.objectName == 'shop/db2' && o.jmesPath.all(j, j.path == 'user'))`,
		},
		"azure": {
			"objects", "array:\n  - |\n    objectName: db\n    objectType: secret\n    objectVersion: \"\"\n  - |\n    objectName: tls\n    objectType: cert\n",
			`objects.map(o, o.objectType) == ['secret', 'cert'] && objects[0].objectVersion == ''`,
		},
		"gcp": {
			"secrets", "- resourceName: projects/p/secrets/db/versions/3\n  path: db\n  mode: 288\n",
			`objects[0].resourceName.matches('^projects/p/secrets/[a-z]+/versions/[0-9]+$') && objects[0].mode == 288`,
		},
		"akeyless": {"objects", "- secretPath: /shop/db\n  fileName: db\n", `objects[0].secretPath.startsWith('/shop/')`},
		"JSON":     {"objects", `[{"objectName": "db", "objectVersion": 3}]`, `objects[0].objectVersion == 3`},
		"scalars": {
			"objects", "- {a: true, b: 1.5, c: null, d: 2001-01-01, e: ~, f: 'true', g: 1_000, h: -1}\n",
			`objects[0].a && objects[0].b == 1.5 && objects[0].c == null && objects[0].d == '2001-01-01' && objects[0].e == null && objects[0].f == 'true' && objects[0].g == 1000 && objects[0].h == -1`,
		},
		"none": {"objects", "[]", `objects.size() == 0`},
	} {
		req := request(without("objects"), parameter(test.parameter, test.value))
		if got := explanation(t, compile(t, requiring(test.expression)), req); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestObjects_Spelling: aws reads SecretPath as secretPath, others do not. A
// rule that asks for a field is right in both worlds, or refuses.
func TestObjects_Spelling(t *testing.T) {
	t.Parallel()
	req := request(parameter("objects", "- {objectName: x, FailoverObject: {objectName: bank}, nested: {ObjectName: y}}"))
	const why = "its expression require cannot be evaluated: an object has the field "
	for expression, want := range map[string]string{
		`!has(objects[0].failoverObject)`:                        why + "failoverObject in another spelling",
		`!('failoverobject' in objects[0])`:                      why + "failoverobject in another spelling",
		`!objects[0].?failoverObject.hasValue()`:                 why + "failoverObject in another spelling",
		`objects[0][?'failoverObject'].orValue('') == ''`:        why + "failoverObject in another spelling",
		`objects[0]['FAILOVEROBJECT'] == ''`:                     why + "FAILOVEROBJECT in another spelling",
		`objects[0].nested.objectName == 'y'`:                    why + "objectName in another spelling",
		`has(objects[0].FailoverObject)`:                         "",
		`!has(objects[0].other) && objects[0].objectName == 'x'`: "",
		`objects[0].all(field, field != 'failoverObject')`:       "", // it asks for names as they are written
		`objects[0] == objects[0] && objects[0] in objects`:      "",
	} {
		if got := explanation(t, compile(t, requiring(expression)), req); got != want {
			t.Errorf("%s: got %q, want %q", expression, got, want)
		}
	}
}
