package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-dev/postern/providers/aws/internal/extract"
	"github.com/postern-dev/postern/providers/aws/internal/identity"
	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/aws/internal/store"
	"github.com/postern-dev/postern/providers/sdk"
)

// failed says why a region does not give what the class asks for: of the first
// object that it lacks, and which others there are.
func (f *fetch) failed(ctx context.Context, o outcome) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() // nobody waits for an explanation
	}
	if o.err != nil {
		return f.regionError(ctx, o)
	}
	var (
		first  *sdk.Error
		others []string
	)
	for _, objects := range o.objects {
		for i := range objects {
			switch one := &objects[i]; {
			case !one.failed():
			case first == nil:
				first = f.objectError(one)
			default:
				others = append(others, one.name)
			}
		}
	}
	if len(others) > 0 {
		first.Message += "; nor can be had: " + strings.Join(others, ", ")
	}
	return first
}

// bothFailed says why neither region gives it. What is to be done is said by the
// failover region, which works or has the same trouble.
func (f *fetch) bothFailed(ctx context.Context, first, second outcome) error {
	why := f.failed(ctx, second)
	e, ok := errors.AsType[*sdk.Error](why)
	if !ok {
		return why
	}
	both := *e
	both.Message = fmt.Sprintf("Failed to fetch secret from all regions. Verify secret exists and required permissions "+
		"are granted for: %s; %v; then %s", first.firstName(f.spec), f.failed(ctx, first), e.Message)
	return &both
}

// firstName is the first object that an outcome lacks.
func (o outcome) firstName(spec *params.Spec) string {
	for _, objects := range o.objects {
		for i := range objects {
			if objects[i].failed() {
				return objects[i].name
			}
		}
	}
	return spec.Objects[0].Name()
}

// regionError says what keeps all objects of a region from being read.
func (f *fetch) regionError(ctx context.Context, o outcome) error {
	if e, ok := errors.AsType[*identity.Error](o.err); ok {
		return f.loginError(o.region, e)
	}
	if e, ok := errors.AsType[*store.Error](o.err); ok {
		return f.objectError(&found{object: f.spec.Objects[0], region: o.region, name: f.spec.Objects[0].Name(), err: e})
	}
	if ctx.Err() != nil || errors.Is(o.err, context.DeadlineExceeded) {
		return &sdk.Error{
			Reason: sdk.ReasonDeadlineExceeded, Err: o.err,
			Message: fmt.Sprintf("%s: AWS did not answer in time: check that the provider's pods reach its endpoints", o.region),
		}
	}
	return o.err
}

// loginError says why a pod gets no credentials.
func (f *fetch) loginError(region string, e *identity.Error) error {
	who := fmt.Sprintf("service account %s/%s", f.use.Subject.Namespace, f.use.Subject.ServiceAccount)
	what, fix := "assume role "+f.use.RoleARN, "Check that the role exists, that its trust policy names the cluster's OIDC "+
		"provider, sts:AssumeRoleWithWebIdentity, the subject system:serviceaccount:"+f.use.Subject.Namespace+":"+
		f.use.Subject.ServiceAccount+" and the audience "+audienceSTS+", and that the OIDC provider is there in IAM"
	if f.use.PodIdentity {
		what, fix = "get credentials of the EKS Pod Identity agent", "Check that the Amazon EKS Pod Identity Agent runs on this "+
			"node and that the cluster has a Pod Identity association of the service account"
	}
	switch e.Kind {
	case identity.Throttled:
		return sdk.RateLimited("", e.RetryAfter, "%s: AWS asks to slow down: failed to %s as %s: %v", region, what, who, e).WithCause(e)
	case identity.Unavailable:
		return sdk.StoreUnavailable("%s: failed to %s as %s: %v. Check that the provider's pods reach it", region, what, who, e).WithCause(e)
	case identity.TokenExpired:
		return sdk.TokenInvalid(f.audience(), "failed to %s: %v: kubelet sends another with its next call", what, e).WithCause(e)
	default:
		return sdk.LoginFailed("%s: failed to %s as %s: %v. %s", region, what, who, e, fix).WithCause(e)
	}
}

func (f *fetch) audience() string {
	if f.use.PodIdentity {
		return audiencePodIdentity
	}
	return audienceSTS
}

