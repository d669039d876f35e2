package sdk

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/internal/redact"
	"github.com/postern-dev/postern/internal/rpc"
)

// Labels of metrics that are no reasons: of a call that did not fail, and of one
// whose caller did not wait for the answer, which is no failure of anybody.
const (
	reasonOK       = "OK"
	reasonCanceled = "CANCELED"
)

// canceled reports whether err says no more than that the caller has left.
func canceled(ctx context.Context, err error) bool {
	_, explained := errors.AsType[*Error](err)
	return !explained && errors.Is(ctx.Err(), context.Canceled)
}

// typed makes an *Error of whatever Fetch, or the sdk around it, has returned.
//
// The text of an error of another type is hidden: such errors come from
// libraries, and those quote what they cannot parse.
func typed(ctx context.Context, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return known(e)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{Reason: ReasonDeadlineExceeded, Message: "the deadline passed before the store answered", Err: err}
	}
	return &Error{
		Reason: ReasonInternal,
		Message: fmt.Sprintf("the provider failed with an error that it does not explain (%s): "+
			"report this to the provider's authors", typeNames(err)),
		Err: err,
	}
}

// known gives an error with a reason that is not in the list ReasonInternal.
func known(e *Error) *Error {
	for _, reason := range Reasons() {
		if e.Reason == reason {
			return e
		}
	}
	c := *e
	c.Reason = ReasonInternal
	return &c
}

// typeNames tells the types of a chain of errors, which is all that can be
// said about it safely.
func typeNames(err error) string {
	var names []string
	for ; err != nil; err = errors.Unwrap(err) {
		names = append(names, fmt.Sprintf("%T", err))
	}
	return strings.Join(names, ": ")
}

// toRPC makes of an error what crosses the gRPC edge. It takes the request's
// own tokens and secrets out of its texts: stores are known to repeat what they
// refuse.
func (s *service) toRPC(ctx context.Context, req *Request, err error) error {
	if canceled(ctx, err) {
		return &rpc.Error{Code: codes.Canceled, Message: "the caller left before the store answered", Err: err}
	}
	e := typed(ctx, err)
	hidden := req.redactor()
	metadata := map[string]string{rpc.MetadataProvider: s.def.Name}
	if req.SecretProviderClass != "" {
		metadata[rpc.MetadataSecretProviderClass] = req.SecretProviderClass
	}
	if e.Object != "" {
		metadata[rpc.MetadataObject] = hidden.Replace(e.Object)
	}
	fields := make([]rpc.FieldViolation, len(e.Fields))
	for i, f := range e.Fields {
		fields[i] = rpc.FieldViolation{Field: hidden.Replace(f.Field), Description: hidden.Replace(f.Description)}
	}
	return &rpc.Error{
		Reason:          string(e.Reason),
		Code:            rpc.CodeOf(string(e.Reason)),
		Message:         hidden.Replace(e.Error()),
		Metadata:        metadata,
		FieldViolations: fields,
		RetryAfter:      e.RetryAfter,
		Err:             e.Err,
	}
}

// minHidden is the length below which a value is no secret worth hiding: one
// of a few letters would be found in every text.
const minHidden = 6

// redactor replaces the request's tokens and secrets.
func (r *Request) redactor() *strings.Replacer {
	var pairs []string
	hide := func(s SecretString) {
		if len(s.Reveal()) >= minHidden {
			pairs = append(pairs, s.Reveal(), redact.Placeholder)
		}
	}
	for _, t := range r.Tokens {
		hide(t.Token)
	}
	for _, s := range r.Secrets {
		hide(s)
	}
	return strings.NewReplacer(pairs...)
}
