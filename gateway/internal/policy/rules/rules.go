// Package rules compiles the rules of a policy, and asks them about fetches.
//
// They are written in CEL, the language of Kubernetes' admission policies. Each
// one sees the pod, its service account, the provider and the parameters of the
// SecretProviderClass, and never a token, a secret or a content. All rules have to
// agree, and one that cannot be evaluated does not.
package rules

import (
	"context"
	"errors"
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/interpreter"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// maxParameters is the size of a class's parameters, names and values, that rules
// look at. More than a hundred objects fit.
const maxParameters = 128 << 10

// Set is compiled rules. It never changes, and is safe for concurrent use. The
// zero value has none, and allows every fetch.
type Set struct {
	rules []rule
}

// Rule tells of a rule what people and metrics want to know.
type Rule struct {
	Name string
	// Audits is set for a rule that refuses nothing.
	Audits bool
}

// rule is one of them, ready to be asked.
type rule struct {
	name string
	// action is what a fetch that breaks the rule gets.
	action action
	// match says whether the rule concerns a fetch; nil for every one.
	match *expression
	// require says whether the fetch keeps to the rule.
	require *expression
	// message, or what its expression makes, tells people what to do instead.
	message           string
	messageExpression *expression
}

// expression is a compiled one, with its text.
type expression struct {
	program cel.Program
	source  string
}

// List returns the rules, in the order in which they are asked.
func (s *Set) List() []Rule {
	list := make([]Rule, len(s.rules))
	for i := range s.rules {
		list[i] = Rule{Name: s.rules[i].name, Audits: s.rules[i].action == audit}
	}
	return list
}

// Names returns their names, in the same order.
func (s *Set) Names() []string {
	names := make([]string, len(s.rules))
	for i := range s.rules {
		names[i] = s.rules[i].name
	}
	return names
}

// Check returns nil for a fetch that is allowed, and else an [*rpc.Error] with
// the reason POLICY_DENIED, which names the rule that refuses it. Rules that
// only audit never refuse. If ctx ends, the error is ctx's.
func (s *Set) Check(ctx context.Context, req *gatewayv1.FetchRequest) error {
	var found *Violation
	err := s.Violations(ctx, req, func(v Violation) bool {
		if v.Audits {
			return true
		}
		found = &v
		return false
	})
	if err != nil {
		return err
	}
	if found != nil {
		return found.Denial(req)
	}
	return nil
}

// Violation is a rule that a fetch breaks.
type Violation struct {
	Rule
	// Explanation says why, or what to do instead.
	Explanation string
}

// Violations asks the rules in their order, and tells of those that the fetch
// breaks until yield returns false. If ctx ends, the error is ctx's.
func (s *Set) Violations(ctx context.Context, req *gatewayv1.FetchRequest, yield func(Violation) bool) error {
	if len(s.rules) == 0 {
		return nil
	}
	in := newInput(req)
	for i := range s.rules {
		rule := &s.rules[i]
		explanation, broken := rule.ask(ctx, in)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("ask policy rule %q: %w", rule.name, err)
		}
		if broken && !yield(Violation{Rule: Rule{Name: rule.name, Audits: rule.action == audit}, Explanation: explanation}) {
			return nil
		}
	}
	return nil
}

// ask reports whether a fetch breaks the rule, and why.
func (r *rule) ask(ctx context.Context, in *input) (explanation string, broken bool) {
	if in.size > maxParameters {
		return fmt.Sprintf("its parameters have more than the %d bytes that can be checked", maxParameters), true
	}
	if r.match != nil {
		concerned, err := r.match.true(ctx, in)
		if err != nil {
			return unevaluated("match", r.match, err), true
		}
		if !concerned {
			return "", false
		}
	}
	kept, err := r.require.true(ctx, in)
	switch {
	case err != nil:
		return unevaluated("require", r.require, err), true
	case kept:
		return "", false
	default:
		return r.explain(ctx, in), true
	}
}

// true evaluates an expression that was compiled as a bool.
func (e *expression) true(ctx context.Context, in *input) (bool, error) {
	value, err := e.evaluate(ctx, in)
	if err != nil {
		return false, err
	}
	result, ok := value.(bool)
	if !ok {
		return false, errNoBool
	}
	return result, nil
}

// evaluate returns an expression's value, within what all of a fetch may cost.
func (e *expression) evaluate(ctx context.Context, in *input) (any, error) {
	if in.cost > maxTotalCost {
		return nil, errTooCostly
	}
	value, details, err := e.program.ContextEval(ctx, in)
	if cost := details.ActualCost(); cost != nil {
		in.cost += *cost
	}
	var cancelled interpreter.EvalCancelledError
	switch {
	case errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded:
		return nil, errTooCostly
	case err != nil:
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	return value.Value(), nil
}
