package extract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Bounds of what aliases may make of a YAML document.
const (
	// maxExpanded is how many values may be visited and how long the texts among them
	// may be, together.
	maxExpanded = 2 * maxYAML
	maxDepth    = 1000
)

// What is wrong with documents that can be parsed.
var (
	errTooLarge = errors.New("with what its aliases stand for, it is too large or nested too deep")
	errKey      = errors.New("a key is no text, number or boolean")
	errTwice    = errors.New("a key is there twice")
	errMerge    = errors.New("<< merges what is no mapping")
)

// yamlDocument is a YAML mapping. It is not decoded by the library, which would lose
// the texts of numbers.
//
// Its invariants:
//  1. left is maxExpanded at first and falls with all that is visited. Once it is
//     negative, there is no more value.
//  2. No error of the library is passed on: they quote the document.
type yamlDocument struct {
	fields map[string]*yaml.Node
	left   int
}

// lineOf finds in an error of the library what does not quote the document.
var lineOf = regexp.MustCompile(`^yaml: (line [0-9]+)`)

// parseYAML parses the first document of contents.
func parseYAML(contents []byte) (document, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(contents, &root); err != nil {
		if line := lineOf.FindStringSubmatch(err.Error()); line != nil {
			return nil, fmt.Errorf("it is wrong at %s", line[1])
		}
		return nil, errors.New("it is wrong")
	}
	doc := &yamlDocument{left: maxExpanded}
	if len(root.Content) == 0 || isNull(root.Content[0]) {
		return doc, nil
	}
	if root.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("it is no mapping")
	}
	_, fields, err := doc.mapping(root.Content[0], 0)
	if err != nil {
		return nil, err
	}
	doc.fields = fields
	return doc, nil
}

func (d *yamlDocument) keys() []string { return slices.Collect(maps.Keys(d.fields)) }

func (d *yamlDocument) value(key string) ([]byte, error) {
	node, ok := d.fields[key]
	if !ok || isNull(target(node)) {
		return nil, errNothing
	}
	if node = target(node); node.Kind == yaml.ScalarNode {
		return d.text(node)
	}
	var b bytes.Buffer
	err := d.encode(&b, node, 0)
	return b.Bytes(), err
}

// visit takes a node from what is left.
func (d *yamlDocument) visit(node *yaml.Node, depth int) error {
	if d.left -= 1 + len(node.Value); d.left < 0 || depth > maxDepth {
		return errTooLarge
	}
	return nil
}

// text is what is written of a value that is a scalar.
func (d *yamlDocument) text(node *yaml.Node) ([]byte, error) {
	if err := d.visit(node, 0); err != nil {
		return nil, err
	}
	switch node.ShortTag() {
	case "!!bool":
		return boolean(node)
	case "!!binary":
		text, err := binary(node)
		return []byte(text), err
	default: // texts, and numbers and times as they are written
		return []byte(node.Value), nil
	}
}

func boolean(node *yaml.Node) ([]byte, error) {
	var v bool
	if node.Decode(&v) != nil {
		return nil, errUnsupported
	}
	return json.Marshal(v)
}

func binary(node *yaml.Node) (text string, err error) {
	if node.Decode(&text) != nil {
		return "", errUnsupported
	}
	return text, nil
}

// encode writes a value as JSON.
func (d *yamlDocument) encode(b *bytes.Buffer, node *yaml.Node, depth int) error {
	node = target(node)
	if err := d.visit(node, depth); err != nil {
		return err
	}
	switch node.Kind {
	case yaml.MappingNode:
		return d.encodeMapping(b, node, depth)
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range node.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := d.encode(b, item, depth+1); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	default:
		return encodeScalar(b, node)
	}
}

func (d *yamlDocument) encodeMapping(b *bytes.Buffer, node *yaml.Node, depth int) error {
	keys, fields, err := d.mapping(node, depth)
	if err != nil {
		return err
	}
	b.WriteByte('{')
	for i, key := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encodeText(b, key); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := d.encode(b, fields[key], depth+1); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

// mapping returns the keys of a mapping in order, and its values. What is merged into
// it ("<<") comes last, and counts where the mapping has no such key of its own.
func (d *yamlDocument) mapping(node *yaml.Node, depth int) (keys []string, fields map[string]*yaml.Node, err error) {
	fields = make(map[string]*yaml.Node, len(node.Content)/2)
	var merged []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := target(node.Content[i]), node.Content[i+1]
		if err := d.visit(key, depth); err != nil {
			return nil, nil, err
		}
		switch _, twice := fields[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			return nil, nil, errKey
		case key.ShortTag() == "!!merge":
			merged = append(merged, sources(value)...)
		case twice:
			return nil, nil, errTwice
		default:
			keys, fields[key.Value] = append(keys, key.Value), value
		}
	}
	for _, source := range merged {
		if keys, err = d.merge(keys, fields, target(source), depth+1); err != nil {
			return nil, nil, err
		}
	}
	return keys, fields, nil
}

// sources are the mappings that the value of "<<" names.
func sources(value *yaml.Node) []*yaml.Node {
	if value.Kind == yaml.SequenceNode {
		return value.Content
	}
	return []*yaml.Node{value}
}

func (d *yamlDocument) merge(keys []string, fields map[string]*yaml.Node, source *yaml.Node, depth int) ([]string, error) {
	if source.Kind != yaml.MappingNode {
		return nil, errMerge
	}
	if err := d.visit(source, depth); err != nil {
		return nil, err
	}
	added, values, err := d.mapping(source, depth)
	if err != nil {
		return nil, err
	}
	for _, key := range added {
		if _, there := fields[key]; !there {
			keys, fields[key] = append(keys, key), values[key]
		}
	}
	return keys, nil
}

func encodeScalar(b *bytes.Buffer, node *yaml.Node) error {
	switch tag := node.ShortTag(); tag {
	case "!!null":
		b.WriteString("null")
		return nil
	case "!!bool", "!!int", "!!float":
		return encodePlain(b, node)
	case "!!binary":
		text, err := binary(node)
		if err != nil || !utf8.ValidString(text) {
			return errUnsupported
		}
		return encodeText(b, text)
	default:
		return encodeText(b, node.Value)
	}
}

// numberSyntax is that of numbers in JSON.
var numberSyntax = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

// encodePlain writes a boolean, or a number: with the text that it has, where that is
// a number in JSON too.
func encodePlain(b *bytes.Buffer, node *yaml.Node) error {
	if numberSyntax.MatchString(node.Value) {
		b.WriteString(node.Value)
		return nil
	}
	var v any
	if node.Decode(&v) != nil {
		return errUnsupported
	}
	text, err := json.Marshal(v)
	if err != nil { // infinite, or no number
		return errUnsupported
	}
	b.Write(text)
	return nil
}

func encodeText(b *bytes.Buffer, text string) error {
	encoder := json.NewEncoder(b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // its line feed
	return nil
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

// target returns what a node is, or what it is the alias of.
func target(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}
