package rules

import (
	"context"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// The bounds of what rules look at, and of what they cost.
const (
	MaxParameters = maxParameters
	MaxCost       = maxCost
	MaxTotalCost  = maxTotalCost
)

// AskFirst asks the first rule alone.
func (s *Set) AskFirst(ctx context.Context, req *gatewayv1.FetchRequest) (explanation string, broken bool) {
	return s.rules[0].ask(ctx, newInput(req))
}

// Cost asks all rules, and returns what that cost and what the last one says.
func (s *Set) Cost(ctx context.Context, req *gatewayv1.FetchRequest) (cost uint64, last string) {
	in := newInput(req)
	for i := range s.rules {
		last, _ = s.rules[i].ask(ctx, in)
	}
	return in.cost, last
}

// CompileWithPanic compiles an expression with a compiler that panics.
func CompileWithPanic() error {
	c := compiler{reader: &reader{}}
	c.expression(text{value: "true", line: 7}, nil, "rule")
	return c.err()
}
