// Package store speaks to Vault and OpenBao servers: requests, logins, renewals
// and revocations, with retries and with errors that can be shown to users.
package store

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/postern-dev/postern/providers/sdk"
)

// Endpoint is a server, and how to reach it. It is comparable.
type Endpoint struct {
	// Address is a URL: http, https or, for an agent, unix.
	Address string
	// Namespace is sent with each request, if it is set.
	Namespace string
	TLS       TLS
}

// TLS is how a server is verified. Paths are this process's. What is not set
// comes from the environment (VAULT_CACERT and so on).
type TLS struct {
	SkipVerify  bool
	CACert      string
	CADirectory string
	ServerName  string
	ClientCert  string
	ClientKey   string
}

// Request is one API request.
type Request struct {
	Method string
	// Path starts with "v1/".
	Path  string
	Query url.Values
	// Body is a JSON object, or empty.
	Body json.RawMessage
}

// ReadOnly reports whether r changes nothing by its method, so that it may be
// sent again. A GET may still issue a credential: see [Answer.LeaseID].
func (r Request) ReadOnly() bool { return r.Method == http.MethodGet || r.Method == "LIST" }

// Login is what a pod logs in with.
type Login struct {
	// Mount is the path of a kubernetes or jwt auth method: their logins are
	// the same request.
	Mount string
	Role  string
	JWT   sdk.SecretString
}

// Auth is a token of the store.
type Auth struct {
	Token sdk.SecretString
	// TTL is how long it is valid. Zero: for ever.
	TTL       time.Duration
	Renewable bool
	// Accessor names the token to those who may not have it. Batch tokens have
	// none.
	Accessor string
	// Batch says that the token cannot be revoked.
	Batch bool
}

// Lease is how long a lease is valid, from when it was issued or renewed.
type Lease struct {
	Duration  time.Duration
	Renewable bool
}

// Read does a request of a user. The answer is never nil without an error; an
// empty response is an [*Error].
func (p *Pool) Read(ctx context.Context, ep Endpoint, token sdk.SecretString, r Request) (*Answer, error) {
	secret, err := p.do(ctx, call{endpoint: ep, token: token, request: r, retry: r.ReadOnly()})
	if err != nil {
		return nil, err
	}
	if secret == nil {
		return nil, &Error{Status: http.StatusNoContent}
	}
	return &Answer{secret: secret}, nil
}

// Login logs in. It is sent again only where the server said that it did not
// act, or could not be connected to.
func (p *Pool) Login(ctx context.Context, ep Endpoint, l Login) (Auth, error) {
	body := map[string]string{"role": l.Role, "jwt": l.JWT.Reveal()}
	secret, err := p.post(ctx, call{endpoint: ep, hidden: l.JWT, retry: true}, "v1/auth/"+l.Mount+"/login", body)
	return authOf(secret, err)
}

// RenewSelf prolongs a token.
func (p *Pool) RenewSelf(ctx context.Context, ep Endpoint, token sdk.SecretString) (Auth, error) {
	secret, err := p.post(ctx, call{endpoint: ep, token: token}, "v1/auth/token/renew-self", nil)
	return authOf(secret, err)
}

// RevokeSelf revokes a token and all leases that were issued with it.
func (p *Pool) RevokeSelf(ctx context.Context, ep Endpoint, token sdk.SecretString) error {
	_, err := p.post(ctx, call{endpoint: ep, token: token}, "v1/auth/token/revoke-self", nil)
	return err
}

// RenewAccessor prolongs the token that an accessor names, and returns until
// when. The store's default policy does not allow it.
func (p *Pool) RenewAccessor(ctx context.Context, ep Endpoint, token sdk.SecretString, accessor string) (time.Duration, error) {
	c := call{endpoint: ep, token: token, hidden: sdk.NewSecretString(accessor)}
	secret, err := p.post(ctx, c, "v1/auth/token/renew-accessor", map[string]string{"accessor": accessor})
	if err != nil {
		return 0, err
	}
	if secret == nil || secret.Auth == nil {
		return 0, &Error{Status: http.StatusNoContent}
	}
	return seconds(secret.Auth.LeaseDuration), nil
}

// LookupLease tells how long a lease is still valid. The store's default policy
// allows it.
func (p *Pool) LookupLease(ctx context.Context, ep Endpoint, token sdk.SecretString, id string) (Lease, error) {
	c := call{endpoint: ep, token: token, hidden: sdk.NewSecretString(id)}
	secret, err := p.post(ctx, c, "v1/sys/leases/lookup", map[string]string{"lease_id": id})
	if err != nil {
		return Lease{}, err
	}
	if secret == nil {
		return Lease{}, &Error{Status: http.StatusNoContent}
	}
	renewable, _ := secret.Data["renewable"].(bool)
	number, _ := secret.Data["ttl"].(json.Number)
	ttl, err := number.Int64()
	if err != nil {
		return Lease{}, &Error{Status: http.StatusOK, Texts: []string{"the answer holds no time to live"}}
	}
	return Lease{Duration: seconds(int(ttl)), Renewable: renewable}, nil
}

// RenewLease prolongs a lease by what its role says. The store's default
// policy allows it.
func (p *Pool) RenewLease(ctx context.Context, ep Endpoint, token sdk.SecretString, id string) (Lease, error) {
	c := call{endpoint: ep, token: token, hidden: sdk.NewSecretString(id)}
	secret, err := p.post(ctx, c, "v1/sys/leases/renew", map[string]string{"lease_id": id})
	if err != nil {
		return Lease{}, err
	}
	if secret == nil {
		return Lease{}, &Error{Status: http.StatusNoContent}
	}
	return Lease{Duration: seconds(secret.LeaseDuration), Renewable: secret.Renewable}, nil
}

// RevokeLease ends a lease. The store's default policy does not allow it.
func (p *Pool) RevokeLease(ctx context.Context, ep Endpoint, token sdk.SecretString, id string) error {
	c := call{endpoint: ep, token: token, hidden: sdk.NewSecretString(id)}
	_, err := p.post(ctx, c, "v1/sys/leases/revoke", map[string]string{"lease_id": id})
	return err
}

func (p *Pool) post(ctx context.Context, c call, path string, body map[string]string) (*api.Secret, error) {
	c.request = Request{Method: http.MethodPost, Path: path}
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, &Error{Err: err}
		}
		c.request.Body = encoded
	}
	return p.do(ctx, c)
}

func authOf(secret *api.Secret, err error) (Auth, error) {
	if err != nil {
		return Auth{}, err
	}
	if secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "" {
		return Auth{}, &Error{Status: http.StatusOK, Texts: []string{"the answer holds no token"}}
	}
	return Auth{
		Token:     sdk.NewSecretString(secret.Auth.ClientToken),
		TTL:       seconds(secret.Auth.LeaseDuration),
		Renewable: secret.Auth.Renewable,
		Accessor:  secret.Auth.Accessor,
		Batch:     secret.Auth.Accessor == "",
	}, nil
}

func seconds(n int) time.Duration { return time.Duration(max(n, 0)) * time.Second }
