package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

const (
	getParameters      = "GetParameters"
	describeParameters = "DescribeParameters"
	// codeInvalidParameters is for a parameter that an answer lists as such. It is
	// the member's name: AWS gives no code.
	codeInvalidParameters = "InvalidParameters"
)

// selected is how a request names a version of a parameter: name, name:version or
// name:label.
func (r Ref) selected() string {
	switch {
	case r.Version != "":
		return r.ID + ":" + r.Version
	case r.Label != "":
		return r.ID + ":" + r.Label
	default:
		return r.ID
	}
}

// getParameters reads parameters, or without decryption asks for their versions
// only. Their ids are all names, or all ARNs.
func (c *caller) getParameters(ctx context.Context, refs []Ref, decrypt bool) map[Ref]Answer {
	in := &ssm.GetParametersInput{Names: make([]string, len(refs)), WithDecryption: &decrypt}
	for i, ref := range refs {
		in.Names[i] = ref.selected()
	}
	a := newAttempts(ctx)
	out, err := c.clients.parameters.GetParameters(ctx, in, c.forParameters(a))
	if err != nil {
		failure := c.failed(operation{params.ParameterStore, getParameters, ""}, a, err)
		return parametersFailed(failure, refs)
	}
	found := make(map[Ref]Answer, len(refs))
	if len(refs) == 1 {
		found[refs[0]] = c.only(refs[0], out)
		return found
	}
	byName := parametersByName(out.Parameters)
	invalid := make(map[string]bool, len(out.InvalidParameters))
	for _, name := range out.InvalidParameters {
		invalid[name] = true
	}
	for _, ref := range refs {
		if p, ok := byName[ref.selected()]; ok {
			found[ref] = parameterAnswer(p)
		} else if invalid[ref.selected()] {
			found[ref] = c.noParameter(ref)
		}
	}
	return found
}

// parametersFailed is for a request that failed as a whole. One of many may be the
// cause of a refusal: then they are left to be asked for alone.
func parametersFailed(failure *Error, refs []Ref) map[Ref]Answer {
	found := make(map[Ref]Answer, len(refs))
	if len(refs) > 1 && !failure.settles() {
		return found
	}
	for _, ref := range refs {
		found[ref] = Answer{Err: failure.about(ref)}
	}
	return found
}

// only is the answer to a request for one parameter, in whatever way AWS has
// spelt its name.
func (c *caller) only(ref Ref, out *ssm.GetParametersOutput) Answer {
	if len(out.Parameters) != 1 {
		return c.noParameter(ref)
	}
	return parameterAnswer(out.Parameters[0])
}

// parametersByName maps what was asked for to the answers: by name and by ARN,
// each with its selector.
func parametersByName(parameters []types.Parameter) map[string]types.Parameter {
	byName := make(map[string]types.Parameter, 2*len(parameters))
	for _, p := range parameters {
		selector := aws.ToString(p.Selector)
		if selector != "" && !strings.HasPrefix(selector, ":") {
			selector = ":" + selector
		}
		byName[aws.ToString(p.Name)+selector] = p
		byName[aws.ToString(p.ARN)+selector] = p
	}
	return byName
}

// parameterVersion is a parameter's number, with the time at which it got its value:
// one that is deleted and made anew counts anew.
func parameterVersion(p types.Parameter) string {
	number := strconv.FormatInt(p.Version, 10)
	if p.LastModifiedDate == nil {
		return number
	}
	return number + "@" + p.LastModifiedDate.UTC().Format(time.RFC3339Nano)
}

func parameterAnswer(p types.Parameter) Answer {
	return Answer{
		Version:  parameterVersion(p),
		Name:     aws.ToString(p.Name),
		Contents: sdk.NewSecret([]byte(aws.ToString(p.Value))),
	}
}

func (c *caller) noParameter(ref Ref) Answer {
	return Answer{Err: &Error{
		Kind: NotFound, Service: params.ParameterStore, Region: c.region.Name, Operation: getParameters,
		Object: ref.ID, Code: codeInvalidParameters, Message: "there is no parameter " + ref.selected(),
	}}
}
