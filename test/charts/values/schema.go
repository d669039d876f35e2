package values

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// schema is a JSON schema or a part of one.
type schema map[string]any

// Schema returns the JSON schema of a chart with these values, which refuses
// every other. The subcharts, by their names, have schemas of their own.
//
// The types are string, path, address, duration, path? and duration? (which may be empty), bool, int, number, uid, port,
// object, resources, map (of strings), list<T> and map<T> of these, and alternatives
// such as a|b; one that ends in | may be empty.
func Schema(chart string, values []Value, subcharts ...string) ([]byte, error) {
	root := structure()
	for _, v := range values {
		kind, err := typeSchema(v.Type)
		if err != nil {
			return nil, fmt.Errorf("value %s: %w", v.Name(), err)
		}
		if v.Type != Internal {
			kind["description"] = v.Description
		}
		insert(root, v.Path, kind)
	}
	properties := root["properties"].(schema)
	for _, name := range subcharts {
		if _, ok := properties[name]; !ok {
			properties[name] = schema{"type": "object"}
		}
		delete(properties[name].(schema), "additionalProperties")
	}
	if _, ok := properties["global"]; !ok {
		properties["global"] = schema{"type": "object"} // Helm adds it
	}
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "Values of chart " + chart
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(root); err != nil {
		return nil, fmt.Errorf("encode the schema of %s: %w", chart, err)
	}
	return encoded.Bytes(), nil
}

// structure is a mapping of which all keys are known.
func structure() schema {
	return schema{"type": "object", "properties": schema{}, "additionalProperties": false}
}

func insert(parent schema, path []string, leaf schema) {
	properties := parent["properties"].(schema)
	if len(path) == 1 {
		properties[path[0]] = leaf
		return
	}
	if _, ok := properties[path[0]]; !ok {
		properties[path[0]] = structure()
	}
	insert(properties[path[0]].(schema), path[1:], leaf)
}

func typeSchema(kind string) (schema, error) {
	if element, ok := parameter(kind, "list"); ok {
		items, err := typeSchema(element)
		return schema{"type": "array", "items": items}, err
	}
	if element, ok := parameter(kind, "map"); ok {
		items, err := typeSchema(element)
		return schema{"type": "object", "additionalProperties": items}, err
	}
	if strings.Contains(kind, "|") {
		return schema{"type": "string", "enum": strings.Split(kind, "|")}, nil
	}
	switch kind {
	case "string", "object":
		return schema{"type": kind}, nil
	case "bool", Internal:
		return schema{"type": "boolean"}, nil
	case "path":
		return schema{"type": "string", "pattern": "^/."}, nil
	case "path?":
		return schema{"type": "string", "pattern": "^(/.+)?$"}, nil
	case "address":
		return schema{"type": "string", "pattern": "^.*:[0-9]+$"}, nil
	case "duration":
		return schema{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`}, nil
	case "duration?":
		return schema{"type": "string", "pattern": `^(([0-9]+(\.[0-9]+)?(ms|s|m|h))+)?$`}, nil
	case "int":
		return schema{"type": "integer", "minimum": 0}, nil
	case "number":
		return schema{"type": "number", "exclusiveMinimum": 0}, nil
	case "uid":
		return schema{"type": "integer", "minimum": 1}, nil
	case "port":
		return schema{"type": "integer", "minimum": 1, "maximum": 65535}, nil
	case "map":
		return schema{"type": "object", "additionalProperties": schema{"type": "string"}}, nil
	case "resources":
		quantities := schema{"type": "object", "additionalProperties": schema{"type": []string{"string", "number"}}}
		limits := structure()
		limits["properties"] = schema{"limits": quantities, "requests": quantities, "claims": schema{"type": "array"}}
		return limits, nil
	}
	return nil, fmt.Errorf("there is no type %q", kind)
}

func parameter(kind, generic string) (string, bool) {
	inner, ok := strings.CutPrefix(kind, generic+"<")
	return strings.TrimSuffix(inner, ">"), ok && strings.HasSuffix(kind, ">")
}
