package azure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/postern-dev/postern/providers/azure/internal/identity"
	"github.com/postern-dev/postern/providers/azure/internal/keyvault"
	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// failed says why the vault does not give what the class asks for: of the first
// object that it lacks, and which others there are.
func (f *fetch) failed(ctx context.Context, o outcome) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() // nobody waits for an explanation
	}
	if o.err != nil {
		return f.vaultError(ctx, o.err)
	}
	var (
		first  error
		others []string
	)
	for i := range o.objects {
		switch one := &o.objects[i]; {
		case !one.failed():
		case first == nil:
			first = f.objectError(ctx, one)
		default:
			others = append(others, one.title)
		}
	}
	if e, ok := errors.AsType[*sdk.Error](first); ok && len(others) > 0 {
		more := *e
		more.Message += "; nor can be had: " + strings.Join(others, ", ")
		return &more
	}
	return first
}

// vaultError says what keeps all objects from being read.
func (f *fetch) vaultError(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*identity.Error](err); ok {
		return f.loginError(e)
	}
	if e, ok := errors.AsType[*identity.ScopeError](err); ok {
		return f.elsewhere(e)
	}
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return &sdk.Error{
			Reason: sdk.ReasonDeadlineExceeded, Err: err,
			Message: fmt.Sprintf("%s: Azure did not answer in time: check that the provider's pods reach Entra and the vault", f.spec.VaultURL),
		}
	}
	return err
}

// elsewhere says that the vault trusts another tenant than the class names.
func (f *fetch) elsewhere(e *identity.ScopeError) error {
	return sdk.LoginFailed("%s: %v. Check tenantID, cloudName and keyvaultName: the vault belongs to one tenant of one cloud",
		f.spec.VaultURL, e).WithCause(e)
}

// loginError says why a pod gets no access token. What to do stands before what was
// answered, which is long: events of pods are cut off.
func (f *fetch) loginError(e *identity.Error) error {
	what := fmt.Sprintf("failed to acquire a token of %s as %s", f.use.Cloud.AuthorityHost, f.who())
	switch e.Kind {
	case identity.Throttled:
		return sdk.RateLimited("", e.RetryAfter, "%s: Entra asks to slow down. %v", what, e).WithCause(e)
	case identity.Unavailable:
		fix := cmp.Or(e.Fix, "Check that the provider's pods reach it")
		return sdk.StoreUnavailable("%s: %s. %v", what, fix, e).WithCause(e)
	case identity.TokenExpired:
		return sdk.TokenInvalid(f.audience(), "%s: kubelet sends another with its next call. %v", what, e).WithCause(e)
	default:
		fix := cmp.Or(e.Fix, "Check tenantID, clientID and cloudName")
		return sdk.LoginFailed("%s: %s. %v", what, fix, e).WithCause(e)
	}
}

// who is the identity of a fetch, for messages.
func (f *fetch) who() string {
	account := "service account " + f.use.Subject.Namespace + "/" + f.use.Subject.ServiceAccount
	switch f.use.Kind {
	case identity.ServicePrincipal:
		return fmt.Sprintf("service principal %s of tenant %s", f.use.ClientID, f.use.TenantID)
	case identity.ManagedIdentity:
		if f.use.ClientID == "" {
			return "the node's system-assigned identity"
		}
		return "the node's identity " + f.use.ClientID
	case identity.PodIdentity:
		return "the AAD Pod Identity of pod " + f.use.Subject.Namespace + "/" + f.use.PodName
	default:
		return fmt.Sprintf("client %s of tenant %s for %s", f.use.ClientID, f.use.TenantID, account)
	}
}

func (f *fetch) audience() string {
	if f.use.Kind == identity.IdentityBinding {
		return audienceBinding
	}
	return audienceExchange
}

