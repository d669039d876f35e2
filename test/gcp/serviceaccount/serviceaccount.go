// Package serviceaccount gives access tokens of service accounts: to those who may
// impersonate them, and to those who have a key.
package serviceaccount

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/iam"
	"github.com/postern-dev/postern/test/token"
)

const (
	generatePrefix = "/v1/projects/-/serviceAccounts/"
	generateSuffix = ":generateAccessToken"
	maxLifetime    = time.Hour
	tokenPath      = "/token"
	jwtBearer      = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// Service answers as the IAM Service Account Credentials API does, and as OAuth's
// token endpoint.
type Service struct {
	directory *iam.Directory
	now       func() time.Time
}

// New returns one.
func New(directory *iam.Directory, now func() time.Time) *Service {
	return &Service{directory: directory, now: now}
}

// IdentifyCredentials notes in a call to the API what it asks for.
func (s *Service) IdentifyCredentials(c *api.Call) {
	email, ok := strings.CutPrefix(c.HTTP.URL.Path, generatePrefix)
	if email, isGenerate := strings.CutSuffix(email, generateSuffix); ok && isGenerate {
		c.Operation, c.Resource = control.GenerateAccessToken, email
	}
	c.Principal = s.directory.Peek(api.Bearer(c.HTTP)).Principal
}

// ServeCredentials answers a call to the API.
func (s *Service) ServeCredentials(_ context.Context, c *api.Call) api.Answer {
	if c.Operation == "" || c.HTTP.Method != http.MethodPost {
		c.Violate("no such request: " + c.HTTP.Method + " " + c.HTTP.URL.Path)
		return api.Answer{Status: http.StatusNotFound, Code: "NOT_FOUND", ContentType: "text/html"}
	}
	answer, err := s.generate(c)
	if err != nil {
		return api.Refused(err).Answer()
	}
	return answer
}

func (s *Service) generate(c *api.Call) (api.Answer, error) {
	caller, err := s.directory.Check(api.Bearer(c.HTTP), iam.Method{Service: "iamcredentials.googleapis.com", Name: "google.iam.credentials.v1.IAMCredentials.GenerateAccessToken"})
	if err != nil {
		return api.Answer{}, err
	}
	var r struct {
		Delegates []string `json:"delegates"`
		Scope     []string `json:"scope"`
		Lifetime  string   `json:"lifetime"`
	}
	if err := json.Unmarshal(c.Body, &r); err != nil {
		c.Violate("the body cannot be read as JSON")
		return api.Answer{}, api.Invalid("Invalid JSON payload received.")
	}
	lifetime := maxLifetime
	if r.Lifetime != "" {
		if lifetime, err = time.ParseDuration(r.Lifetime); err != nil || !strings.HasSuffix(r.Lifetime, "s") {
			c.Violate("lifetime " + r.Lifetime)
			return api.Answer{}, api.Invalid("Invalid value at 'lifetime' (type.googleapis.com/google.protobuf.Duration).")
		}
	}
	if len(r.Scope) == 0 || lifetime <= 0 || lifetime > maxLifetime {
		c.Violate("no scope, or a lifetime that is not up to an hour")
		return api.Answer{}, api.Invalid("Request contains an invalid argument.")
	}
	for i, delegate := range r.Delegates {
		email, ok := strings.CutPrefix(delegate, "projects/-/serviceAccounts/")
		if !ok {
			c.Violate("delegate " + delegate)
			return api.Answer{}, api.Invalid("Invalid form of delegate: " + delegate)
		}
		r.Delegates[i] = email
	}
	target, err := s.directory.Impersonate(caller, c.Resource, r.Delegates)
	if err != nil {
		return api.Answer{}, err
	}
	target.Scopes, target.Lifetime = r.Scope, min(lifetime, s.directory.Lifetime())
	raw, issued := s.directory.Issue(target)
	return api.JSON(http.StatusOK, map[string]string{"accessToken": raw, "expireTime": issued.Expires.UTC().Format(time.RFC3339)}), nil
}

// IdentifyToken notes in a call to the token endpoint what it asks for.
func (*Service) IdentifyToken(c *api.Call) {
	if c.HTTP.URL.Path != tokenPath {
		return
	}
	c.Operation = control.Token
	if form, err := url.ParseQuery(string(c.Body)); err == nil {
		if claims, err := token.Peek(form.Get("assertion")); err == nil {
			c.Resource = claims.Issuer
		}
	}
}

// ServeToken answers a call to the token endpoint.
func (s *Service) ServeToken(ctx context.Context, c *api.Call) api.Answer {
	if c.Operation == "" || c.HTTP.Method != http.MethodPost || c.HTTP.URL.RawQuery != "" {
		c.Violate("no such request: " + c.HTTP.Method + " " + c.HTTP.URL.Path)
		return api.Answer{Status: http.StatusNotFound, Code: "NOT_FOUND", ContentType: "text/html"}
	}
	form, err := url.ParseQuery(string(c.Body))
	if err != nil || form.Get("grant_type") != jwtBearer || form.Get("assertion") == "" {
		c.Violate("not a form with an assertion")
		return api.OAuthError(http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: "+form.Get("grant_type"))
	}
	return s.redeem(ctx, c, form.Get("assertion"))
}

// redeem trades an assertion that a key signed for an access token.
func (s *Service) redeem(ctx context.Context, c *api.Call, assertion string) api.Answer {
	refuse := func(code, text string) api.Answer { return api.OAuthError(http.StatusBadRequest, code, text) }
	claims, err := s.directory.Assertion(ctx, assertion)
	said, saidErr := peek(assertion)
	t, _, enabled := s.directory.Account(claims.Issuer)
	_, isOurs := claims.Matches([]string{iam.TokenURI})
	now := s.now().Unix()
	switch {
	case errors.Is(err, token.ErrMalformed), saidErr != nil:
		c.Violate("the assertion is no token")
		return refuse("invalid_grant", "Invalid JWT: it cannot be parsed.")
	case errors.Is(err, token.ErrIssuer):
		return refuse("invalid_grant", "Invalid grant: account not found")
	case err != nil:
		return refuse("invalid_grant", "Invalid JWT Signature.")
	case !isOurs:
		return refuse("invalid_grant", "Invalid JWT: Failed audience check")
	case now >= claims.Expiry, said.IssuedAt > now+60, claims.Expiry-said.IssuedAt > int64(maxLifetime/time.Second):
		return refuse("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "+
			"Check your iat and exp values in the JWT claim.")
	case said.Scope == "":
		return refuse("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
	case !enabled:
		return refuse("invalid_grant", "Invalid grant: account is disabled")
	}
	t.Scopes = strings.Fields(said.Scope)
	raw, issued := s.directory.Issue(t)
	c.Principal = issued.Principal
	return api.JSON(http.StatusOK, map[string]any{"access_token": raw, "expires_in": int(issued.Lifetime / time.Second), "token_type": "Bearer"})
}

// grant is what an assertion says beside what all tokens do.
type grant struct {
	Scope    string `json:"scope"`
	IssuedAt int64  `json:"iat"`
}

func peek(assertion string) (grant, error) {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return grant{}, token.ErrMalformed
	}
	var g grant
	contents, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return grant{}, err
	}
	err = json.Unmarshal(contents, &g)
	return g, err
}
