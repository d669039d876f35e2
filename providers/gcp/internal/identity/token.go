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

	"google.golang.org/grpc/credentials"

	"github.com/postern-dev/postern/providers/sdk"
)

// bearerType is the type of tokens that Google's services accept.
const bearerType = "Bearer"

// grant is what one login gave. It does not change.
type grant struct {
	key     key
	login   uint64 // its number
	access  sdk.SecretString
	expires time.Time
}

// Expires is when the token ends; the zero time if nobody said.
func (g *grant) Expires() time.Time { return g.expires }

// Token is an access token of one identity. It does not change, and is never
// renewed.
type Token struct {
	grant  *grant
	cached bool
}

// Cached reports whether the token is of an earlier login.
func (t *Token) Cached() bool { return t.cached }

// Key is one text for each identity and login: what is kept with the token of one
// login is not used with that of the next.
func (t *Token) Key() string { return fmt.Sprintf("%s, login %d", t.grant.key, t.grant.login) }

// Identity says for messages whose token it is.
func (t *Token) Identity() string { return t.grant.key.String() }

// Expires is when the token ends; the zero time if nobody said.
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

// PerRPC returns the token as a call's credentials, for connections with TLS alone.
func (t *Token) PerRPC() credentials.PerRPCCredentials { return perRPC{t} }

// perRPC gives a token to calls. It prints as the token does.
type perRPC struct{ *Token }

var _ credentials.PerRPCCredentials = perRPC{}

// GetRequestMetadata returns the call's authorization.
func (p perRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	if err := credentials.CheckSecurityLevel(info.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
		return nil, fmt.Errorf("cannot send the access token: %w", err)
	}
	return map[string]string{"authorization": bearerType + " " + p.grant.access.Reveal()}, nil
}

// RequireTransportSecurity is true: gRPC refuses a connection without.
func (perRPC) RequireTransportSecurity() bool { return true }

// claims are those of a pod's token that messages say.
type claims struct {
	Issuer   string   `json:"iss"`
	Audience audience `json:"aud"`
	Expiry   float64  `json:"exp"`
}

// audience is one, or a list of them (RFC 7519, section 4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// claimsOf decodes the payload of a JWT, as far as it is one.
func claimsOf(token sdk.SecretString) (c claims) {
	parts := strings.Split(token.Reveal(), ".")
	if len(parts) != 3 {
		return c
	}
	if payload, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
		_ = json.Unmarshal(payload, &c) // what cannot be read is not said
	}
	return c
}
