package sts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
)

// Path returns where a service exchanges tokens.
func Path(service string) string {
	if service == control.SecureToken {
		return "/v1/identitybindingtoken"
	}
	return "/v1/token"
}

// form is what is asked for.
type form struct {
	GrantType, Audience, Scope, RequestedTokenType, SubjectToken, SubjectTokenType, Options string
}

// Identify notes in a call what it asks for.
func (*Service) Identify(c *api.Call) {
	if c.HTTP.URL.Path != Path(c.Service) {
		return
	}
	c.Operation = control.Token
	if f, err := parse(c); err == nil {
		c.Resource = f.Audience
	}
}

// Serve answers a call.
func (s *Service) Serve(ctx context.Context, c *api.Call) api.Answer {
	if c.Operation == "" || c.HTTP.Method != http.MethodPost {
		c.Violate("no such request: " + c.HTTP.Method + " " + c.HTTP.URL.Path)
		return api.Answer{Status: http.StatusNotFound, Code: "NOT_FOUND", ContentType: "text/html"}
	}
	check(c)
	f, err := parse(c)
	if err != nil {
		c.Violate(err.Error())
		return api.OAuthError(http.StatusBadRequest, "invalid_request", "Invalid request body.")
	}
	if err := f.complete(); err != nil {
		return told(c, err)
	}
	raw, issued, err := s.exchange(ctx, f)
	if err != nil {
		return told(c, err)
	}
	c.Principal = issued.Principal
	return api.JSON(http.StatusOK, map[string]any{
		"access_token": raw, "issued_token_type": accessTokenType, "token_type": "Bearer", "expires_in": int(issued.Lifetime / time.Second),
	})
}

// check notes what is wrong with a call whoever is asked.
func check(c *api.Call) {
	if c.HTTP.Header.Get("Authorization") != "" {
		c.Violate("credentials were sent with a token to exchange")
	}
	if c.HTTP.URL.RawQuery != "" {
		c.Violate("a token is asked for with a query: it would be logged on the way")
	}
}

func told(c *api.Call, err error) api.Answer {
	refused, ok := errors.AsType[*refusal](err)
	if !ok {
		return api.Answer{Status: http.StatusInternalServerError, Code: "INTERNAL", ContentType: "text/plain", Body: []byte(err.Error())}
	}
	if refused.code == "invalid_request" || refused.code == "unsupported_grant_type" || refused.code == "invalid_scope" {
		c.Violate(refused.Error())
	}
	return refused.answer()
}

// complete checks that nothing is missing.
func (f form) complete() error {
	for _, member := range []struct{ name, value string }{
		{"grant_type", f.GrantType},
		{"requested_token_type", f.RequestedTokenType},
		{"subject_token", f.SubjectToken},
		{"subject_token_type", f.SubjectTokenType},
		{"audience", f.Audience},
		{"scope", f.Scope},
	} {
		if member.value == "" {
			return refuse("invalid_request", "Missing required parameter: "+member.name)
		}
	}
	switch {
	case f.GrantType != grantType:
		return refuse("unsupported_grant_type", "Invalid grant type: "+f.GrantType)
	case f.RequestedTokenType != accessTokenType:
		return refuse("invalid_request", "Invalid value for \"requested_token_type\".")
	case f.SubjectTokenType != "urn:ietf:params:oauth:token-type:jwt" && f.SubjectTokenType != "urn:ietf:params:oauth:token-type:id_token":
		return refuse("invalid_request", "Invalid value for \"subject_token_type\".")
	}
	return nil
}

// parse reads a form, or JSON with names in either spelling, as Google's services do.
func parse(c *api.Call) (form, error) {
	kind, _, err := mime.ParseMediaType(c.HTTP.Header.Get("Content-Type"))
	if err != nil {
		return form{}, fmt.Errorf("content type: %w", err)
	}
	members := map[string]string{}
	switch kind {
	case "application/json":
		err = json.Unmarshal(c.Body, &members)
	case "application/x-www-form-urlencoded":
		var values url.Values
		values, err = url.ParseQuery(string(c.Body))
		for name, all := range values {
			members[name] = strings.Join(all, ",")
		}
	default:
		return form{}, errors.New("the body is neither a form nor JSON")
	}
	if err != nil {
		return form{}, fmt.Errorf("the body cannot be read as %s", kind) // err would quote the body
	}
	return fill(members)
}

func fill(members map[string]string) (form, error) {
	var f form
	for name, to := range map[string]*string{
		"granttype": &f.GrantType, "audience": &f.Audience, "scope": &f.Scope, "requestedtokentype": &f.RequestedTokenType,
		"subjecttoken": &f.SubjectToken, "subjecttokentype": &f.SubjectTokenType, "options": &f.Options,
	} {
		for member, value := range members {
			if strings.ToLower(strings.ReplaceAll(member, "_", "")) == name {
				*to = value
				delete(members, member)
			}
		}
	}
	for member := range members {
		return form{}, fmt.Errorf("unknown member %q", member)
	}
	return f, nil
}
