// Package query selects parts of JSON documents with JMESPath.
//
// It uses github.com/jmespath/go-jmespath, the library of AWS' own provider, so
// that an expression means here what it means there. The community's fork reads
// more, and differently: there db-password is a subtraction, which selects nothing,
// and here a syntax error, which can say what to write; a raw string's \\ is one
// backslash there and two here. Of functions and quoted identifiers both make the
// same, both panic (on a\u0080, for one), and both repeat in their errors the values
// that they have met. So no text of the library's that is made of a document leaves
// this package, and its panics are errors.
//
// Both libraries know numbers as float64 alone, which would change those of secrets:
// 12345678901234567890 becomes another, 1.0 becomes 1, and 1e400 is none. Here a number that
// an expression selects keeps its text, see [Expression.Search].
package query

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jmespath/go-jmespath"
)

// maxExpression bounds how deep an expression can be nested, which the library
// follows by recursion: a stack that overflows would end the process.
const maxExpression = 4096

// Expression is a JMESPath expression. It may be used concurrently.
type Expression struct {
	compiled *jmespath.JMESPath
	length   int
	cost     cost
}

// SyntaxError says why a text is no expression.
type SyntaxError struct {
	Expression string
	// Reason is the library's, or ours.
	Reason string
	// Suggestion is the expression with its keys quoted, if that is one.
	Suggestion string
}

// Error has the text by which users of AWS' own provider know it.
func (e *SyntaxError) Error() string {
	if e.Suggestion != "" {
		return fmt.Sprintf(`Invalid JMES Path: %s. A key that holds "-" must be quoted: %s`, e.Expression, e.Suggestion)
	}
	return fmt.Sprintf("Invalid JMES Path: %s. %s", e.Expression, e.Reason)
}

// Compile parses an expression. The error is a [*SyntaxError].
func Compile(text string) (*Expression, error) {
	if len(text) > maxExpression {
		start := strings.ToValidUTF8(text[:32], "") + "..."
		return nil, &SyntaxError{Expression: start, Reason: fmt.Sprintf("It is longer than %d bytes", maxExpression)}
	}
	compiled, err := parse(text)
	if err == nil {
		e := &Expression{compiled: compiled, length: len(text), cost: costOf(text)}
		if !e.cost.allows(nil, len(text), 0) {
			return nil, &SyntaxError{Expression: text, Reason: "It takes too long to evaluate: nest less"}
		}
		return e, nil
	}
	problem := &SyntaxError{Expression: text, Reason: err.Error()}
	if quoted := quoteKeys(text); quoted != text {
		if _, err := parse(quoted); err == nil {
			problem.Suggestion = quoted
		}
	}
	return nil, problem
}

var errPanic = errors.New("the expression cannot be evaluated")

func parse(text string) (compiled *jmespath.JMESPath, err error) {
	defer func() {
		if recover() != nil {
			compiled, err = nil, errPanic
		}
	}()
	return jmespath.Compile(text)
}

// tokens are what must not be looked into, and keys with a hyphen.
var tokens = regexp.MustCompile("\"(?:\\\\.|[^\"\\\\])*\"|'(?:\\\\.|[^'\\\\])*'|`(?:\\\\.|[^`\\\\])*`" +
	"|[A-Za-z_][A-Za-z0-9_]*(?:-+[A-Za-z0-9_]+)+")

// quoteKeys quotes the keys that hold a hyphen.
func quoteKeys(text string) string {
	return tokens.ReplaceAllStringFunc(text, func(token string) string {
		if strings.ContainsAny(token[:1], "\"'`") {
			return token
		}
		return `"` + token + `"`
	})
}
