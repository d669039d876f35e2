package params

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/postern-dev/postern/providers/sdk"
)

// Bounds of the list, so that a class costs little to read. No working class comes
// near: a vault answers some two thousand requests in ten seconds.
const (
	maxObjects = 1000
	// maxNested is how long the texts in a list may be together. Anchors could make
	// much of little.
	maxNested = 1 << 20
	// maxFields is how many fields a mapping may have. To look for equal ones takes
	// the square of that.
	maxFields = 100
)

// document is an object as users write it. Plain scalars are taken as they are
// written, so that 0644 and the version 1234e5... stay what they are.
type document struct {
	ObjectName           string            `yaml:"objectName"`
	ObjectAlias          string            `yaml:"objectAlias"`
	ObjectVersion        string            `yaml:"objectVersion"`
	ObjectVersionHistory int32             `yaml:"objectVersionHistory"`
	ObjectType           string            `yaml:"objectType"`
	ObjectFormat         string            `yaml:"objectFormat"`
	ObjectEncoding       string            `yaml:"objectEncoding"`
	FilePermission       string            `yaml:"filePermission"`
	Optional             any               `yaml:"optional"` // a bool would take yes for true, which YAML 1.2 does not
	NamePattern          string            `yaml:"namePattern"`
	Tags                 map[string]string `yaml:"tags"`
	Limit                *int              `yaml:"limit"`
}

func (doc *document) trim() {
	for _, field := range []*string{
		&doc.ObjectName, &doc.ObjectAlias, &doc.ObjectVersion, &doc.ObjectType,
		&doc.ObjectFormat, &doc.ObjectEncoding, &doc.FilePermission, &doc.NamePattern,
	} {
		*field = strings.TrimSpace(*field)
	}
}

// decodeObjects decodes the parameter "objects": a mapping whose array is a list, or
// the list itself. Its items are texts that each hold a YAML document, or mappings.
func decodeObjects(d *sdk.Decoder) []Object {
	text := d.Required(Objects, "objects is not set")
	if text == "" {
		return nil
	}
	items, err := list(text)
	if err != nil {
		d.Violate(Objects, "failed to yaml unmarshal objects, error: %v", err)
		return nil
	}
	switch {
	case len(items) == 0:
		d.Violate(Objects, "objects array is empty: say what to read")
	case len(items) > maxObjects:
		d.Violate(Objects, "holds %d objects, and may hold %d", len(items), maxObjects)
		return nil
	}
	objects := make([]Object, len(items))
	paths, left := sdk.NewPaths(), maxNested
	for i, item := range items {
		field := fmt.Sprintf("%s[%d]", Objects, i)
		doc, err := decodeItem(item, &left)
		if err != nil {
			d.Violate(field, "unmarshal failed for keyVaultObjects at index %d, error: %v", i, err)
			continue
		}
		e := &entry{Decoder: d, document: doc, paths: paths, field: field}
		objects[i] = e.object()
		objects[i].Index = i
	}
	return objects
}

// list returns the items of the list that a text holds.
func list(text string) ([]*yaml.Node, error) {
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	if root != nil && root.Kind == yaml.MappingNode {
		if root, err = field(root, "array"); err != nil {
			return nil, err
		}
	}
	switch {
	case root == nil || isNull(root):
		return nil, nil
	case root.Kind != yaml.SequenceNode:
		return nil, errors.New("yaml: unmarshal errors: the objects are no list: write - before each of them")
	}
	return root.Content, nil
}

// field returns the value of a field, nil if there is none.
func field(mapping *yaml.Node, name string) (*yaml.Node, error) {
	var value *yaml.Node
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		switch {
		case mapping.Content[i].Value != name:
		case value != nil:
			return nil, fmt.Errorf("yaml: unmarshal errors: line %d: the field %s is there twice", mapping.Content[i].Line, name)
		default:
			value = target(mapping.Content[i+1])
		}
	}
	return value, nil
}

// decodeItem decodes an object. left is what its text may take of [maxNested].
func decodeItem(item *yaml.Node, left *int) (*document, error) {
	item = target(item)
	if item.Kind == yaml.ScalarNode && !isNull(item) {
		if *left -= len(item.Value); *left < 0 {
			return nil, fmt.Errorf("the texts in the list take more than %d bytes", maxNested)
		}
		var err error
		if item, err = parse(item.Value); err != nil {
			return nil, err
		}
	}
	doc := new(document)
	switch {
	case item == nil || isNull(item):
		return doc, nil // it has no objectType, which is said
	case item.Kind != yaml.MappingNode:
		return nil, errors.New("yaml: unmarshal errors: the object is no mapping, such as objectName: a")
	}
	if err := item.Decode(doc); err != nil {
		return nil, oneLine(err)
	}
	doc.trim()
	return doc, nil
}

// parse returns the first document of a text, nil if there is none.
func parse(text string) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return nil, oneLine(err)
	}
	if len(doc.Content) == 0 {
		return nil, nil //nolint:nilnil // an empty text is no error, and holds nothing
	}
	if err := checkMappings(doc.Content[0]); err != nil {
		return nil, err
	}
	return doc.Content[0], nil
}

// checkMappings refuses mappings with more than [maxFields] fields, and the field
// "<<": what it brings, rules that look at objects do not see.
func checkMappings(node *yaml.Node) error {
	if node.Kind == yaml.MappingNode {
		if len(node.Content) > 2*maxFields {
			return fmt.Errorf("yaml: line %d: a mapping has more than %d fields", node.Line, maxFields)
		}
		for i := 0; i < len(node.Content); i += 2 {
			if node.Content[i].Value == "<<" {
				return fmt.Errorf("yaml: line %d: << cannot be used: write each object's fields out", node.Content[i].Line)
			}
		}
	}
	for _, child := range node.Content {
		if err := checkMappings(child); err != nil {
			return err
		}
	}
	return nil
}

// target returns what a node is, or what it is the alias of.
func target(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

// oneLine returns an error of YAML in one line.
func oneLine(err error) error { return errors.New(strings.Join(strings.Fields(err.Error()), " ")) }
