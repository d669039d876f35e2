package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/extract"
	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// loginError says why there is no session, and what to check.
func loginError(ctx context.Context, id session.Identity, err error) error {
	if e := commonError(ctx, "", id.Endpoint, err); e != nil {
		return e
	}
	return sdk.LoginFailed("failed to login to %s at auth/%s with role %q as service account %s/%s: %v. Check that the "+
		"auth method is mounted there, that the role exists, that it is bound to this service account and namespace, "+
		"and that it accepts tokens of audience %q",
		id.Endpoint.Address, id.AuthMount, id.Role, id.Namespace, id.ServiceAccount, err, id.Audience).WithCause(err)
}

// readError says why an object could not be read. Where a request that may
// change something has been sent, nothing is said that makes callers send it
// again at once.
func (f *fetch) readError(ctx context.Context, failed *read) error {
	err := f.objectError(ctx, failed)
	sent := false
	for _, r := range f.reads {
		sent = sent || (!r.request.ReadOnly() && (r.issued || r == failed))
	}
	if e, ok := errors.AsType[*sdk.Error](err); ok && sent && e.Reason == sdk.ReasonStoreUnavailable {
		e.Reason = sdk.ReasonInternal
	}
	return err
}

func (f *fetch) objectError(ctx context.Context, r *read) error {
	if e := commonError(ctx, r.object, f.spec.Endpoint, r.err); e != nil {
		return e
	}
	path := strings.TrimPrefix(r.request.Path, "v1/")
	e, ok := errors.AsType[*store.Error](r.err)
	if !ok {
		return r.err
	}
	switch {
	case e.Status == http.StatusForbidden:
		return sdk.AccessDenied(r.object, "couldn't read secret %q: %v. The policies of role %q must allow %q on %q%s",
			path, e, f.spec.Role, capabilityOf(r.request.Method), path, pathHint(r.request, e)).WithCause(e)
	case e.Deleted:
		return sdk.NotFound(r.object, "couldn't read secret %q: this version of it is deleted", path).WithCause(e)
	case e.Status == http.StatusNotFound, e.Status == http.StatusNoContent:
		return sdk.NotFound(r.object, "couldn't read secret %q: there is nothing at this path (%v)%s",
			path, e, pathHint(r.request, e)).WithCause(e)
	}
	return sdk.InvalidParameters(sdk.FieldViolation{
		Field: fmt.Sprintf("objects[%d]", r.index),
		Description: fmt.Sprintf("couldn't read secret %q: the store refuses the request: %v. Check secretPath, method and secretArgs",
			path, e),
	}).WithCause(e)
}

// commonError says what is wrong with the store or the way to it; nil if it
// has answered.
func commonError(ctx context.Context, object string, ep store.Endpoint, err error) error {
	e, ok := errors.AsType[*store.Error](err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err() // nobody waits for an explanation
	case ctx.Err() != nil:
		return &sdk.Error{
			Reason: sdk.ReasonDeadlineExceeded, Object: object, Err: ctx.Err(),
			Message: fmt.Sprintf("%s did not answer in time", ep.Address),
		}
	case !ok:
		return err
	case e.Misconfigured():
		return sdk.InvalidParameters(sdk.FieldViolation{
			Field: params.CACert, Description: fmt.Sprintf("or another parameter of TLS: %v. Paths are those of the provider's pod", e),
		}).WithCause(e)
	case e.Untrusted():
		return withObject(sdk.StoreUnavailable("the certificate of %s is not trusted: %v. Set %s to a file of the provider's "+
			"pod with the CA's certificate, or mount it and start the provider with --vault-tls-ca-cert", ep.Address, e, params.CACert), object, e)
	case e.Status == 0:
		return withObject(sdk.StoreUnavailable("%s cannot be reached: %v. Check %s and the network", ep.Address, e, params.Address), object, e)
	case e.Status == http.StatusTooManyRequests:
		return sdk.RateLimited(object, e.RetryAfter, "%s asks to slow down: %v", ep.Address, e).WithCause(e)
	case e.Status == http.StatusServiceUnavailable:
		return withObject(sdk.StoreUnavailable("%s is sealed or in maintenance: %v", ep.Address, e), object, e)
	case e.Status >= 500, !e.Refused() && e.Status != http.StatusNoContent:
		return withObject(sdk.StoreUnavailable("%s fails: error requesting secret: %v", ep.Address, e), object, e)
	}
	return nil
}

func withObject(e *sdk.Error, object string, cause error) *sdk.Error {
	e.Object = object
	return e.WithCause(cause)
}

// contentError says why an answer does not give an object's file.
func contentError(o params.Object, r *read, err error) error {
	if _, ok := errors.AsType[*extract.KeyError](err); ok {
		text := ""
		if warnings := r.answer.Warnings(); len(warnings) > 0 {
			text = ". The store warns: " + strings.Join(warnings, "; ")
		}
		return sdk.NotFound(o.Name, "{%s}: %v%s", strings.TrimPrefix(o.Request.Path, "v1/"), err, text)
	}
	if errors.Is(err, extract.ErrEncoding) {
		return sdk.InvalidParameters(sdk.FieldViolation{
			Field: fmt.Sprintf("objects[%q].encoding", o.Name), Description: err.Error(),
		})
	}
	return sdk.Internal("object %q: cannot make a file of the store's answer", o.Name).WithCause(err)
}

func capabilityOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return "read"
	case http.MethodPost, http.MethodPut:
		return "update"
	default:
		return strings.ToLower(method)
	}
}

// pathHint helps with the most common mistake: paths of kv version 2 have a
// "data" after the mount. Where the store does not say so, it may be.
func pathHint(r store.Request, e *store.Error) string {
	path := strings.TrimPrefix(r.Path, "v1/")
	mount, rest, ok := strings.Cut(path, "/")
	if !ok || !r.ReadOnly() || strings.Contains(path, "/data/") || strings.HasPrefix(rest, "metadata/") {
		return ""
	}
	for _, warning := range e.Warnings {
		if strings.Contains(warning, "versioned") {
			return fmt.Sprintf(". The mount is kv version 2: use secretPath %q", mount+"/data/"+rest)
		}
	}
	return fmt.Sprintf(". If the mount is kv version 2, secretPath is %q", mount+"/data/"+rest)
}
