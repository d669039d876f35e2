package params

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/postern-dev/postern/providers/sdk"
)

// Bounds of the list, so that a class costs little to read. No working class comes
// near.
const (
	maxSecrets = 1000
	// maxText is how long the list may be, and the texts of all its fields, of which
	// anchors make much of little.
	maxText = 1 << 20
	// maxFields is how many fields a mapping may have. To look for equal ones takes
	// the square of that.
	maxFields = 100
)

// document is an object as users write it. Plain scalars are taken as they are
// written where a text is wanted, so that a file may be named 0644. Nodes are of fields
// that may be written in more than one way, and not in all that YAML knows.
type document struct {
	ResourceName   string            `yaml:"resourceName"`
	FileName       string            `yaml:"fileName"`
	Path           string            `yaml:"path"`
	Mode           yaml.Node         `yaml:"mode"`
	ExtractJSONKey string            `yaml:"extractJSONKey"`
	ExtractYAMLKey string            `yaml:"extractYAMLKey"`
	Optional       yaml.Node         `yaml:"optional"`
	Parent         string            `yaml:"parent"`
	Labels         map[string]string `yaml:"labels"`
	NamePrefix     string            `yaml:"namePrefix"`
	Limit          *int              `yaml:"limit"`
}

// decodeSecrets decodes the parameter "secrets", a YAML list.
func decodeSecrets(d *sdk.Decoder) []Object {
	text := d.Required(ParameterSecrets, "missing required 'secrets' attribute: a YAML list of what to read")
	if text == "" {
		return nil
	}
	items, err := list(text)
	switch {
	case err != nil:
		d.Violate(ParameterSecrets, "failed to unmarshal secrets attribute: %v", err)
		return nil
	case len(items) == 0:
		d.Violate(ParameterSecrets, "missing required 'secrets' attribute: the list is empty: say what to read")
	case len(items) > maxSecrets:
		d.Violate(ParameterSecrets, "holds %d secrets, and may hold %d", len(items), maxSecrets)
		return nil
	}
	objects := make([]Object, len(items))
	paths, left := sdk.NewPaths(), maxText
	for i, item := range items {
		field := fmt.Sprintf("%s[%d]", ParameterSecrets, i)
		doc, err := decodeItem(item)
		if err != nil {
			d.Violate(field, "failed to unmarshal secrets attribute: %v", err)
			continue
		}
		if left -= doc.size(); left < 0 {
			d.Violate(ParameterSecrets, "failed to unmarshal secrets attribute: with what its aliases stand for, it takes more than %d bytes", maxText)
			return nil
		}
		e := &entry{Decoder: d, document: doc, paths: paths, field: field}
		objects[i] = e.object()
		objects[i].Index = i
	}
	return objects
}

// list returns the items of the list that the first document of a text holds.
func list(text string) ([]*yaml.Node, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("yaml: it takes %d bytes, and may take %d", len(text), maxText)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return nil, oneLine(err)
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	root := doc.Content[0]
	if err := checkMappings(root); err != nil {
		return nil, err
	}
	switch {
	case root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null":
		return nil, nil
	case root.Kind != yaml.SequenceNode:
		return nil, errors.New(`yaml: unmarshal errors: it is no list: write "- " before each secret`)
	}
	return root.Content, nil
}

// checkMappings refuses what would take long to decode.
func checkMappings(node *yaml.Node) error {
	if node.Kind == yaml.MappingNode {
		if err := checkMapping(node); err != nil {
			return err
		}
	}
	for _, child := range node.Content {
		if err := checkMappings(child); err != nil {
			return err
		}
	}
	return nil
}

// checkMapping refuses mappings with many fields, and of merges ("<<") those of more
// than one mapping: merged again and again, a few lines become more than fits.
func checkMapping(mapping *yaml.Node) error {
	if len(mapping.Content) > 2*maxFields {
		return fmt.Errorf("yaml: line %d: a mapping has more than %d fields", mapping.Line, maxFields)
	}
	if merged := mergedInto(mapping); merged != nil && (target(merged).Kind != yaml.MappingNode || mergedInto(target(merged)) != nil) {
		return fmt.Errorf("yaml: line %d: << takes one mapping, which has no << itself", merged.Line)
	}
	return nil
}

// mergedInto returns what is merged into a mapping, or nil.
func mergedInto(mapping *yaml.Node) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if key := mapping.Content[i]; key.Kind == yaml.ScalarNode && key.Value == "<<" {
			return mapping.Content[i+1]
		}
	}
	return nil
}

func decodeItem(item *yaml.Node) (*document, error) {
	if target(item).Kind != yaml.MappingNode {
		return nil, errors.New("yaml: unmarshal errors: it is no mapping, such as resourceName: projects/my-project/secrets/a/versions/latest")
	}
	doc := new(document)
	if err := target(item).Decode(doc); err != nil {
		return nil, oneLine(err)
	}
	doc.Mode, doc.Optional = *target(&doc.Mode), *target(&doc.Optional)
	return doc, nil
}

// size is how long the texts are together.
func (doc *document) size() int {
	size := len(doc.Mode.Value) + len(doc.Optional.Value)
	for _, text := range []string{
		doc.ResourceName, doc.FileName, doc.Path, doc.ExtractJSONKey, doc.ExtractYAMLKey, doc.Parent, doc.NamePrefix,
	} {
		size += len(text)
	}
	for key, value := range doc.Labels {
		size += len(key) + len(value)
	}
	return size
}

// target returns what a node is, or what it is the alias of.
func target(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// oneLine returns an error of YAML for a message.
func oneLine(err error) error {
	return errors.New(shown(strings.Join(strings.Fields(err.Error()), " ")))
}
