package gcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-dev/postern/providers/gcp/internal/extract"
	"github.com/postern-dev/postern/providers/gcp/internal/identity"
	"github.com/postern-dev/postern/providers/gcp/internal/params"
	"github.com/postern-dev/postern/providers/gcp/internal/store"
	"github.com/postern-dev/postern/providers/sdk"
)

// failed says why Google does not give what the class asks for: of the first object
// that it lacks, and which others there are.
func (f *fetch) failed(ctx context.Context, o outcome) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() // nobody waits for an explanation
	}
	if o.err != nil {
		return f.fetchError(ctx, o.err)
	}
	var (
		first  *sdk.Error
		others []string
	)
	for i := range o.objects {
		switch one := &o.objects[i]; {
		case !one.failed():
		case first == nil:
			first = f.objectError(one)
		default:
			others = append(others, one.title)
		}
	}
	if len(others) > 0 {
		first.Message += "; nor can be had: " + strings.Join(others, ", ")
	}
	return first
}

// fetchError says what keeps all objects from being read.
func (f *fetch) fetchError(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*identity.Error](err); ok {
		return f.loginError(e)
	}
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return &sdk.Error{
			Reason: sdk.ReasonDeadlineExceeded, Err: err,
			Message: "Google Cloud did not answer in time: check that the provider's pods reach its endpoints",
		}
	}
	return err
}

// loginError says why a pod gets no access token. What to do stands before what was
// answered, which is long: events of pods are cut off.
func (f *fetch) loginError(e *identity.Error) error {
	what := "unable to obtain auth for mount as " + f.who()
	switch e.Kind {
	case identity.Throttled:
		return sdk.RateLimited("", e.RetryAfter, "%s: Google asks to slow down. %v", what, e).WithCause(e)
	case identity.Unavailable:
		fix := cmp.Or(e.Fix, "Check that the provider's pods reach it")
		return sdk.StoreUnavailable("%s: %s. %v", what, fix, e).WithCause(e)
	case identity.TokenExpired:
		return sdk.TokenInvalid(f.p.federation.audience(), "%s: kubelet sends another with its next call. %v", what, e).WithCause(e)
	default:
		fix := cmp.Or(e.Fix, "Check the workload identity pool, and the annotations of the service account")
		return sdk.LoginFailed("%s: %s. %v", what, fix, e).WithCause(e)
	}
}

// who is the identity of a fetch, for messages.
func (f *fetch) who() string {
	switch f.use.Kind {
	case identity.Provider:
		return "the provider"
	case identity.ServiceAccountKey:
		return "the service account of " + keyFile + " in the Secret of nodePublishSecretRef"
	default:
		return fmt.Sprintf("service account %s/%s", f.use.Subject.Namespace, f.use.Subject.ServiceAccount)
	}
}

// objectError says why one object cannot be had.
func (f *fetch) objectError(one *found) *sdk.Error {
	if e, ok := errors.AsType[*tooManyError](one.err); ok {
		return sdk.InvalidParameters(sdk.FieldViolation{
			Field:       fmt.Sprintf("secrets[%d].limit", one.object.Index),
			Description: fmt.Sprintf("more than %d secrets match %s: narrow it down, or raise the limit", e.limit, one.title),
		}).WithCause(e)
	}
	if errors.Is(one.err, errNoneSelected) {
		return sdk.NotFound(one.title, "no secret matches. Set optional: true if that is right").WithCause(one.err)
	}
	e, ok := errors.AsType[*store.Error](one.err)
	if !ok {
		return sdk.Internal("%s: %v", one.title, one.err).WithCause(one.err)
	}
	switch e.Kind {
	case store.NotFound:
		return sdk.NotFound(one.title, "Check project, name, version and location. %v", e).WithCause(e)
	case store.Disabled:
		return sdk.AccessDenied(one.title, "This version is disabled or destroyed: enable it, or name another. %v", e).WithCause(e)
	case store.Denied:
		return sdk.AccessDenied(one.title, "%s. %v", f.permission(e), e).WithCause(e)
	case store.BadCredentials:
		return sdk.LoginFailed("%s: Google does not accept a token that it has just given: check the node's clock. %v", one.title, e).WithCause(e)
	case store.Throttled:
		return sdk.RateLimited(one.title, e.RetryAfter, "Google asks to slow down, or a quota is used up. %v", e).WithCause(e)
	case store.Unavailable, store.Corrupted:
		unavailable := sdk.StoreUnavailable("Check that the provider's pods reach the endpoint. %v", e)
		unavailable.Object = one.title
		return unavailable.WithCause(e)
	default:
		return sdk.InvalidParameters(sdk.FieldViolation{
			Field: fmt.Sprintf("secrets[%d]", one.object.Index), Description: fmt.Sprintf("%s: %v", one.title, e),
		}).WithCause(e)
	}
}

// permission says what has to be granted, and to whom.
func (f *fetch) permission(e *store.Error) string {
	member := cmp.Or(f.use.Member(), f.who())
	return fmt.Sprintf("Give %s the role %s", member, role(e.Operation))
}

// role is the narrowest predefined one for a permission:
// https://cloud.google.com/secret-manager/docs/access-control
func role(permission string) string {
	switch permission {
	case "secretmanager.versions.access":
		return "roles/secretmanager.secretAccessor on this secret"
	case "secretmanager.secrets.list":
		return "roles/secretmanager.viewer on the project"
	case "parametermanager.parameterVersions.render":
		return "roles/parametermanager.parameterAccessor on the project, and what the parameter refers to has to be readable for the parameter"
	default:
		return "that has " + permission
	}
}

// contentError says why contents do not give the files.
func contentError(one *found, err error) error {
	e, ok := errors.AsType[*extract.Error](err)
	if !ok {
		return sdk.Internal("%s: %v", one.title, err).WithCause(err)
	}
	if e.NothingThere {
		return sdk.NotFound(one.title, "%v", e).WithCause(e)
	}
	return sdk.InvalidParameters(sdk.FieldViolation{
		Field: fmt.Sprintf("secrets[%d]", one.object.Index), Description: fmt.Sprintf("%s: %v", one.title, e),
	}).WithCause(e)
}

// nameTaken does not say which file it is: it may be named after a key of the secret.
func nameTaken(owner string, one *found) error {
	return sdk.InvalidParameters(sdk.FieldViolation{
		Field:       fmt.Sprintf("secrets[%d]", one.object.Index),
		Description: fmt.Sprintf("%s and %s would write the same file: set another path for one of them", owner, one.title),
	})
}

// nothingThere is for a class of optional objects alone.
func nothingThere(spec *params.Spec) error {
	titles := make([]string, len(spec.Secrets))
	for i, o := range spec.Secrets {
		titles[i] = o.Title()
	}
	return sdk.NotFound(titles[0], "none of the optional objects is there, and a volume is never empty: %s", strings.Join(titles, ", "))
}
