package entra

import (
	"fmt"
	"strings"
	"time"
)

// Claims are what an access token says.
type Claims struct {
	Audience  string `json:"aud"`
	Issuer    string `json:"iss"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expiry    int64  `json:"exp"`
	AppID     string `json:"appid"`
	ObjectID  string `json:"oid"`
	Subject   string `json:"sub"`
	Tenant    string `json:"tid"`
	ID        string `json:"uti"`
	Version   string `json:"ver"`
	// Sequence orders the double's tokens, of which many are made in a second.
	Sequence int64 `json:"xms_sequence"`
}

// Subject is whose access token it is to be, and for what.
type Subject struct {
	Tenant, ClientID, ObjectID string
	// Resource is the URL that takes the token.
	Resource string
	// Lifetime is the directory's own if nil.
	Lifetime *time.Duration
}

// Issued is an access token. It is a secret.
type Issued struct {
	Token    string
	Expires  time.Time
	Lifetime time.Duration
}

// Issue makes an access token.
func (d *Directory) Issue(s Subject) (Issued, error) {
	if s.ObjectID == "" {
		if a, ok := d.application(strings.ToLower(s.Tenant), s.ClientID); ok {
			s.ObjectID = a.ObjectID
		} else {
			s.ObjectID = newID()
		}
	}
	d.mu.Lock()
	d.sequence++
	lifetime, sequence := d.lifetime, d.sequence
	d.mu.Unlock()
	if s.Lifetime != nil {
		lifetime = *s.Lifetime
	}
	now := d.cfg.Now()
	claims := Claims{
		Audience: s.Resource, Issuer: IssuerOf(s.Tenant), IssuedAt: now.Unix(), NotBefore: now.Add(-5 * time.Minute).Unix(),
		Expiry: now.Add(lifetime).Unix(), AppID: strings.ToLower(s.ClientID), ObjectID: s.ObjectID, Subject: s.ObjectID,
		Tenant: strings.ToLower(s.Tenant), ID: newID(), Version: "1.0", Sequence: sequence,
	}
	raw, err := d.signer.Sign(claims)
	return Issued{Token: raw, Expires: now.Add(lifetime), Lifetime: lifetime}, err
}

// IssuerOf is who issues access tokens of a tenant.
func IssuerOf(tenant string) string {
	return "https://sts.windows.net/" + strings.ToLower(tenant) + "/"
}

// TokenError says why an access token is no good, in Key Vault's words.
type TokenError struct{ Message string }

func (e *TokenError) Error() string { return e.Message }

// Check returns what an access token says if it is good for a resource of a tenant.
// What it says is returned with an error too, if it can be read.
func (d *Directory) Check(raw, tenant, resource string) (Claims, error) {
	var c Claims
	if err := d.signer.Open(raw, &c); err != nil {
		return Claims{}, &TokenError{"[BearerReadAccessTokenFailed] Error validating token: 'S2S12005'."}
	}
	now := d.cfg.Now()
	d.mu.Lock()
	revoked := d.revoked[c.AppID]
	d.mu.Unlock()
	switch {
	case c.Issuer != IssuerOf(tenant):
		return c, &TokenError{fmt.Sprintf("AKV10032: Invalid issuer. Expected one of %s, found %s.", IssuerOf(tenant), c.Issuer)}
	case strings.TrimSuffix(c.Audience, "/") != resource:
		return c, &TokenError{fmt.Sprintf("AKV10022: Invalid audience. Expected %s, found: %s.", resource, c.Audience)}
	case now.Unix() >= c.Expiry:
		return c, &TokenError{"[TokenExpired] Error validating token: 'S2S12086'."}
	case c.Sequence <= revoked:
		return c, &TokenError{"[TokenRevoked] Error validating token: 'S2S12044'."}
	default:
		return c, nil
	}
}

// Peek returns the client of an access token that is its own, good or not.
func (d *Directory) Peek(raw string) Claims {
	var c Claims
	if err := d.signer.Open(raw, &c); err != nil {
		return Claims{}
	}
	return c
}