// objectError says why one object cannot be had.
func (f *fetch) objectError(ctx context.Context, one *found) error {
	if e, ok := errors.AsType[*tooManyError](one.err); ok {
		return sdk.InvalidParameters(sdk.FieldViolation{
			Field:       fmt.Sprintf("objects[%d].limit", one.object.Index),
			Description: fmt.Sprintf("more than %d objects match %s: narrow it down, or raise the limit", e.limit, one.title),
		}).WithCause(e)
	}
	if errors.Is(one.err, errNoneSelected) {
		return sdk.NotFound(one.title, "%s: no %s matches. Set optional: true if that is right", f.spec.VaultURL, one.object.Type).WithCause(one.err)
	}
	e, ok := errors.AsType[*keyvault.Error](one.err)
	if !ok {
		return f.vaultError(ctx, one.err)
	}
	if other, ok := errors.AsType[*identity.ScopeError](e); ok {
		return f.elsewhere(other)
	}
	switch e.Kind {
	case keyvault.NotFound:
		return sdk.NotFound(one.title, "%s", explain(one, e, "Check objectName, objectType and objectVersion; what was deleted is "+
			"not there either, even if it can be recovered")).WithCause(e)
	case keyvault.Disabled:
		return sdk.AccessDenied(one.title, "%s", explain(one, e, "It, or this version of it, is disabled: enable it, or name "+
			"another version")).WithCause(e)
	case keyvault.Denied:
		return sdk.AccessDenied(one.title, "%s", explain(one, e, f.permission(e))).WithCause(e)
	case keyvault.BadCredentials:
		return sdk.LoginFailed("%s", explain(one, e, "The vault does not accept a token that Entra has just given: check the "+
			"node's clock, and that the vault is one of tenant "+f.use.TenantID)).WithCause(e)
	case keyvault.Throttled:
		return sdk.RateLimited(one.title, e.RetryAfter, "%s", explain(one, e, "The vault asks to slow down")).WithCause(e)
	case keyvault.Unavailable:
		unavailable := sdk.StoreUnavailable("%s", explain(one, e, "Check keyvaultName and cloudName, and that the provider's pods "+
			"reach the vault"))
		unavailable.Object = one.title
		return unavailable.WithCause(e)
	default:
		return sdk.InvalidParameters(sdk.FieldViolation{
			Field: fmt.Sprintf("objects[%d]", one.object.Index), Description: explain(one, e, "The vault does not take this"),
		}).WithCause(e)
	}
}

// explain says what failed, in the words that users of the upstream provider know,
// what to do, and last, as events of pods are cut off, what the vault said.
func explain(one *found, e *keyvault.Error, advice string) string {
	return fmt.Sprintf("failed to get objectType:%s, objectName:%s, objectVersion:%s: %s. %v",
		one.object.Type, one.title, one.object.Version, advice, e)
}

// permission says what has to be allowed, and where.
func (f *fetch) permission(e *keyvault.Error) string {
	switch {
	case e.Status == http.StatusUnauthorized:
		return "Check keyvaultName and cloudName"
	case e.InnerCode == "ForbiddenByFirewall", e.InnerCode == "ForbiddenByConnection":
		return "The vault's network rules refuse the node's address: add it, or use a private endpoint"
	case e.InnerCode == "ForbiddenByPolicy", e.InnerCode == "AccessDenied":
		object, operation, _ := strings.Cut(e.Operation, "/")
		return fmt.Sprintf("The vault has access policies, and must have one that gives %s the permission %s of %s", f.who(), operation, object)
	default:
		return fmt.Sprintf("Give %s the role %q%s", f.who(), role(e.Operation), scope(e.Operation))
	}
}

// scope is where a role has to be given: for a list, all of the vault.
func scope(operation string) string {
	if strings.HasSuffix(operation, "/list") {
		return " on the whole vault"
	}
	return " on this object, or on the vault"
}

// role is the narrowest built-in one for an operation:
// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/security
func role(operation string) string {
	if strings.HasPrefix(operation, "secrets/") {
		return "Key Vault Secrets User"
	}
	return "Key Vault Reader" // of keys and certificates, what is public
}

// contentError says why an object does not give the files.
func contentError(one *found, err error) error {
	return sdk.InvalidParameters(sdk.FieldViolation{
		Field: fmt.Sprintf("objects[%d]", one.object.Index), Description: fmt.Sprintf("%s %s: %v", one.object.Type, one.title, err),
	}).WithCause(err)
}

func nameTaken(owner, path string, one *found) error {
	return sdk.InvalidParameters(sdk.FieldViolation{
		Field:       fmt.Sprintf("objects[%d]", one.object.Index),
		Description: fmt.Sprintf("%s and %s would write the same file %s: set another objectAlias for one of them", owner, one.title, path),
	})
}

// nothingThere is for a class of optional objects alone.
func nothingThere(spec *params.Spec) error {
	titles := make([]string, len(spec.Objects))
	for i, o := range spec.Objects {
		titles[i] = o.Title()
	}
	return sdk.NotFound(titles[0], "none of the optional objects is there, and a volume is never empty: %s", strings.Join(titles, ", "))
}
