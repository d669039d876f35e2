package models

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// check checks a value against a shape. No message shows a value: it may be a
// secret.
func (m *Model) check(path, name string, value any) []Violation {
	shape := m.Shapes[name]
	if shape == nil {
		return []Violation{{path, "the model has no shape " + name}}
	}
	switch shape.Type {
	case "structure":
		return m.checkStructure(path, shape, value)
	case "list":
		return m.checkList(path, shape, value)
	case "map":
		return m.checkMap(path, shape, value)
	default:
		return shape.checkScalar(path, value)
	}
}

func (m *Model) checkStructure(path string, shape *Shape, value any) (found []Violation) {
	members, ok := value.(map[string]any)
	if !ok {
		return []Violation{{path, "not a structure"}}
	}
	for _, required := range shape.Required {
		if members[required] == nil {
			found = append(found, Violation{member(path, required), "Member must not be null"})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		ref, ok := shape.Members[name]
		switch {
		case !ok:
			found = append(found, Violation{member(path, name), "unknown member " + name})
		case members[name] != nil:
			found = append(found, m.check(member(path, name), ref.Shape, members[name])...)
		}
	}
	return found
}

func (m *Model) checkList(path string, shape *Shape, value any) []Violation {
	elements, ok := value.([]any)
	if !ok {
		return []Violation{{path, "not a list"}}
	}
	found := shape.checkLength(path, len(elements))
	for i, e := range elements {
		found = append(found, m.check(element(path, i), shape.Member.Shape, e)...)
	}
	return found
}

func (m *Model) checkMap(path string, shape *Shape, value any) []Violation {
	entries, ok := value.(map[string]any)
	if !ok {
		return []Violation{{path, "not a map"}}
	}
	found := shape.checkLength(path, len(entries))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		found = append(found, m.check(path+".key", shape.Key.Shape, key)...)
		found = append(found, m.check(path+"."+key, shape.Value.Shape, entries[key])...)
	}
	return found
}

func (s *Shape) checkScalar(path string, value any) []Violation {
	text, isText := value.(string)
	number, isNumber := value.(json.Number)
	_, isBool := value.(bool)
	wrong := []Violation{{path, "not a " + s.Type}}
	switch s.Type {
	case "string":
		if !isText {
			return wrong
		}
		return s.checkText(path, text)
	case "blob":
		decoded, err := base64.StdEncoding.DecodeString(text)
		if !isText || err != nil {
			return wrong
		}
		return s.checkLength(path, len(decoded))
	case "integer", "long":
		n, err := number.Int64()
		if !isNumber || err != nil {
			return wrong
		}
		return s.checkRange(path, n)
	case "boolean":
		if !isBool {
			return wrong
		}
	case "timestamp":
		// A number in JSON, ISO 8601 in XML.
		_, err := time.Parse(time.RFC3339, text)
		if !isNumber && (!isText || err != nil) {
			return wrong
		}
	default:
		return []Violation{{path, "type " + s.Type + " cannot be checked"}}
	}
	return nil
}

func (s *Shape) checkText(path, text string) []Violation {
	found := s.checkLength(path, utf8.RuneCountInString(text))
	if len(s.Enum) != 0 && !slices.Contains(s.Enum, text) {
		found = append(found, Violation{path, "Member must satisfy enum value set: [" + strings.Join(s.Enum, ", ") + "]"})
	}
	if s.pattern != nil && !s.pattern.MatchString(text) {
		found = append(found, Violation{path, "Member must satisfy regular expression pattern: " + s.Pattern})
	}
	return found
}

func (s *Shape) checkLength(path string, length int) (found []Violation) {
	if s.Min != nil && int64(length) < *s.Min {
		found = append(found, Violation{path, fmt.Sprintf("Member must have length greater than or equal to %d", *s.Min)})
	}
	if s.Max != nil && int64(length) > *s.Max {
		found = append(found, Violation{path, fmt.Sprintf("Member must have length less than or equal to %d", *s.Max)})
	}
	return found
}

func (s *Shape) checkRange(path string, n int64) (found []Violation) {
	if s.Min != nil && n < *s.Min {
		found = append(found, Violation{path, fmt.Sprintf("Member must have value greater than or equal to %d", *s.Min)})
	}
	if s.Max != nil && n > *s.Max {
		found = append(found, Violation{path, fmt.Sprintf("Member must have value less than or equal to %d", *s.Max)})
	}
	return found
}
