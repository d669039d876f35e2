package identity

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/postern-dev/postern/providers/sdk"
)

// defaultSuffix makes a scope of a resource.
const defaultSuffix = "/.default"

// grant is what one login gave. It does not change.
type grant struct {
	key    key
	login  uint64 // its number
	access sdk.SecretString
	// tenant is what the token says of itself; "" if it does not.
	tenant  string
	expires time.Time
}

// Expires is when the token ends.
func (g *grant) Expires() time.Time { return g.expires }

// Token is an access token of one identity for the vaults of its cloud, as the
// SDK's clients want it: it is given out, and never renewed.
type Token struct {
	grant  *grant
	cached bool
}

var _ azcore.TokenCredential = (*Token)(nil)

// GetToken returns the access token, or a *ScopeError if a vault asks for another.
func (t *Token) GetToken(_ context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if err := t.grant.serves(opts); err != nil {
		return azcore.AccessToken{}, err
	}
	return azcore.AccessToken{Token: t.grant.access.Reveal(), ExpiresOn: t.grant.expires}, nil
}

// serves checks that the token is one of those that are asked for. A tenant may be
// asked for by its ID where the class has its domain name: the token knows the ID.
func (g *grant) serves(opts policy.TokenRequestOptions) error {
	for _, scope := range opts.Scopes {
		if !strings.EqualFold(resourceOf(scope), resourceOf(g.key.cloud.VaultScope)) {
			return &ScopeError{Asked: "scope " + scope, Has: "scope " + g.key.cloud.VaultScope}
		}
	}
	known := false
	for _, tenant := range []string{g.key.tenant, g.tenant} {
		if opts.TenantID == "" || strings.EqualFold(opts.TenantID, tenant) {
			return nil
		}
		known = known || tenant != ""
	}
	if !known {
		return nil
	}
	has := g.key.tenant
	if has == "" {
		has = g.tenant
	}
	return &ScopeError{Asked: "tenant " + opts.TenantID, Has: "tenant " + has}
}

// resourceOf is what a scope is of.
func resourceOf(scope string) string {
	return strings.TrimSuffix(strings.TrimSuffix(scope, defaultSuffix), "/")
}

// Cached reports whether the token is of an earlier login.
func (t *Token) Cached() bool { return t.cached }

// Key is one text for each identity and login: what is kept with the token of one
// login is not used with that of the next.
func (t *Token) Key() string { return fmt.Sprintf("%s, login %d", t.grant.key, t.grant.login) }

// Identity says for messages whose token it is.
func (t *Token) Identity() string { return t.grant.key.String() }

// Expires is when the token ends.
func (t *Token) Expires() time.Time { return t.grant.expires }

// String says whose token it is, and nothing of the token.
func (t *Token) String() string {
	if t == nil || t.grant == nil {
		return "no access token"
	}
	return "access token of " + t.Identity()
}

// Format prints the same with every verb.
func (t *Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue logs the same.
func (t *Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// ScopeError says that a vault asks for a token that the identity's is not.
type ScopeError struct {
	Asked, Has string
}

func (e *ScopeError) Error() string {
	return fmt.Sprintf("the vault wants a token of %s, and the identity's is of %s: the vault belongs to another tenant or "+
		"cloud than the class says", e.Asked, e.Has)
}

// NonRetriable keeps the SDK from asking again.
func (*ScopeError) NonRetriable() {}

// claims are what is read of a token, unverified: only what messages say and what
// is compared with a wish depends on them.
type claims struct {
	Issuer   string   `json:"iss"`
	Audience audience `json:"aud"`
	Tenant   string   `json:"tid"`
}

// audience is one text or several (RFC 7519, section 4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// claimsOf reads a JWT. What is none has no claims.
func claimsOf(token sdk.SecretString) claims {
	var c claims
	parts := strings.Split(token.Reveal(), ".")
	if len(parts) != 3 {
		return c
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return claims{}
	}
	return c
}
