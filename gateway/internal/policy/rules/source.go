package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// MaxSource is the size of a file in bytes at most: that of a ConfigMap.
	MaxSource = 1 << 20
	// maxRules is how many rules there are at most: what nobody can oversee.
	maxRules = 256
	// maxMessage is the length of a rule's message.
	maxMessage = 1024
)

// ruleName is what a name looks like: a DNS label, as names in Kubernetes.
var ruleName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// action is what happens to a fetch that breaks a rule.
type action string

const (
	// deny refuses it.
	deny action = "deny"
	// audit counts and logs it.
	audit action = "audit"
)

// The fields of a rule.
const (
	fieldName              = "name"
	fieldMatch             = "match"
	fieldRequire           = "require"
	fieldMessage           = "message"
	fieldMessageExpression = "messageExpression"
	fieldAction            = "action"
)

// fields are those, as errors list them.
func fields() []string {
	return []string{fieldName, fieldMatch, fieldRequire, fieldMessage, fieldMessageExpression, fieldAction}
}

// SourceError says all that is wrong with a file of rules.
type SourceError struct {
	// Problems are in the order of the file.
	Problems []string
}

// Error implements error.
func (e *SourceError) Error() string { return strings.Join(e.Problems, "; ") }

// ruleSource is a rule as it is written.
type ruleSource struct {
	line   int
	name   string
	fields map[string]text
}

// text is a value with its place in the file.
type text struct {
	value string
	line  int
}

// reader reads a file of rules, and collects what is wrong with it.
type reader struct {
	problems []problem
}

// problem is what is wrong in a line; 0 is the file itself.
type problem struct {
	line int
	text string
}

func (r *reader) failf(line int, format string, args ...any) {
	p := problem{line: line, text: fmt.Sprintf(format, args...)}
	if line > 0 {
		p.text = fmt.Sprintf("line %d: %s", line, p.text)
	}
	r.problems = append(r.problems, p)
}

// err is a [*SourceError], or nil if nothing is wrong.
func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b problem) int { return a.line - b.line })
	e := &SourceError{Problems: make([]string, len(r.problems))}
	for i, p := range r.problems {
		e.Problems[i] = p.text
	}
	return e
}

// read returns the rules of a file.
func (r *reader) read(source []byte) []ruleSource {
	if len(source) > MaxSource {
		r.failf(0, "the file has more than %d bytes", MaxSource)
		return nil
	}
	root, err := document(source)
	if err != nil {
		r.failf(0, "%s", err.Error())
		return nil
	}
	const form = `write "rules:" and a list of rules below it, or "rules: []" to allow every fetch`
	if root == nil {
		r.failf(0, "the file is empty: %s", form)
		return nil
	}
	if root.Kind != yaml.MappingNode {
		r.failf(root.Line, "this is no mapping: %s", form)
		return nil
	}
	var list *yaml.Node
	for key, value := range r.entries(root, "the file") {
		if key.Value != "rules" {
			r.failf(key.Line, "unknown field %q: there is only rules", key.Value)
			continue
		}
		list = value
	}
	switch {
	case list == nil:
		r.failf(root.Line, "there are no rules: %s", form)
	case list.Kind != yaml.SequenceNode:
		r.failf(list.Line, "rules is no list: %s", form)
	case len(list.Content) > maxRules:
		r.failf(list.Line, "there are %d rules, and %d at most", len(list.Content), maxRules)
	default:
		return r.rules(list.Content)
	}
	return nil
}

// document returns the only document of a file; nil if it has none.
func document(source []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(source))
	var first, second yaml.Node
	switch err := decoder.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil, nil //nolint:nilnil // no document is no error
	case err != nil:
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	default:
		return nil, fmt.Errorf("line %d: there is a second document", second.Line)
	}
	if len(first.Content) != 1 || (first.Content[0].Kind == yaml.ScalarNode && first.Content[0].Tag == "!!null") {
		return nil, nil //nolint:nilnil // no document is no error
	}
	return first.Content[0], nil
}

// entries yields the keys and values of a mapping, each key once.
func (r *reader) entries(mapping *yaml.Node, what string) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		seen := map[string]bool{}
		for i := 0; i+1 < len(mapping.Content); i += 2 {
			key, value := mapping.Content[i], mapping.Content[i+1]
			switch {
			case key.Kind != yaml.ScalarNode:
				r.failf(key.Line, "%s has a field whose name is no text", what)
			case seen[key.Value]:
				r.failf(key.Line, "%s has %s twice", what, key.Value)
			default:
				seen[key.Value] = true
				if !yield(key, value) {
					return
				}
			}
		}
	}
}

func (r *reader) rules(nodes []*yaml.Node) []ruleSource {
	sources := make([]ruleSource, 0, len(nodes))
	lines := map[string]int{}
	for i, node := range nodes {
		what := fmt.Sprintf("rule %d", i+1)
		if node.Kind != yaml.MappingNode {
			r.failf(node.Line, "%s is no mapping of %s", what, strings.Join(fields(), ", "))
			continue
		}
		source := r.rule(node, what)
		if first, taken := lines[source.name]; taken {
			r.failf(source.line, "rule %q: there is another of this name in line %d", source.name, first)
		} else if source.name != "" {
			lines[source.name] = source.line
		}
		sources = append(sources, source)
	}
	return sources
}

func (r *reader) rule(node *yaml.Node, what string) ruleSource {
	source := ruleSource{line: node.Line, fields: map[string]text{}}
	for key, value := range r.entries(node, what) {
		switch {
		case !slices.Contains(fields(), key.Value):
			r.failf(key.Line, "%s: unknown field %q: there are %s", what, key.Value, strings.Join(fields(), ", "))
		case value.Kind != yaml.ScalarNode || value.Tag == "!!null" || strings.TrimSpace(value.Value) == "":
			r.failf(value.Line, "%s: %s has to be a text", what, key.Value)
		default:
			source.fields[key.Value] = text{value: value.Value, line: value.Line}
		}
	}
	name, ok := source.fields[fieldName]
	switch {
	case !ok:
		r.failf(source.line, "%s has no name", what)
	case !ruleName.MatchString(name.value):
		r.failf(name.line, "%s: the name %q is no DNS label: a to z, 0 to 9 and -, 63 at most", what, name.value)
	default:
		source.name = name.value
	}
	r.check(source, what)
	return source
}

// check looks at what can be said of a rule without its expressions.
func (r *reader) check(source ruleSource, what string) {
	if source.name != "" {
		what = fmt.Sprintf("rule %q", source.name)
	}
	if _, ok := source.fields[fieldRequire]; !ok {
		r.failf(source.line, "%s has no require: an expression that is true for what is allowed", what)
	}
	message, static := source.fields[fieldMessage]
	dynamic, both := source.fields[fieldMessageExpression]
	if static && both {
		r.failf(dynamic.line, "%s has message and messageExpression: one of them goes", what)
	}
	if len(message.value) > maxMessage {
		r.failf(message.line, "%s: message has more than %d bytes", what, maxMessage)
	}
	if a, ok := source.fields[fieldAction]; ok && a.value != string(deny) && a.value != string(audit) {
		r.failf(a.line, "%s: action is %q: there are %s and %s", what, a.value, deny, audit)
	}
}
