package query

import (
	"encoding/json"
	"strings"
)

// What evaluating an expression on a document may take: about a second, and about as
// many bytes. The library can be neither stopped nor told a limit, and all pods of a
// node share the process: without these, 250 bytes of nested map() keep a core busy
// for hours. Both are far above what it takes to get a secret.
const (
	maxEvaluations = 1e6
	maxString      = 128 << 20
)

// cost is how the work of an expression grows with a document, never too little.
//
// Nothing in JMESPath is recursive, and what is evaluated for an element sees that
// element alone. So a value of a document is visited at most as often as the lists
// allow that the expression makes itself: those multiply where one is used inside,
// or on the result, of another, and add up where they stand side by side.
type cost struct {
	// lists is how often a value is visited at most.
	lists float64
	// texts is how many to_string() work on the result of another, each of which
	// escapes what the one before has escaped.
	texts int
	// joins is the same of join(), whose result is as long as the glue is, times the
	// elements of the list.
	joins int
}

// costOf returns the cost of an expression that has been parsed.
func costOf(expression string) cost {
	s := scanner{text: expression}
	return s.group(0)
}

// allows reports whether an expression of this cost and length may be evaluated on a
// document of this size.
func (c cost) allows(document any, length, size int) bool {
	m := measure{longest: length}
	m.add(document)
	evaluations := c.lists * float64(m.values)
	longest := float64(m.longest)
	for i := range c.texts {
		if i == 0 {
			longest = float64(length + size) // it may be of everything
		}
		longest *= maxEscape * c.lists
	}
	for range c.joins {
		longest *= 2 * evaluations
	}
	return evaluations <= maxEvaluations && longest <= maxString
}

// maxEscape is how many bytes one becomes in JSON at most, as in \u0000.
const maxEscape = 6

// comparisons is how often sorting looks at each element of a list, about.
const comparisons = 64

// measure counts the values of a document and finds its longest string.
type measure struct {
	values, longest int
}

func (m *measure) add(value any) {
	m.values++
	switch v := value.(type) {
	case string:
		m.longest = max(m.longest, len(v))
	case json.Number:
		m.longest = max(m.longest, len(v))
	case []any:
		for _, element := range v {
			m.add(element)
		}
	case map[string]any:
		for key, element := range v {
			m.longest = max(m.longest, len(key))
			m.add(element)
		}
	}
}

// scanner reads an expression's brackets and commas.
type scanner struct {
	text string
	at   int
}

// group reads up to the bracket that closes the one opened, or to the end.
func (s *scanner) group(opened byte) cost {
	var before cost // of what stands before the last comma
	now := cost{lists: 1}
	for s.at < len(s.text) {
		c := s.text[s.at]
		s.at++
		switch c {
		case '(', '[', '{':
			now = now.times(s.call(c)).times(s.group(c))
		case ')', ']', '}':
			return before.plus(now)
		case ',':
			if opened != '(' { // the arguments of a function work on each other
				before, now = before.plus(now), cost{lists: 1}
			}
		case '`':
			now.lists *= float64(1 + strings.Count(s.quoted(c), ","))
		case '"', '\'':
			s.quoted(c)
		}
	}
	return before.plus(now)
}

// call is the cost of the function that a bracket calls, beside its arguments'.
func (s *scanner) call(bracket byte) cost {
	before := strings.TrimRight(s.text[:s.at-1], " \t\r\n")
	switch name := before[strings.LastIndexFunc(before, notInName)+1:]; {
	case bracket == '(' && name == "join":
		return cost{lists: 1, joins: 1}
	case bracket == '(' && name == "to_string":
		return cost{lists: 1, texts: 1}
	case bracket == '(' && name == "sort_by":
		return cost{lists: comparisons}
	default:
		return cost{lists: 1}
	}
}

func notInName(r rune) bool {
	return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
}

// quoted reads the rest of something quoted, as the library does: of 'raw' strings a
// backslash escapes the quote alone.
func (s *scanner) quoted(quote byte) string {
	start := s.at
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == quote:
			s.at++
			return s.text[start : s.at-1]
		case c == '\\' && (quote != '\'' || strings.HasPrefix(s.text[s.at+1:], "'")):
			s.at++
		}
	}
	s.at = len(s.text)
	return s.text[start:]
}

func (c cost) plus(other cost) cost {
	return cost{lists: c.lists + other.lists, texts: max(c.texts, other.texts), joins: max(c.joins, other.joins)}
}

func (c cost) times(other cost) cost {
	return cost{lists: c.lists * other.lists, texts: c.texts + other.texts, joins: c.joins + other.joins}
}
