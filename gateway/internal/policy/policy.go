// Package policy says which fetches are allowed, before anything is fetched.
//
// Its rules are written in CEL, the language of Kubernetes' admission policies.
// Each one sees the pod, its service account, the provider and the parameters of
// the SecretProviderClass, and never a token, a secret or a content. All rules
// have to agree, and one that cannot be evaluated does not.
package policy

import (
	"context"
	"fmt"
	"time"

	"cel.dev/cel-go/cel"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

const (
	// checkTimeout bounds all rules together. It is for a processor that has more
	// to do than it can: the cost of each rule is bounded already.
	checkTimeout = 2 * time.Second
	// maxParameters is the size of a class's parameters, names and values, that
	// rules look at. More than a hundred objects fit.
	maxParameters = 128 << 10
)

// Rules are compiled rules. They never change, and are safe for concurrent use.
// The zero value has none, and allows every fetch.
type Rules struct {
	rules []rule
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

// Names returns the rules' names, in the order in which they are asked.
func (r *Rules) Names() []string {
	names := make([]string, len(r.rules))
	for i := range r.rules {
		names[i] = r.rules[i].name
	}
	return names
}

// Check returns nil for a fetch that is allowed, and else an [*rpc.Error] with
// the reason POLICY_DENIED, which names the rule that refuses it. Rules that
// only audit never refuse. If ctx ends, the error is ctx's.
func (r *Rules) Check(ctx context.Context, req *gatewayv1.FetchRequest) error {
	var found *Violation
	err := r.violations(ctx, req, func(v Violation) bool {
		if v.Audited {
			return true
		}
		found = &v
		return false
	})
	if err != nil {
		return err
	}
	if found != nil {
		return found.denial(req)
	}
	return nil
}

// Violation is a rule that a fetch breaks.
type Violation struct {
	// Rule is its name.
	Rule string
	// Audited is set for a rule that only watches: the fetch is allowed.
	Audited bool
	// Explanation says why, or what to do instead.
	Explanation string
}

// violations asks the rules in their order until yield returns false.
func (r *Rules) violations(ctx context.Context, req *gatewayv1.FetchRequest, yield func(Violation) bool) error {
	if len(r.rules) == 0 {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	in := newInput(req)
	for i := range r.rules {
		rule := &r.rules[i]
		explanation, broken := rule.ask(bounded, in)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("ask policy rule %q: %w", rule.name, err)
		}
		if broken && !yield(Violation{Rule: rule.name, Audited: rule.action == audit, Explanation: explanation}) {
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
	value, _, err := e.program.ContextEval(ctx, in)
	if err != nil {
		return false, fmt.Errorf("evaluate: %w", err)
	}
	result, ok := value.Value().(bool)
	if !ok {
		return false, errNoBool
	}
	return result, nil
}
