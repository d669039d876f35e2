package models_test

import (
	"encoding/json"
	"fmt"
	"slices"
)

// reduce cuts an api-2.json down to some operations and what they reach.
func reduce(api []byte, operations []string) ([]byte, error) {
	var all struct {
		Version    string         `json:"version"`
		Metadata   map[string]any `json:"metadata"`
		Operations map[string]any `json:"operations"`
		Shapes     map[string]any `json:"shapes"`
	}
	if err := json.Unmarshal(api, &all); err != nil {
		return nil, fmt.Errorf("read a service model: %w", err)
	}
	reached := map[string]any{}
	for name := range all.Operations {
		if !slices.Contains(operations, name) {
			delete(all.Operations, name)
		}
	}
	var reach func(any)
	reach = func(node any) {
		switch node := node.(type) {
		case map[string]any:
			name, ok := node["shape"].(string)
			if _, seen := reached[name]; ok && !seen {
				reached[name] = all.Shapes[name]
				reach(all.Shapes[name])
			}
			for _, child := range node {
				reach(child)
			}
		case []any:
			for _, child := range node {
				reach(child)
			}
		}
	}
	reach(any(all.Operations))
	all.Shapes = reached
	reduced, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write a service model: %w", err)
	}
	return append(reduced, '\n'), nil
}
