package iam

import (
	"slices"
	"strings"
)

// comparison is a condition operator.
type comparison struct {
	match func(want, got string) bool
	// negated: no value may match; a key that is not there is well.
	negated bool
	// ifExists: a key that is not there is well.
	ifExists bool
	// null compares whether the key is there.
	null bool
}

// parseOperator knows the operators for strings and ARNs.
func parseOperator(name string) (comparison, bool) {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "ForAnyValue:"), "ForAllValues:")
	base, ifExists := strings.CutSuffix(name, "IfExists")
	c := comparison{ifExists: ifExists}
	switch base {
	case "StringEquals":
		c.match = func(want, got string) bool { return want == got }
	case "StringEqualsIgnoreCase":
		c.match = strings.EqualFold
	case "StringNotEquals":
		c.match, c.negated = func(want, got string) bool { return want == got }, true
	case "StringLike":
		c.match = wildcard
	case "StringNotLike":
		c.match, c.negated = wildcard, true
	case "ArnEquals", "ArnLike":
		c.match = matchARN
	case "ArnNotEquals", "ArnNotLike":
		c.match, c.negated = matchARN, true
	case "Bool":
		c.match = strings.EqualFold
	case "Null":
		c.null = true
	default:
		return comparison{}, false
	}
	return c, true
}

func (c comparison) holds(key string, values []string, context map[string]string) bool {
	got, ok := context[strings.ToLower(key)]
	if c.null {
		return slices.Contains(values, "true") != ok
	}
	if !ok {
		return c.ifExists || c.negated
	}
	matches := slices.ContainsFunc(values, func(want string) bool { return c.match(substitute(want, context), got) })
	return matches != c.negated
}
