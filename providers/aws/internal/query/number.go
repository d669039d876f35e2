package query

import (
	"encoding/json"
	"math"
	"strconv"
)

// maxExact is up to where a float64 knows each whole number.
const maxExact = 1 << 53

// numberTexts are the texts of a document's numbers, by their value as float64. It
// is several for a value that is written in more than one way.
type numberTexts map[float64]string

// several is no number's text.
const several = ""

// floats returns a copy of a document whose numbers are float64, and notes their
// texts. One that is too large for float64 is infinite.
func (t numberTexts) floats(value any) any {
	switch v := value.(type) {
	case json.Number:
		f := float(v)
		if text, ok := t[f]; ok && text != string(v) {
			t[f] = several
		} else {
			t[f] = string(v)
		}
		return f
	case []any:
		list := make([]any, len(v))
		for i, element := range v {
			list[i] = t.floats(element)
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(v))
		for key, element := range v {
			object[key] = t.floats(element)
		}
		return object
	default:
		return value
	}
}

func float(n json.Number) float64 {
	f, _ := strconv.ParseFloat(string(n), 64) // what is out of range is infinite
	return f
}

// same reports whether two results differ at most in the texts of numbers.
func same(passed, value any) bool {
	switch p := passed.(type) {
	case json.Number:
		f, ok := value.(float64)
		return ok && float(p) == f
	case []any:
		list, ok := value.([]any)
		if !ok || len(p) != len(list) {
			return false
		}
		for i := range p {
			if !same(p[i], list[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		object, ok := value.(map[string]any)
		if !ok || len(p) != len(object) {
			return false
		}
		for key := range p {
			if element, ok := object[key]; !ok || !same(p[key], element) {
				return false
			}
		}
		return true
	case nil, bool, string, float64:
		return p == value
	default:
		return false
	}
}

// plain returns a copy of a result in which numbers are texts: that of the
// document's number of the same value, or else the shortest.
func plain(value any, texts numberTexts) (any, error) {
	switch v := value.(type) {
	case nil, bool, string, json.Number:
		return v, nil
	case float64:
		return texts.number(v)
	case []any:
		list := make([]any, len(v))
		for i, element := range v {
			var err error
			if list[i], err = plain(element, texts); err != nil {
				return nil, err
			}
		}
		return list, nil
	case map[string]any:
		object := make(map[string]any, len(v))
		for key, element := range v {
			var err error
			if object[key], err = plain(element, texts); err != nil {
				return nil, err
			}
		}
		return object, nil
	default:
		return nil, ErrNoValue
	}
}

func (t numberTexts) number(f float64) (any, error) {
	text, known := t[f]
	if known && text != several && !math.IsInf(f, 0) {
		return json.Number(text), nil
	}
	shortest, err := json.Marshal(f)
	if err != nil || known && math.Abs(f) > maxExact { // err: it is infinite, or no number
		return nil, ErrAmbiguous
	}
	return json.Number(shortest), nil
}
