package objects_test

import (
	"errors"
	"strings"
	"testing"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/postern-dev/postern/gateway/internal/policy/objects"
)

func only(list string) map[string]string {
	return map[string]string{"objects": list, "roleName": "app"}
}

// failure is the text of an error value.
func failure(t *testing.T, value ref.Val) string {
	t.Helper()
	err, ok := value.(*types.Err)
	if !ok {
		t.Fatalf("got %v, want an error", value)
	}
	var why *objects.Error
	if !errors.As(err, &why) {
		t.Fatalf("got %v, want an objects.Error", err)
	}
	return why.Error()
}

// TestParse_Ambiguous: what one could read in two ways is not read at all, and
// no error quotes it.
func TestParse_Ambiguous(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		parameters map[string]string
		want       string
	}{
		"no list":            {nil, "there is no parameter objects or secrets"},
		"two lists":          {map[string]string{"objects": "[]", "secrets": "[]"}, "there are the parameters objects and secrets, of which only one can be checked"},
		"empty":              {only(" \n"), "parameter objects: it is empty"},
		"null":               {only("~"), "parameter objects: it is empty"},
		"no YAML":            {only("- {a: [s3cret}"), "parameter objects: it is not the YAML of one document"},
		"two documents":      {only("[]\n---\n- {secretPath: bank}\n"), "parameter objects: it is not the YAML of one document"},
		"a text":             {only("s3cret"), "parameter objects: it is no list"},
		"a mapping":          {only("secretPath: bank"), "parameter objects: it is a mapping, and has not only the field array"},
		"array and more":     {only("array: []\nother: []"), "parameter objects: it is a mapping, and has not only the field array"},
		"array is a text":    {only("array: x"), "parameter objects: it is no list"},
		"array of mappings":  {only("array: [{secretPath: x}]"), "parameter objects: item 1 of array is no text"},
		"array of a tag":     {only("array: [!!binary c2VjcmV0UGF0aDogYmFuaw==]"), "parameter objects: item 1 of array is no text"},
		"array of no YAML":   {only("array: ['{']"), "parameter objects: item 1 of array: it is not the YAML of one document"},
		"array of texts":     {only("array: [a]"), "parameter objects: item 1 is no mapping"},
		"a list of texts":    {only("[secretPath]"), "parameter objects: item 1 is no mapping"},
		"field twice":        {only("- {secretPath: x, secretPath: bank}"), "parameter objects: item 1: line 1: a field is there twice"},
		"twice but for case": {only("- {secretPath: x, SecretPath: bank}"), "parameter objects: item 1: line 1: a field is there twice"},
		"twice, folded":      {only("- {secretPath: x, ſecretPath: bank}"), "parameter objects: item 1: line 1: a field is there twice"},
		"anchor":             {only("- &a {secretPath: x}"), "parameter objects: item 1: line 1: anchors and aliases cannot be checked"},
		"alias of a value":   {only("- {a: &x bank, secretPath: *x}"), "parameter objects: item 1: line 1: anchors and aliases cannot be checked"},
		"anchor in a key":    {only("- {&x secretPath: a}"), "parameter objects: item 1: line 1: a field's name is no plain text"},
		"merge":              {only("- {<<: {secretPath: bank}, secretPath: x}"), "parameter objects: item 1: line 1: a field's name is no plain text"},
		"binary":             {only("- {secretPath: !!binary YmFuaw==}"), "parameter objects: item 1: line 1: tags cannot be checked"},
		"tagged key":         {only("- {!!binary c2VjcmV0UGF0aA==: bank}"), "parameter objects: item 1: line 1: a field's name is no plain text"},
		"number as a key":    {only("- {1: x}"), "parameter objects: item 1: line 1: a field's name is no plain text"},
		"too deep":           {only("- {a: " + strings.Repeat("[", 10) + strings.Repeat("]", 10) + "}"), "parameter objects: item 1: line 1: it is nested too deep"},
		"too large a number": {only("- {a: 18446744073709551615}"), "parameter objects: item 1: line 1: a number cannot be read"},
	} {
		got := failure(t, objects.Parse(test.parameters))
		if got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
		if strings.Contains(got, "s3cret") || strings.Contains(got, "bank") {
			t.Errorf("%s: %q quotes what it is about", name, got)
		}
	}
}

// TestParse_Spelling: whoever asks for a field that is there in another spelling
// gets an error, however they ask.
func TestParse_Spelling(t *testing.T) {
	t.Parallel()
	list, ok := objects.Parse(only("- {objectName: x, SecretPath: y}")).(traits.Lister)
	if !ok {
		t.Fatal("it is no list")
	}
	object, ok := list.Get(types.Int(0)).(traits.Mapper)
	if !ok {
		t.Fatal("the item is no mapping")
	}
	const want = "an object has the field secretPath in another spelling"
	key := types.String("secretPath")
	found, there := object.Find(key)
	if failure(t, found) != want || there {
		t.Errorf("Find: %v, %t", found, there)
	}
	if got := failure(t, object.Get(key)); got != want {
		t.Errorf("Get: %s", got)
	}
	if got := failure(t, object.Contains(key)); got != want {
		t.Errorf("Contains: %s", got)
	}
	for name, value := range map[string]ref.Val{"objectName": types.String("x"), "SecretPath": types.String("y")} {
		if got := object.Get(types.String(name)); got.Equal(value) != types.True || object.Contains(types.String(name)) != types.True {
			t.Errorf("%s: got %v, want %v", name, got, value)
		}
	}
	if _, there := object.Find(types.String("other")); there || object.Contains(types.String("other")) != types.False {
		t.Error("a field that is not there is there")
	}
	if _, there := object.Find(types.Int(1)); there {
		t.Error("a number is a field")
	}
}