// objectError says why one object cannot be had.
func (f *fetch) objectError(one *found) *sdk.Error {
	if e, ok := errors.AsType[*tooManyError](one.err); ok {
		return sdk.InvalidParameters(sdk.FieldViolation{
			Field:       fmt.Sprintf("objects[%d].limit", one.object.Index),
			Description: fmt.Sprintf("more than %d objects match %s: narrow it down, or raise the limit", e.limit, one.name),
		}).WithCause(e)
	}
	if errors.Is(one.err, errNoneSelected) {
		return sdk.NotFound(one.name, "%s: nothing matches, or nothing that the role may list. Set optional: true if that is right", one.region).WithCause(one.err)
	}
	e, ok := errors.AsType[*store.Error](one.err)
	if !ok {
		return sdk.Internal("%s: %s: %v", one.region, one.name, one.err).WithCause(one.err)
	}
	text := fetching(one, e)
	switch e.Kind {
	case store.NotFound:
		return sdk.NotFound(one.name, "%s. Check the name, the region and the version or label; a secret that is marked for "+
			"deletion is not there either", text).WithCause(e)
	case store.Denied:
		return sdk.AccessDenied(one.name, "%s. %s", text, f.permission(one, e)).WithCause(e)
	case store.BadCredentials:
		return sdk.LoginFailed("%s. AWS does not accept credentials that it has just given: check the node's clock, and that "+
			"the role has not been changed a moment ago", text).WithCause(e)
	case store.Throttled:
		return sdk.RateLimited(one.name, e.RetryAfter, "%s. AWS asks to slow down", text).WithCause(e)
	case store.Unavailable:
		unavailable := sdk.StoreUnavailable("%s. Check that the provider's pods reach the endpoints of %s in %s", text, e.Service, one.region)
		unavailable.Object = one.name
		return unavailable.WithCause(e)
	default:
		return sdk.InvalidParameters(sdk.FieldViolation{
			Field: fmt.Sprintf("objects[%d]", one.object.Index), Description: text,
		}).WithCause(e)
	}
}

// fetching is what failed, in the words that users of ASCP know.
func fetching(one *found, e *store.Error) string {
	said := e.Message
	if e.Code != "" {
		said = e.Code + ": " + said
	}
	switch {
	case one.object.Service == params.ParameterStore && e.Kind == store.NotFound:
		return fmt.Sprintf("400: %s: invalid parameters: %s", one.region, one.ref.ID)
	case one.object.Service == params.ParameterStore:
		return fmt.Sprintf("%s: Failed fetching parameters: %s", one.region, said)
	default:
		return fmt.Sprintf("%s: Failed fetching secret %s: %s", one.region, one.name, said)
	}
}

// permission says what the role's policy has to allow.
func (f *fetch) permission(one *found, e *store.Error) string {
	role := "the role of the Pod Identity association"
	if !f.use.PodIdentity {
		role = "role " + f.use.RoleARN
	}
	if ofKey(e) {
		return fmt.Sprintf("The policy of %s, and that of the key, must allow kms:Decrypt with the key that encrypts it", role)
	}
	on := one.ref.ID
	if one.object.Select != nil && on == "" {
		on = `"*", which is the only resource that AWS knows for it`
	}
	return fmt.Sprintf("The policy of %s must allow %s:%s on %s; a resource policy, an endpoint policy or an organization's "+
		"may deny it, too", role, e.Service, e.Operation, on)
}

// ofKey reports whether it is the key that may not be used.
func ofKey(e *store.Error) bool {
	said := strings.ToLower(e.Message)
	return e.Code == "DecryptionFailure" || e.Code == "InvalidKeyId" ||
		strings.Contains(said, "kms") || strings.Contains(said, "master key")
}

// contentError says why contents do not give the files.
func contentError(one *found, err error) error {
	e, ok := errors.AsType[*extract.Error](err)
	if !ok {
		return sdk.Internal("%s: %v", one.name, err).WithCause(err)
	}
	if e.NothingThere {
		return sdk.NotFound(one.name, "%s: %v", one.region, e).WithCause(e)
	}
	return sdk.InvalidParameters(sdk.FieldViolation{
		Field: fmt.Sprintf("objects[%d].jmesPath", one.object.Index), Description: fmt.Sprintf("%s: %v", one.region, e),
	}).WithCause(e)
}

// nameTaken does not say which file it is: it may be named after a key of the secret.
func nameTaken(owner string, one *found) error {
	return sdk.InvalidParameters(sdk.FieldViolation{
		Field:       fmt.Sprintf("objects[%d]", one.object.Index),
		Description: fmt.Sprintf("Name already in use for objectAlias: %s and %s would write the same file", owner, one.name),
	})
}

// nothingThere is for a class of optional objects alone.
func nothingThere(spec *params.Spec) error {
	names := make([]string, len(spec.Objects))
	for i, o := range spec.Objects {
		names[i] = o.Name()
	}
	return sdk.NotFound(names[0], "none of the optional objects is there, and a volume is never empty: %s", strings.Join(names, ", "))
}
