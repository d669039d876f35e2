package extract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// jsonDocument is a JSON object. Of a key that is there twice, the last counts.
type jsonDocument map[string]json.RawMessage

func parseJSON(contents []byte) (document, error) {
	var doc jsonDocument
	err := json.Unmarshal(contents, &doc)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return nil, fmt.Errorf("it is wrong at byte %d", syntax.Offset)
	}
	if err != nil {
		return nil, errors.New("it is no object")
	}
	return doc, nil
}

func (d jsonDocument) keys() []string { return slices.Collect(maps.Keys(d)) }

func (d jsonDocument) value(key string) ([]byte, error) {
	raw, ok := d[key]
	if !ok || string(raw) == "null" {
		return nil, errNothing
	}
	switch raw[0] {
	case '"':
		var text string
		err := json.Unmarshal(raw, &text)
		return []byte(text), err
	case '{', '[':
		var b bytes.Buffer
		err := json.Compact(&b, raw)
		return b.Bytes(), err
	default: // true, false, a number
		return raw, nil
	}
}
