// Package iam is the part of IAM that decides who may do what: policies, roles,
// users, sessions and OIDC trust, with the texts that AWS refuses with.
package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// policyVersion is that of the policy language in which ${...} is a variable.
const policyVersion = "2012-10-17"

// Policy is a policy document.
type Policy struct {
	Version   string
	ID        string `json:"Id"`
	Statement statements
}

// statements are one or a list of them.
type statements []Statement

// UnmarshalJSON takes both.
func (s *statements) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		data = slices.Concat([]byte("["), data, []byte("]"))
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode((*[]Statement)(s))
}

// Statement is one of a policy.
type Statement struct {
	Sid       string
	Effect    string
	Principal *Principals
	Action    list
	NotAction list

	Resource    list
	NotResource list

	// Condition is by operator and key.
	Condition map[string]map[string]list
}

// list is a string or a list of them.
type list []string

// UnmarshalJSON takes both.
func (l *list) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*l = list{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(l))
}

// Principals are whom a statement of a resource's or a role's policy is for.
type Principals struct {
	AWS, Federated, Service list
}

// UnmarshalJSON takes "*" too.
func (p *Principals) UnmarshalJSON(data []byte) error {
	if string(data) == `"*"` {
		p.AWS = list{"*"}
		return nil
	}
	type plain Principals
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode((*plain)(p))
}

// ParsePolicy reads a role's or a user's own policy.
func ParsePolicy(document []byte) (*Policy, error) {
	return parse(document, func(s Statement) error {
		switch {
		case s.Principal != nil:
			return errors.New("a Principal is for the policies of resources and for trust policies")
		case len(s.Resource) == 0 && len(s.NotResource) == 0:
			return errors.New("no Resource")
		}
		return nil
	})
}

// ParseResourcePolicy reads the policy of a resource.
func ParseResourcePolicy(document []byte) (*Policy, error) {
	return parse(document, func(s Statement) error {
		if s.Principal == nil {
			return errors.New("no Principal")
		}
		return nil
	})
}

// ParseTrust reads a role's trust policy.
func ParseTrust(document []byte) (*Policy, error) {
	return parse(document, func(s Statement) error {
		switch {
		case s.Principal == nil:
			return errors.New("no Principal")
		case len(s.Resource) != 0 || len(s.NotResource) != 0:
			return errors.New("a trust policy has no Resource")
		}
		return nil
	})
}

func parse(document []byte, check func(Statement) error) (*Policy, error) {
	var p Policy
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if p.Version != policyVersion {
		return nil, fmt.Errorf("policy: Version %q, want %s", p.Version, policyVersion)
	}
	for i, s := range p.Statement {
		if err := errors.Join(s.check(), check(s)); err != nil {
			return nil, fmt.Errorf("policy: statement %d %s: %w", i, s.Sid, err)
		}
	}
	return &p, nil
}

// check refuses what IAM would refuse, and what this package cannot evaluate.
func (s Statement) check() error {
	switch {
	case s.Effect != "Allow" && s.Effect != "Deny":
		return fmt.Errorf("effect %q, want Allow or Deny", s.Effect)
	case (len(s.Action) == 0) == (len(s.NotAction) == 0):
		return errors.New("either Action or NotAction has to be there")
	case len(s.Resource) != 0 && len(s.NotResource) != 0:
		return errors.New("the members Resource and NotResource exclude each other")
	}
	for _, action := range slices.Concat(s.Action, s.NotAction) {
		if service, name, ok := strings.Cut(action, ":"); action != "*" && (!ok || service == "" || name == "") {
			return fmt.Errorf("action %q: actions must have a vendor and a name, such as ssm:GetParameters", action)
		}
	}
	for _, resource := range slices.Concat(s.Resource, s.NotResource) {
		if resource != "*" && strings.Count(resource, ":") < 5 {
			return fmt.Errorf("resource %q must be in ARN format or *", resource)
		}
	}
	for operator := range s.Condition {
		if _, ok := parseOperator(operator); !ok {
			return fmt.Errorf("condition operator %q is not known here", operator)
		}
	}
	return nil
}

// Query is a question to a policy.
type Query struct {
	Action   string
	Resource string
	// Context has the values of condition keys, by lower-case key.
	Context map[string]string
}

// Decision is a policy's answer.
type Decision int

// Decisions. An explicit denial outweighs any permission.
const (
	NoStatement Decision = iota
	Allowed
	Denied
)

// Decide answers a question. Applies tells which statements are for the caller.
func (p *Policy) Decide(q Query, applies func(*Principals) bool) Decision {
	decision := NoStatement
	if p == nil {
		return decision
	}
	for _, s := range p.Statement {
		if !applies(s.Principal) || !s.matches(q) {
			continue
		}
		if s.Effect == "Deny" {
			return Denied
		}
		decision = Allowed
	}
	return decision
}

func (s Statement) matches(q Query) bool {
	action := func(pattern string) bool {
		return wildcard(strings.ToLower(pattern), strings.ToLower(q.Action))
	}
	resource := func(pattern string) bool { return matchARN(substitute(pattern, q.Context), q.Resource) }
	switch {
	case len(s.Action) != 0 && !slices.ContainsFunc(s.Action, action):
		return false
	case len(s.NotAction) != 0 && slices.ContainsFunc(s.NotAction, action):
		return false
	case len(s.Resource) != 0 && !slices.ContainsFunc(s.Resource, resource):
		return false
	case len(s.NotResource) != 0 && slices.ContainsFunc(s.NotResource, resource):
		return false
	}
	for operator, keys := range s.Condition {
		compare, ok := parseOperator(operator)
		for key, values := range keys {
			if !ok || !compare.holds(key, values, q.Context) {
				return false
			}
		}
	}
	return true
}

// matchARN matches the parts of an ARN one by one: a wildcard does not reach
// over a colon, but in the last part.
func matchARN(pattern, arn string) bool {
	if pattern == "*" {
		return true
	}
	patterns, parts := strings.SplitN(pattern, ":", 6), strings.SplitN(arn, ":", 6)
	if len(patterns) != len(parts) {
		return false
	}
	for i := range patterns {
		if !wildcard(patterns[i], parts[i]) {
			return false
		}
	}
	return true
}

// wildcard matches a text with a pattern in which * is any text and ? any
// character.
func wildcard(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(t) {
		switch {
		case i < len(p) && (p[i] == '?' || p[i] == t[j]) && p[i] != '*':
			i, j = i+1, j+1
		case i < len(p) && p[i] == '*':
			star, mark, i = i, j, i+1
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(string(p[i:]), "*") == ""
}

// substitute puts the values of policy variables, ${aws:PrincipalTag/x}, into a
// text. A variable without a value matches nothing.
func substitute(text string, context map[string]string) string {
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "${")
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		value, ok := context[strings.ToLower(name)]
		if !ok {
			value = "\x00"
		}
		out.WriteString(value)
		text = after
	}
}
