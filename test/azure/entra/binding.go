package entra

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/token"
)

const bindingAudience = "api://AKSIdentityBinding"

// ServeProxied answers a call that came through AKS' token proxy: the proxy itself
// verifies the pod's token, and asks Entra in the name of the identity.
func (d *Directory) ServeProxied(ctx context.Context, c *api.Call, p control.TokenProxy) api.Answer {
	if p.Authority == "" {
		p.Authority = Public
	}
	if p.Audience == "" {
		p.Audience = bindingAudience
	}
	answer, err := d.serve(ctx, c, request{authority: p.Authority, proxy: &p})
	return d.told(answer, err, p.Authority)
}

// bind verifies that a subject may use an identity. What the proxy says to those
// that may not is not documented: it is an API server's Forbidden here.
func (d *Directory) bind(ctx context.Context, l login, p control.TokenProxy) error {
	if l.form.Get("client_assertion_type") != assertionType || !l.form.Has("client_assertion") {
		return missing("client_assertion")
	}
	claims, err := d.cfg.Verifier.Verify(ctx, l.form.Get("client_assertion"), []string{p.Audience})
	switch {
	case errors.Is(err, token.ErrExpired), errors.Is(err, token.ErrEarly), errors.Is(err, token.ErrAudience),
		errors.Is(err, token.ErrIssuer), errors.Is(err, token.ErrKey), errors.Is(err, token.ErrSignature), errors.Is(err, token.ErrMalformed):
		return refuse(0, "unauthorized", http.StatusUnauthorized, "the token of the service account is refused: %s", err)
	case err != nil:
		return refuse(0, "server_error", http.StatusServiceUnavailable, "%s", err)
	}
	app, ok := d.application(l.tenant.ID, l.form.Get("client_id"))
	if !ok || !slices.Contains(app.Bindings, claims.Subject) {
		return refuse(0, "forbidden", http.StatusForbidden, "%s cannot use-managed-identity resource %s in API group cid.wi.aks.azure.com",
			claims.Subject, l.form.Get("client_id"))
	}
	return nil
}
