package entra

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
)

// route is what a path asks for.
type route struct {
	operation, tenant string
	method            string
}

// keysOperation is what clients read that verify access tokens themselves.
const keysOperation = "keys"

// routeOf reads a path.
func routeOf(path string) (route, bool) {
	parts := strings.SplitN(strings.TrimPrefix(path, "/"), "/", 2)
	if len(parts) != 2 {
		return route{}, false
	}
	tenant, rest := parts[0], parts[1]
	if path == "/common/discovery/instance" {
		return route{control.InstanceDiscovery, "", http.MethodGet}, true
	}
	if tenant == ADFS {
		switch rest {
		case ".well-known/openid-configuration":
			return route{control.OpenIDConfiguration, ADFS, http.MethodGet}, true
		case "oauth2/token":
			return route{control.Token, ADFS, http.MethodPost}, true
		case "discovery/keys":
			return route{keysOperation, ADFS, http.MethodGet}, true
		}
		return route{}, false
	}
	switch rest {
	case "v2.0/.well-known/openid-configuration":
		return route{control.OpenIDConfiguration, tenant, http.MethodGet}, true
	case "oauth2/v2.0/token":
		return route{control.Token, tenant, http.MethodPost}, true
	case "discovery/v2.0/keys":
		return route{keysOperation, tenant, http.MethodGet}, true
	}
	return route{}, false
}

// Identify notes in a call what it asks for.
func (*Directory) Identify(c *api.Call) {
	r, _ := routeOf(c.HTTP.URL.Path)
	c.Operation, c.Tenant = r.operation, strings.ToLower(r.tenant)
	if form, err := url.ParseQuery(string(c.Body)); err == nil && r.operation == control.Token {
		c.ClientID = strings.ToLower(form.Get("client_id"))
	}
}

// Serve answers a call to an authority, a host.
func (d *Directory) Serve(ctx context.Context, c *api.Call, authority string) api.Answer {
	answer, err := d.serve(ctx, c, request{authority: authority})
	return d.told(answer, err, authority)
}

// told is an answer, or an error as Entra tells it.
func (d *Directory) told(answer api.Answer, err error, authority string) api.Answer {
	var refused *refusal
	switch {
	case err == nil:
		return answer
	case errors.As(err, &refused):
		return refused.answer(authority, d.cfg.Now())
	default:
		return api.Answer{Status: http.StatusInternalServerError, Code: "InternalError", ContentType: "text/plain", Body: []byte(err.Error())}
	}
}

// request says how a call came.
type request struct {
	authority string
	// proxy is AKS' token proxy, if it came through it.
	proxy *control.TokenProxy
}

func (d *Directory) serve(ctx context.Context, c *api.Call, from request) (api.Answer, error) {
	r, ok := routeOf(c.HTTP.URL.Path)
	if !ok || c.HTTP.Method != r.method {
		c.Violate("no such request: " + c.HTTP.Method + " " + c.HTTP.URL.Path)
		return api.Answer{Status: http.StatusNotFound, Code: "NotFound", ContentType: "text/html"}, nil
	}
	d.checkHeaders(c, r)
	if r.operation == control.InstanceDiscovery {
		return d.instance(c)
	}
	tenant, ok := d.tenant(r.tenant)
	if !ok || cloudOf(tenant.Authority) != cloudOf(from.authority) {
		if ok && r.operation == control.Token {
			c.Violate("credentials for tenant " + tenant.ID + " of " + tenant.Authority + " were sent to " + from.authority)
		}
		kind := "invalid_request"
		if r.operation == control.OpenIDConfiguration {
			kind = "invalid_tenant"
		}
		return api.Answer{}, badRequest(90002, kind, "Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. "+
			"Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.", r.tenant)
	}
	switch r.operation {
	case control.OpenIDConfiguration:
		return api.JSON(http.StatusOK, configuration(tenant, from.authority)), nil
	case keysOperation:
		return api.Answer{Status: http.StatusOK, ContentType: "application/json", Body: d.signer.JWKS()}, nil
	default:
		return d.serveToken(ctx, c, tenant, from)
	}
}

