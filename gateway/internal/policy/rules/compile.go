package rules

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"
)

// Limits of one expression. They are for what people write by mistake and for
// parameters that are made to be slow to look at.
const (
	// maxExpression is its length in characters.
	maxExpression = 10_000
	// maxNesting is how deep comprehensions (all, exists, map) are nested.
	maxNesting = 3
	// maxCost is what one evaluation may cost, in CEL's units: a step of a loop
	// costs some five, and takes two microseconds.
	maxCost = 50_000
	// maxTotalCost is what all rules of a fetch may cost, before the last of them
	// is asked.
	maxTotalCost = 4 * maxCost
	// maxRange is the longest list that lists.range makes.
	maxRange = 1_000
	// interruptFrequency is after how many steps of a comprehension the context
	// is looked at.
	interruptFrequency = 100
)

// Compile reads rules and checks them whole. The error is a [*SourceError] with
// all that is wrong.
func Compile(source []byte) (*Set, error) {
	var r reader
	sources := r.read(source)
	if len(sources) == 0 { // nothing of CEL is made for nothing
		if err := r.err(); err != nil {
			return nil, err
		}
		return &Set{}, nil
	}
	env, err := newEnv()
	if err != nil {
		return nil, err
	}
	c := compiler{reader: &r, env: env}
	rules := make([]rule, 0, len(sources))
	for i, s := range sources {
		rules = append(rules, c.compile(s, i))
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return &Set{rules: rules}, nil
}

// newEnv returns the dialect: what Kubernetes' admission policies have of the
// language and of cel-go's own extensions.
func newEnv() (*cel.Env, error) {
	options := slices.Concat(variables(), []cel.EnvOption{
		cel.OptionalTypes(),
		ext.Strings(),
		ext.Lists(ext.ListsMaxRangeSize(maxRange)),
		ext.Sets(),
		ext.Regex(),
		ext.TwoVarComprehensions(),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.EagerlyValidateDeclarations(true),
		// has() of a field of what is no mapping is an error, not false.
		cel.EnableErrorOnBadPresenceTest(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(),
			cel.ValidateTimestampLiterals(),
			cel.ValidateRegexLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(),
			cel.ValidateComprehensionNestingLimit(maxNesting),
		),
	})
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	return env, nil
}

// compiler turns sources into rules, and tells the reader what is wrong.
type compiler struct {
	*reader
	env *cel.Env
}

func (c *compiler) compile(s ruleSource, index int) rule {
	compiled := rule{
		name:    s.name,
		action:  cmp.Or(action(s.fields[fieldAction].value), deny),
		message: clean(s.fields[fieldMessage].value),
	}
	what := fmt.Sprintf("rule %q", s.name)
	if s.name == "" {
		what = fmt.Sprintf("rule %d", index+1)
	}
	for _, field := range []struct {
		name string
		kind *cel.Type
		into **expression
	}{
		{fieldMatch, cel.BoolType, &compiled.match},
		{fieldRequire, cel.BoolType, &compiled.require},
		{fieldMessageExpression, cel.StringType, &compiled.messageExpression},
	} {
		if source, ok := s.fields[field.name]; ok {
			*field.into = c.expression(source, field.kind, what+": "+field.name)
		}
	}
	return compiled
}

// expression compiles one that has to be of a type; nil if it cannot be.
func (c *compiler) expression(source text, kind *cel.Type, what string) *expression {
	ast, program, err := c.program(source.value)
	var issues *issuesError
	switch {
	case errors.As(err, &issues):
		for _, issue := range issues.list {
			c.failf(source.line, "%s: %d:%d: %s", what, issue.Location.Line(), issue.Location.Column()+1, clean(issue.Message))
		}
		return nil
	case err != nil:
		c.failf(source.line, "%s: %s", what, clean(err.Error()))
		return nil
	case !ast.OutputType().IsExactType(kind):
		c.failf(source.line, "%s is of type %s, and has to be %s", what, ast.OutputType(), kind)
		return nil
	}
	return &expression{program: program, source: source.value}
}

// issuesError is what CEL finds wrong with an expression.
type issuesError struct{ list []*cel.Error }

func (*issuesError) Error() string { return "the expression is wrong" }

// program compiles an expression. A panic of CEL's compiler is an error of the
// expression: rules are compiled while the gateway runs, too.
func (c *compiler) program(source string) (ast *cel.Ast, program cel.Program, err error) {
	defer func() {
		if failure := recover(); failure != nil {
			err = fmt.Errorf("CEL cannot compile it: %v", failure)
		}
	}()
	ast, issues := c.env.Compile(source)
	if issues.Err() != nil {
		return nil, nil, &issuesError{list: issues.Errors()}
	}
	program, err = c.env.Program(ast,
		cel.EvalOptions(cel.OptOptimize),
		cel.CostLimit(maxCost),
		cel.InterruptCheckFrequency(interruptFrequency),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("plan it: %w", err)
	}
	return ast, program, nil
}
