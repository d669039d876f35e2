package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/postern-dev/postern/providers/sdk"
)

// sourceName says in the SDK's own texts where credentials are from.
const sourceName = "PosternPodToken"

// grant is one set of credentials. It does not change.
type grant struct {
	key                            key
	accessKeyID, secretKey, secret sdk.SecretString
	account                        string
	expires                        time.Time
}

// newGrant checks that credentials can be used. Its errors hold nothing of them.
func newGrant(k key, c aws.Credentials, now time.Time) (*grant, error) {
	switch {
	case c.AccessKeyID == "" || c.SecretAccessKey == "" || c.SessionToken == "":
		return nil, errors.New("the answer holds no credentials")
	case c.Expires.IsZero():
		return nil, errors.New("the answer does not say when the credentials expire")
	case !now.Before(c.Expires):
		return nil, fmt.Errorf("the credentials have expired when they arrive, at %s: check the node's clock",
			c.Expires.UTC().Format(time.RFC3339))
	}
	return &grant{
		key: k, account: c.AccountID, expires: c.Expires,
		accessKeyID: sdk.NewSecretString(c.AccessKeyID),
		secretKey:   sdk.NewSecretString(c.SecretAccessKey),
		secret:      sdk.NewSecretString(c.SessionToken),
	}, nil
}

// Expires is when the credentials end.
func (g *grant) Expires() time.Time { return g.expires }

// Session is credentials of one identity.
type Session struct {
	grant  *grant
	cached bool
}

// Provider gives the credentials to the SDK's clients.
func (s Session) Provider() aws.CredentialsProvider { return provider(s) }

// Cached reports whether the credentials are of an earlier login, so that AWS may
// have ended them since.
func (s Session) Cached() bool { return s.cached }

// RoleARN is the role that was asked for; "" with EKS Pod Identity, whose
// associations only AWS knows.
func (s Session) RoleARN() string { return s.grant.key.role }

// Expires is when the credentials end.
func (s Session) Expires() time.Time { return s.grant.expires }

// Identity says for messages whose credentials they are.
func (s Session) Identity() string { return s.grant.key.String() }

// Key is one text for each identity.
func (s Session) Key() string {
	k := s.grant.key
	return fmt.Sprintf("%t %q", k.podIdentity, []string{string(k.addressType), k.role, k.region, k.namespace, k.serviceAccount})
}

// String says whose they are, and nothing of the credentials.
func (s Session) String() string {
	if s.grant == nil {
		return "no credentials"
	}
	return "credentials of " + s.Identity()
}

// GoString is String: addresses tell nothing.
func (s Session) GoString() string { return s.String() }

// provider is a Session as the SDK wants it.
type provider Session

// Retrieve returns the credentials.
func (p provider) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{
		AccessKeyID: p.grant.accessKeyID.Reveal(), SecretAccessKey: p.grant.secretKey.Reveal(),
		SessionToken: p.grant.secret.Reveal(), AccountID: p.grant.account,
		Source: sourceName, CanExpire: true, Expires: p.grant.expires,
	}, nil
}