func (d *Directory) checkHeaders(c *api.Call, r route) {
	if c.HTTP.Header.Get("Authorization") != "" {
		c.Violate("an access token was sent to Entra")
	}
	if r.method == http.MethodGet && len(c.Body) != 0 {
		c.Violate("GET with a body")
	}
	if r.operation == control.Token && c.HTTP.URL.RawQuery != "" {
		c.Violate("a token is asked for with a query: it would be logged on the way")
	}
}

func (d *Directory) serveToken(ctx context.Context, c *api.Call, tenant control.Tenant, from request) (api.Answer, error) {
	kind, _, err := mime.ParseMediaType(c.HTTP.Header.Get("Content-Type"))
	form, formErr := url.ParseQuery(string(c.Body))
	if err != nil || kind != "application/x-www-form-urlencoded" || formErr != nil {
		c.Violate("the body is no form")
		return api.Answer{}, missing("grant_type")
	}
	for name, values := range form {
		if len(values) != 1 {
			c.Violate("the form has " + name + " more than once")
		}
	}
	for _, name := range []string{"grant_type", "client_id", "scope"} {
		if form.Get(name) == "" && (name != "scope" || tenant.ID != ADFS) {
			c.Violate("the form has no " + name)
		}
	}
	if form.Has("client_assertion") && form.Has("client_secret") {
		c.Violate("the form has two credentials")
	}
	l := login{tenant: tenant, form: form}
	if from.proxy != nil {
		if err := d.bind(ctx, l, *from.proxy); err != nil {
			return api.Answer{}, err
		}
		l.binding = true
	}
	issued, err := d.token(ctx, l)
	if err != nil {
		return api.Answer{}, err
	}
	seconds := int(issued.Lifetime.Seconds())
	answer := map[string]any{"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": issued.Token}
	if seconds >= 2*3600 { // Entra says so of tokens that last
		answer["refresh_in"] = seconds / 2
	}
	return api.JSON(http.StatusOK, answer), nil
}

// configuration is a tenant's metadata.
func configuration(t control.Tenant, authority string) map[string]any {
	base, issuer := "https://"+authority+"/"+t.ID, "https://"+authority+"/"+t.ID+"/v2.0"
	paths := [3]string{"/oauth2/v2.0/token", "/oauth2/v2.0/authorize", "/discovery/v2.0/keys"}
	if t.ID == ADFS {
		issuer, paths = base, [3]string{"/oauth2/token", "/oauth2/authorize", "/discovery/keys"}
	}
	return map[string]any{
		"token_endpoint": base + paths[0], "authorization_endpoint": base + paths[1], "jwks_uri": base + paths[2], "issuer": issuer,
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		"response_types_supported":              []string{"code", "id_token", "code id_token", "id_token token"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
	}
}

// instance tells which hosts are Entra's.
func (d *Directory) instance(c *api.Call) (api.Answer, error) {
	query := c.HTTP.URL.Query()
	endpoint, err := url.Parse(query.Get("authorization_endpoint"))
	if query.Get("api-version") == "" || err != nil || endpoint.Scheme != "https" {
		c.Violate("instance discovery needs api-version and authorization_endpoint")
		return api.Answer{}, missing("authorization_endpoint")
	}
	if !slices.Contains(authorities(), endpoint.Host) {
		return api.Answer{}, badRequest(50049, "invalid_instance", "Unknown or invalid instance.")
	}
	var metadata []map[string]any
	for _, names := range aliases() {
		metadata = append(metadata, map[string]any{"preferred_network": names[0], "preferred_cache": names[0], "aliases": names})
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(endpoint.Path, "/"), "/")
	return api.JSON(http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": "https://" + endpoint.Host + "/" + tenant + "/v2.0/.well-known/openid-configuration",
		"api-version":               query.Get("api-version"), "metadata": metadata,
	}), nil
}
