package keyvault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/azure/entra"
)

// call is a request for a vault.
type call struct {
	*api.Call

	vault *vault
	query url.Values
}

// versions are those of the API that Key Vault has.
func versions() []string {
	return []string{"7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01"}
}

// Identify notes in a call what it asks for.
func (s *Store) Identify(c *api.Call) {
	parts := strings.Split(strings.TrimPrefix(c.HTTP.URL.Path, "/"), "/")
	if !slices.Contains(services(), parts[0]) {
		return
	}
	c.Service = parts[0]
	switch {
	case len(parts) == 1:
		c.Operation = control.List
	case len(parts) == 3 && parts[2] == "versions":
		c.Operation, c.Object = control.ListVersions, parts[1]
	case len(parts) <= 3:
		c.Operation, c.Object = control.Get, parts[1]
		if len(parts) == 3 {
			c.Version = parts[2]
		}
	}
	if raw := bearer(c.HTTP); raw != "" {
		claims := s.cfg.Directory.Peek(raw)
		c.Tenant, c.ClientID = claims.Tenant, claims.AppID
	}
}

// bearer returns the access token of a request; "" if it has none.
func bearer(r *http.Request) string {
	raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return ""
	}
	return raw
}

// Serve answers a call to a vault, a host.
func (s *Store) Serve(ctx context.Context, c *api.Call, host string) api.Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vaults[host]
	if v == nil { // deleted since the connection was made
		return api.Answer{Status: http.StatusBadGateway, Code: control.NameDoesNotResolve}
	}
	answer, err := s.serve(ctx, call{Call: c, vault: v, query: c.HTTP.URL.Query()})
	if err == nil {
		return answer
	}
	var refused *api.Refusal
	if !errors.As(err, &refused) {
		c.Violate("Microsoft's fake refuses it: " + err.Error())
		refused = refuse(http.StatusBadRequest, "BadParameter", "%s", err)
	}
	answer = Told(*refused)
	if refused.Status == http.StatusUnauthorized {
		answer.Header = http.Header{"Www-Authenticate": {s.challenge(v)}}
	}
	return answer
}

// challenge says where access tokens for a vault are to be had.
func (s *Store) challenge(v *vault) string {
	tenant, resource := v.Tenant, "https://"+v.Suffix
	if v.ChallengeTenant != "" {
		tenant = v.ChallengeTenant
	}
	if v.ChallengeResource != "" {
		resource = v.ChallengeResource
	}
	return `Bearer authorization="https://` + s.cfg.Directory.AuthorityOf(tenant) + "/" + tenant + `", resource="` + resource + `"`
}

func (s *Store) serve(ctx context.Context, c call) (api.Answer, error) {
	raw := bearer(c.HTTP)
	if raw == "" {
		if c.HTTP.Header.Get("Authorization") != "" {
			c.Violate("an authorization that is no bearer")
		}
		return api.Answer{}, refuse(http.StatusUnauthorized, control.ChallengeNotAnswered, "AKV10000: Request is missing a Bearer or PoP token.")
	}
	if err := c.check(); err != nil {
		return api.Answer{}, err
	}
	who, err := s.cfg.Directory.Check(raw, c.vault.Tenant, "https://"+c.vault.Suffix)
	if bad := (*entra.TokenError)(nil); errors.As(err, &bad) {
		return api.Answer{}, refuse(http.StatusUnauthorized, control.ChallengeNotAnswered, "%s", bad.Message)
	}
	if c.vault.Network != "" {
		address, _, _ := strings.Cut(c.HTTP.RemoteAddr, ":")
		return api.Answer{}, c.vault.closed(who, address)
	}
	if !c.vault.allows(who, c) {
		return api.Answer{}, c.vault.denied(who, c)
	}
	switch c.Service {
	case control.Secrets:
		return s.serveSecrets(ctx, c)
	case control.Keys:
		return s.serveKeys(ctx, c)
	default:
		return s.serveCertificates(ctx, c)
	}
}

// check looks at the form of a request.
func (c call) check() error {
	if c.Operation == "" || c.HTTP.Method != http.MethodGet {
		c.Violate("the double does not serve " + c.HTTP.Method + " " + c.HTTP.URL.Path)
		return refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", "%s %s", c.HTTP.Method, c.HTTP.URL.Path)
	}
	if len(c.Body) != 0 {
		c.Violate("GET with a body")
	}
	known := []string{"api-version", "maxresults", skipToken}
	if c.Service == control.Certificates && c.Operation == control.List {
		known = append(known, "includePending")
	}
	for name, values := range c.query {
		if !slices.Contains(known, name) || len(values) != 1 {
			c.Violate("the query has " + name)
		}
	}
	version := c.query.Get("api-version")
	switch {
	case version == "":
		c.Violate("no api-version")
		return refuse(http.StatusBadRequest, "BadParameter", "api-version must be specified")
	case !slices.Contains(versions(), version):
		c.Violate("unknown api-version " + version)
		return refuse(http.StatusBadRequest, "BadParameter", "The specified version (%s) is not recognized. Consider using the latest supported version (2026-04-01).", version)
	case c.Operation != control.List && !objectName.MatchString(c.Object):
		c.Violate("no name of an object: " + c.Object)
		return refuse(http.StatusBadRequest, "BadParameter", "The request URI contains an invalid name: %s", c.Object)
	default:
		return nil
	}
}

// allows tells whether a vault lets somebody do what a call asks for.
func (v *vault) allows(who entra.Claims, c call) bool {
	operation := c.Service + "/list"
	if c.Operation == control.Get {
		operation = c.Service + "/get"
	}
	return slices.ContainsFunc(v.Grants, func(g control.Grant) bool {
		switch {
		case g.ClientID != "" && !strings.EqualFold(g.ClientID, who.AppID):
			return false
		case !slices.Contains(g.Operations, operation) && !slices.Contains(g.Operations, "*"):
			return false
		case len(g.Objects) == 0:
			return true
		default:
			return slices.ContainsFunc(g.Objects, func(name string) bool { return c.Object != "" && strings.EqualFold(name, c.Object) })
		}
	})
}

// object finds what a call names, if it is there and not deleted.
func (c call) object() (*object, error) {
	o := c.vault.objects[c.Service][strings.ToLower(c.Object)]
	if o == nil || o.deleted {
		return nil, c.notFound()
	}
	return o, nil
}

// version finds the version that a call names, the newest if it names none.
func (c call) version() (*object, *version, error) {
	o, err := c.object()
	if err != nil {
		return nil, nil, err
	}
	v := o.find(c.Version)
	if v == nil {
		return nil, nil, c.notFound()
	}
	return o, v, nil
}

// agree tells whether a fake reads the same of a path as the double. Those of keys
// and certificates take a version for a part of the name.
func (c call) agree(name, version string) error {
	read, want := strings.Trim(name+"/"+version, "/"), strings.Trim(c.Object+"/"+c.Version, "/")
	if read != want {
		return fmt.Errorf("it reads the path as %q, not as %q", read, want)
	}
	return nil
}
