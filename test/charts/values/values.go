// Package values reads what a chart's values.yaml says about its values, so
// that the chart's README and its schema are made of the one place where each
// value is described.
//
// Above each value stands a comment of the form
//
//	# -- (type) What it is for.
//
// Without a type it is that of the default; see Schema for the types there are.
package values

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Internal is the type of values that no user sets here.
const Internal = "internal"

// Value is one value of a chart.
type Value struct {
	// Path of keys to it.
	Path []string
	// Type as Schema knows it.
	Type string
	// Default as YAML, on one line.
	Default string
	// Description is Markdown.
	Description string
}

// Name is the path as helm's --set takes it.
func (v Value) Name() string { return strings.Join(v.Path, ".") }

// Parse returns the values of a values.yaml in its order.
func Parse(content []byte) ([]Value, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, fmt.Errorf("parse values: %w", err)
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("parse values: not a mapping")
	}
	return parseMapping(nil, document.Content[0])
}

func parseMapping(path []string, mapping *yaml.Node) ([]Value, error) {
	var all []Value
	for i := 0; i < len(mapping.Content); i += 2 {
		key, node := mapping.Content[i], mapping.Content[i+1]
		here := slices.Concat(path, []string{key.Value})
		description, kind := describe(key.HeadComment)
		if description == "" && node.Kind == yaml.MappingNode && len(node.Content) > 0 {
			values, err := parseMapping(here, node)
			if err != nil {
				return nil, err
			}
			all = append(all, values...)
			continue
		}
		value, err := newValue(here, node, description, kind)
		if err != nil {
			return nil, err
		}
		all = append(all, value)
	}
	return all, nil
}

func newValue(path []string, node *yaml.Node, description, kind string) (Value, error) {
	v := Value{Path: path, Type: kind, Description: description}
	if description == "" {
		return v, fmt.Errorf(`value %s has no description: write a comment "# -- (type) ..." above it`, v.Name())
	}
	if v.Type == "" {
		if v.Type = inferred(node); v.Type == "" {
			return v, fmt.Errorf(`value %s needs a type: "# -- (type) ..."`, v.Name())
		}
	}
	if _, err := typeSchema(v.Type); err != nil {
		return v, fmt.Errorf("value %s: %w", v.Name(), err)
	}
	var err error
	if v.Default, err = inline(node); err != nil {
		return v, fmt.Errorf("default of %s: %w", v.Name(), err)
	}
	return v, nil
}

func inferred(node *yaml.Node) string {
	return map[string]string{"!!str": "string", "!!bool": "bool", "!!int": "int"}[node.Tag]
}

// describe takes a comment apart. What stands above "# --" is for readers of
// the file.
func describe(comment string) (description, kind string) {
	_, text, found := strings.Cut("\n"+comment, "\n# -- ")
	if !found {
		return "", ""
	}
	var words []string
	for line := range strings.Lines(text) {
		words = append(words, strings.Fields(strings.TrimPrefix(line, "#"))...)
	}
	description = strings.Join(words, " ")
	if match := regexp.MustCompile(`^\(([^ )]+)\) `).FindStringSubmatch(description); match != nil {
		return description[len(match[0]):], match[1]
	}
	return description, ""
}

// inline renders a default on one line.
func inline(node *yaml.Node) (string, error) {
	setFlow(node)
	content, err := yaml.Marshal(node)
	return strings.Join(strings.Fields(string(content)), " "), err
}

// setFlow makes a node one of the style {a: b}, without comments.
func setFlow(node *yaml.Node) {
	if node.Kind != yaml.ScalarNode {
		node.Style = yaml.FlowStyle
	}
	node.HeadComment, node.LineComment, node.FootComment = "", "", ""
	for _, child := range node.Content {
		setFlow(child)
	}
}

// Table returns the values as a Markdown table, but those that are internal.
func Table(values []Value) string {
	var table strings.Builder
	table.WriteString("| value | type | default | |\n|---|---|---|---|\n")
	for _, v := range values {
		if v.Type == Internal {
			continue
		}
		fmt.Fprintf(&table, "| `%s` | %s | `%s` | %s |\n", v.Name(), cell(v.Type), cell(v.Default), cell(v.Description))
	}
	return table.String()
}

// cell escapes what would end a table's cell or begin an HTML tag.
func cell(text string) string {
	if text == "" {
		return `""`
	}
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;").Replace(text)
}
