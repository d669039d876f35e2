// Package objects reads the lists of objects in the parameters of
// SecretProviderClasses, for rules that look at them.
//
// What could be read in two ways is an error, so that no rule looks at one thing
// and the provider at another: both parameters at once, a field that is there
// twice, anchors, tags of YAML, a second document.
package objects

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"go.yaml.in/yaml/v3"
)

// maxDepth is how deep objects may be nested; what is deeper cannot be checked.
const maxDepth = 8

// listParameters are the parameters that hold a provider's list of objects:
// gcp calls it secrets, and the others objects.
func listParameters() []string { return []string{"objects", "secrets"} }

// Parse returns the list of objects that a provider is asked for as CEL's value,
// or an error value with an [*Error].
func Parse(parameters map[string]string) ref.Val {
	var found []string
	for _, name := range listParameters() {
		if _, ok := parameters[name]; ok {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return unreadable("there is no parameter " + strings.Join(listParameters(), " or "))
	case 1:
	default:
		return unreadable("there are the parameters " + strings.Join(found, " and ") + ", of which only one can be checked")
	}
	list, err := parseList(parameters[found[0]])
	if err != nil {
		return unreadable("parameter " + found[0] + ": " + err.Error())
	}
	return types.NewRefValList(types.DefaultTypeAdapter, list)
}

// Error says why the objects cannot be checked. Its text holds no value of
// theirs.
type Error struct{ why string }

// Error implements error.
func (e *Error) Error() string { return e.why }

func unreadable(why string) ref.Val { return types.WrapErr(&Error{why: why}) }

// parseList parses a list of mappings, or a mapping of "array" to a list of
// texts that each hold a mapping, as azure has it.
func parseList(source string) ([]ref.Val, error) {
	root, err := parseYAML(source)
	if err != nil {
		return nil, err
	}
	nested := root.Kind == yaml.MappingNode
	if nested {
		if len(root.Content) != 2 || root.Content[0].Value != "array" {
			return nil, errors.New("it is a mapping, and has not only the field array")
		}
		root = root.Content[1]
	}
	if root.Kind != yaml.SequenceNode {
		return nil, errors.New("it is no list")
	}
	list := make([]ref.Val, 0, len(root.Content))
	for i, item := range root.Content {
		if nested {
			if item.Kind != yaml.ScalarNode || item.ShortTag() != "!!str" {
				return nil, fmt.Errorf("item %d of array is no text", i+1)
			}
			if item, err = parseYAML(item.Value); err != nil {
				return nil, fmt.Errorf("item %d of array: %w", i+1, err)
			}
		}
		if item.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("item %d is no mapping", i+1)
		}
		value, err := convert(item, 0)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		list = append(list, value)
	}
	return list, nil
}

// parseYAML returns the one document of a text. An error does not quote it.
func parseYAML(source string) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(strings.NewReader(source))
	var first, second yaml.Node
	switch err := decoder.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty")
	case err != nil || !errors.Is(decoder.Decode(&second), io.EOF):
		return nil, errors.New("it is not the YAML of one document")
	}
	root := first.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil, errors.New("it is empty")
	}
	return root, nil
}

// convert returns a node as the value that CEL works with.
func convert(node *yaml.Node, depth int) (ref.Val, error) {
	switch {
	case depth > maxDepth:
		return nil, fmt.Errorf("line %d: it is nested too deep", node.Line)
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		return nil, fmt.Errorf("line %d: anchors and aliases cannot be checked", node.Line)
	case node.Style&yaml.TaggedStyle != 0:
		return nil, fmt.Errorf("line %d: tags cannot be checked", node.Line)
	}
	switch node.Kind {
	case yaml.MappingNode:
		return convertMapping(node, depth)
	case yaml.SequenceNode:
		list := make([]ref.Val, 0, len(node.Content))
		for _, item := range node.Content {
			value, err := convert(item, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return types.NewRefValList(types.DefaultTypeAdapter, list), nil
	default:
		return convertScalar(node)
	}
}

func convertScalar(node *yaml.Node) (ref.Val, error) {
	var err error
	switch node.ShortTag() {
	case "!!null":
		return types.NullValue, nil
	case "!!bool":
		var v bool
		if err = node.Decode(&v); err == nil {
			return types.Bool(v), nil
		}
	case "!!int":
		var v int64
		if err = node.Decode(&v); err == nil {
			return types.Int(v), nil
		}
	case "!!float":
		var v float64
		if err = node.Decode(&v); err == nil {
			return types.Double(v), nil
		}
	default: // texts, and times, which providers read as texts
		return types.String(node.Value), nil
	}
	return nil, fmt.Errorf("line %d: a number cannot be read", node.Line)
}

func convertMapping(node *yaml.Node, depth int) (ref.Val, error) {
	values := make(map[ref.Val]ref.Val, len(node.Content)/2)
	written := make(map[string]string, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" || key.Anchor != "" {
			return nil, fmt.Errorf("line %d: a field's name is no plain text", key.Line)
		}
		if _, twice := written[fold(key.Value)]; twice {
			return nil, fmt.Errorf("line %d: a field is there twice", key.Line)
		}
		value, err := convert(node.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		written[fold(key.Value)] = key.Value
		values[types.String(key.Value)] = value
	}
	return &mapping{Mapper: types.NewRefValMap(types.DefaultTypeAdapter, values), written: written}, nil
}

// mapping is a mapping of an object. Some providers read the names of fields in
// any case and others do not, so a field that is there in another spelling than
// a rule asks for is an error: neither there nor not there.
type mapping struct {
	traits.Mapper
	// written are the names of fields as they are written, by their folded form.
	written map[string]string
}

// Find implements traits.Mapper.
func (m *mapping) Find(key ref.Val) (ref.Val, bool) {
	if err := m.misspelt(key); err != nil {
		return err, false
	}
	return m.Mapper.Find(key)
}

// Get implements traits.Indexer.
func (m *mapping) Get(key ref.Val) ref.Val {
	if err := m.misspelt(key); err != nil {
		return err
	}
	return m.Mapper.Get(key)
}

// Contains implements traits.Container.
func (m *mapping) Contains(key ref.Val) ref.Val {
	if err := m.misspelt(key); err != nil {
		return err
	}
	return m.Mapper.Contains(key)
}

func (m *mapping) misspelt(key ref.Val) ref.Val {
	name, ok := key.(types.String)
	if !ok {
		return nil
	}
	if written, there := m.written[fold(string(name))]; there && written != string(name) {
		return unreadable(fmt.Sprintf("an object has the field %s in another spelling", name))
	}
	return nil
}

// fold returns the same text for all that differ in case alone, as
// strings.EqualFold and decoders of JSON see it.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		return least
	}, s)
}
