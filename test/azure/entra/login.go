package entra

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/token"
)

const (
	exchangeAudience = "api://AzureADTokenExchange"
	assertionType    = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	scopeSuffix      = "/.default"
)

// login is a request for an access token.
type login struct {
	tenant control.Tenant
	form   url.Values
	// binding says that AKS' token proxy asks: it has verified the subject.
	binding bool
}

// token gives a client an access token.
func (d *Directory) token(ctx context.Context, l login) (Issued, error) {
	if got := l.form.Get("grant_type"); got != "client_credentials" {
		return Issued{}, badRequest(70003, "unsupported_grant_type", "The app requested an unsupported grant type '%s'.", got)
	}
	clientID := l.form.Get("client_id")
	if clientID == "" {
		return Issued{}, missing("client_id")
	}
	resource, err := d.resource(l)
	if err != nil {
		return Issued{}, err
	}
	app, ok := d.application(l.tenant.ID, clientID)
	if !ok {
		return Issued{}, badRequest(700016, "unauthorized_client", "Application with identifier '%s' was not found in the directory '%s'. "+
			"This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. "+
			"You may have sent your authentication request to the wrong tenant.", clientID, l.tenant.ID)
	}
	if err := d.authenticate(ctx, l, app); err != nil {
		return Issued{}, err
	}
	switch {
	case app.NoServicePrincipal:
		return Issued{}, refuse(7000229, "unauthorized_client", http.StatusUnauthorized, "The client application %s is missing service principal in the tenant %s. "+
			"See instructions here: https://go.microsoft.com/fwlink/?linkid=2225119", clientID, l.tenant.ID)
	case !d.cfg.Resource(resource):
		return Issued{}, badRequest(500011, "invalid_resource", "The resource principal named %s was not found in the tenant named %s. "+
			"This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. "+
			"You might have sent your authentication request to the wrong tenant.", resource, l.tenant.ID)
	}
	return d.Issue(Subject{Tenant: l.tenant.ID, ClientID: app.ClientID, ObjectID: app.ObjectID, Resource: resource})
}

// resource returns what the access token is to be for.
func (d *Directory) resource(l login) (string, error) {
	if !l.form.Has("scope") {
		if l.tenant.ID == ADFS && l.form.Has("resource") {
			return l.form.Get("resource"), nil
		}
		return "", missing("scope")
	}
	// MSAL asks for these with everything.
	scopes := slices.DeleteFunc(strings.Fields(l.form.Get("scope")), func(s string) bool {
		return s == "openid" || s == "offline_access" || s == "profile"
	})
	if len(scopes) != 1 {
		return "", badRequest(70011, "invalid_scope", "The provided request must include a 'scope' input parameter. "+
			"The provided value for the input parameter 'scope' is not valid. The scope %s is not valid.", l.form.Get("scope"))
	}
	resource, ok := strings.CutSuffix(scopes[0], scopeSuffix)
	if !ok {
		return "", badRequest(1002012, "invalid_scope", "The provided value for scope %s is not valid. Client credential flows must have a scope value "+
			"with /.default suffixed to the resource identifier (application ID URI).", scopes[0])
	}
	return resource, nil
}

func (d *Directory) authenticate(ctx context.Context, l login, app control.Application) error {
	switch {
	case l.binding:
		return nil
	case l.form.Has("client_assertion"):
		if l.form.Get("client_assertion_type") != assertionType {
			return badRequest(900144, "invalid_request", "The request body must contain the following parameter: 'client_assertion_type' with value '%s'.", assertionType)
		}
		return d.assertion(ctx, app, l.form.Get("client_assertion"))
	case l.form.Has("client_secret"):
		return d.secret(app, l.form.Get("client_secret"))
	default:
		return badClient(7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	}
}

func (d *Directory) secret(app control.Application, value string) error {
	for _, s := range app.Secrets {
		if subtle.ConstantTimeCompare([]byte(s.Value), []byte(value)) != 1 {
			continue
		}
		if !s.Expires.IsZero() && !d.cfg.Now().Before(s.Expires) {
			return badClient(7000222, "The provided client secret keys for app '%s' are expired. Visit the Azure portal to create new keys for your app: "+
				"https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds.", app.ClientID)
		}
		return nil
	}
	return badClient(7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, "+
		"not the client secret ID, for a secret added to app '%s'.", app.ClientID)
}

// assertion verifies a federated one.
func (d *Directory) assertion(ctx context.Context, app control.Application, raw string) error {
	claims, err := token.Peek(raw)
	if err != nil {
		return badRequest(50027, "invalid_request", "JWT token is invalid or malformed.")
	}
	if err := match(app, claims); err != nil {
		return err
	}
	_, err = d.cfg.Verifier.Authenticate(ctx, raw)
	switch {
	case errors.Is(err, token.ErrUnreachable), errors.Is(err, token.ErrIssuer):
		return badRequest(50166, "invalid_request", "Request to External OIDC endpoint failed.")
	case errors.Is(err, token.ErrKey):
		return badClient(700027, "The certificate with identifier used to sign the client assertion is not registered on application. "+
			"[Reason - The key was not found.]")
	case err != nil:
		return badClient(700027, "Client assertion contains an invalid signature. [Reason - The provided signature value did not match the expected signature value.]")
	}
	if d.cfg.Verifier.Current(claims) != nil {
		stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }
		return badClient(700024, "Client assertion is not within its valid time range. Current time: %s, assertion valid from %s, expiry time of assertion %s. "+
			"Review the documentation at https://docs.microsoft.com/azure/active-directory/develop/active-directory-certificate-credentials .",
			stamp(d.cfg.Now()), stamp(time.Unix(claims.NotBefore, 0)), stamp(time.Unix(claims.Expiry, 0)))
	}
	return nil
}

// match looks for the federated credential of an assertion.
func match(app control.Application, claims token.Claims) error {
	left := app.FederatedCredentials
	if len(left) == 0 {
		return badClient(70025, "The client '%s' has no configured federated identity credentials.", app.ClientID)
	}
	narrow := func(is func(control.FederatedCredential) bool) bool {
		before := left
		left = nil
		for _, c := range before {
			if is(c) {
				left = append(left, c)
			}
		}
		return len(left) > 0
	}
	if !narrow(func(c control.FederatedCredential) bool { return c.Issuer == claims.Issuer }) {
		return mismatch(700211, "issuer", claims.Issuer)
	}
	sameBut := slices.ContainsFunc(left, func(c control.FederatedCredential) bool { return strings.EqualFold(c.Subject, claims.Subject) })
	if !narrow(func(c control.FederatedCredential) bool { return c.Subject == claims.Subject }) {
		if sameBut {
			return mismatch(7002138, "subject", claims.Subject)
		}
		return mismatch(700213, "subject", claims.Subject)
	}
	if !narrow(func(c control.FederatedCredential) bool { return slices.Contains(claims.Audience, c.Audience) }) {
		return mismatch(700212, "audience", strings.Join(claims.Audience, ","))
	}
	return nil
}

func mismatch(number int, what, value string) error {
	note := ""
	if number == 7002138 {
		note = "Please note that the matching is case-sensitive. "
	}
	return badClient(number, "No matching federated identity record found for presented assertion %s '%s'. %s"+
		"Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. "+
		"https://docs.microsoft.com/azure/active-directory/develop/workload-identity-federation", what, value, note)
}
