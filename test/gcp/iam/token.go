package iam

import (
	"crypto/rand"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/test/gcp/api"
)

// maxTokens is how many access tokens are kept before those are forgotten that
// expired.
const maxTokens = 10_000

// Token is what the double knows of an access token. It is no secret.
type Token struct {
	// Principal is the name of its bearer: an email, or principal://...
	Principal string
	// Members are all names by which a binding may call its bearer.
	Members []string
	Scopes  []string
	// Lifetime is the directory's own if it is 0.
	Lifetime time.Duration
	Expires  time.Time

	sequence int64
}

// SetLifetime says how long access tokens last from now on.
func (d *Directory) SetLifetime(lifetime time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lifetime = lifetime
}

// Lifetime returns how long access tokens last.
func (d *Directory) Lifetime() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lifetime
}

// Issue makes an access token, which is a secret.
func (d *Directory) Issue(t Token) (raw string, issued Token) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	if len(d.tokens) >= maxTokens {
		maps.DeleteFunc(d.tokens, func(_ string, o *Token) bool { return !now.Before(o.Expires) })
	}
	if t.Lifetime == 0 {
		t.Lifetime = d.lifetime
	}
	d.issued++
	t.Expires, t.sequence = now.Add(t.Lifetime), d.issued
	raw = "ya29.c." + rand.Text() + rand.Text()
	d.tokens[raw] = &t
	return raw, t
}

// Revoke makes the access tokens no good that a principal has so far.
func (d *Directory) Revoke(principal string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.revoked[principal] = d.issued
}

// Peek returns what is known of an access token, good or not.
func (d *Directory) Peek(raw string) Token {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tokens[raw]; t != nil {
		return *t
	}
	return Token{}
}

// Check returns what is known of the access token of a request to a method of a
// service, if it is good.
func (d *Directory) Check(raw string, to Method) (Token, error) {
	refuse := func(reason, message string) (Token, error) {
		return Token{}, &api.Refusal{Code: codes.Unauthenticated, Message: message + expected, Reason: reason, Domain: api.GoogleDomain, Metadata: to.metadata()}
	}
	if raw == "" {
		return refuse("CREDENTIALS_MISSING", "Request is missing required authentication credential. ")
	}
	t := d.Peek(raw)
	d.mu.Lock()
	revoked := d.revoked[t.Principal]
	d.mu.Unlock()
	switch {
	case t.Principal == "":
		return refuse("ACCESS_TOKEN_TYPE_UNSUPPORTED", "Request had invalid authentication credentials. ")
	case !d.now().Before(t.Expires), t.sequence <= revoked:
		return refuse("ACCESS_TOKEN_EXPIRED", "Request had invalid authentication credentials. ")
	case !slices.Contains(t.Scopes, CloudPlatform):
		return Token{}, &api.Refusal{
			Code: codes.PermissionDenied, Message: "Request had insufficient authentication scopes.",
			Reason: "ACCESS_TOKEN_SCOPE_INSUFFICIENT", Domain: api.GoogleDomain, Metadata: to.metadata(),
		}
	default:
		return t, nil
	}
}

const expected = "Expected OAuth 2 access token, login cookie or other valid authentication credential. " +
	"See https://developers.google.com/identity/sign-in/web/devconsole-project."

// Method is one of a service, as errors name it.
type Method struct{ Service, Name string }

func (m Method) metadata() map[string]string {
	return map[string]string{"service": m.Service, "method": m.Name}
}
