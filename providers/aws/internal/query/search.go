package query

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// maxResult is how many bytes of JSON an expression may select, about. No document
// of AWS' has more than 64 KiB.
const maxResult = 1 << 20

// What a search can fail with, besides an [*EvaluationError].
var (
	// ErrNotJSON is a document that is none.
	ErrNotJSON = errors.New("the document is not JSON")
	// ErrTooLarge is a result far larger than any document.
	ErrTooLarge = errors.New("the expression selects more than 1 MiB")
	// ErrTooCostly is an expression that takes too long for a document.
	ErrTooCostly = errors.New("the expression takes too long to evaluate: nest less, or store a smaller document")
	// ErrNoValue is a result that JSON does not have, such as a function.
	ErrNoValue = errors.New("the expression selects no JSON value")
	// ErrAmbiguous is a result with a number that float64 does not know, or does
	// not know from another of the document.
	ErrAmbiguous = errors.New("the expression compares or computes, for which the numbers that it selects have too many digits: store them as strings")
)

// EvaluationError is an expression that cannot be evaluated on a document, such as
// abs of a string.
type EvaluationError struct {
	// Reason holds nothing of the document.
	Reason string
}

// Error returns the reason.
func (e *EvaluationError) Error() string { return e.Reason }

// Search evaluates the expression on a JSON document. The value is nil, a bool, a
// string, a json.Number, a []any or a map[string]any; nil is also what is not there.
//
// A number that the expression selects has the text that it has in the document.
// Comparisons and functions work with float64, as in every implementation; what
// they compute has its format.
//
// For that, the expression is evaluated twice: with numbers as float64, which says
// what it selects, and with their texts, as values that the library passes on and
// knows nothing of. If both select the same, the texts are those of the numbers that
// are selected. If not, a number has decided something, and texts are found by value:
// a computed one then has the text of the document's number that is as large.
func (e *Expression) Search(document []byte) (any, error) {
	exact, err := decode(document)
	if err != nil {
		return nil, err
	}
	if !e.cost.allows(exact, e.length, len(document)) {
		return nil, ErrTooCostly
	}
	texts := make(numberTexts)
	floats := texts.floats(exact)
	value, err := e.run(floats)
	if err != nil {
		return nil, err
	}
	if len(texts) > 0 {
		if passed, err := e.run(exact); err == nil && same(passed, value) {
			return plain(passed, nil)
		}
	}
	result, err := plain(value, texts)
	if err == nil && !fits(result) { // numbers can have long texts
		return nil, ErrTooLarge
	}
	return result, err
}

// decode decodes a document afresh for each search: the library sorts in place.
func decode(document []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, ErrNotJSON
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, ErrNotJSON
	}
	return value, nil
}

func (e *Expression) run(document any) (value any, err error) {
	defer func() {
		if recover() != nil {
			value, err = nil, &EvaluationError{Reason: "a function is given what it does not take"}
		}
	}()
	value, err = e.compiled.Search(document)
	if err != nil {
		return nil, &EvaluationError{Reason: reasonOf(err)}
	}
	if !fits(value) {
		return nil, ErrTooLarge
	}
	return value, nil
}

// reasonOf passes on those texts of the library that hold nothing of the document.
func reasonOf(err error) string {
	text := err.Error()
	for _, safe := range []string{"unknown function: ", "Invalid arity", "incorrect number of args", "Invalid slice, step cannot be 0"} {
		if strings.HasPrefix(text, safe) {
			return text
		}
	}
	return "a function is given what it does not take"
}

// fits reports whether a result is small enough. One of a few values can be huge
// when it is written: lists in it may be the same list many times.
func fits(value any) bool {
	budget := maxResult
	return spend(value, &budget)
}

func spend(value any, budget *int) bool {
	switch v := value.(type) {
	case string:
		*budget -= len(v)
	case json.Number:
		*budget -= len(v)
	case []any:
		for _, element := range v {
			if !spend(element, budget) {
				return false
			}
		}
	case map[string]any:
		for key, element := range v {
			*budget -= len(key)
			if !spend(element, budget) {
				return false
			}
		}
	}
	*budget -= 2 // a comma, brackets
	return *budget >= 0
}
