package control

import (
	"context"
	"net/http"
	"net/url"

	"github.com/postern-dev/postern/test/double"
)

// Client uses the control API of a double.
type Client struct{ api *double.Client }

// NewClient returns a client for the control API at address, its URL.
func NewClient(address string) *Client { return &Client{api: double.NewClient(address)} }

// Via has the client make its connections through transport, such as one into
// a cluster's network.
func (c *Client) Via(transport http.RoundTripper) *Client {
	c.api.Via(transport)
	return c
}

// Close closes its idle connections.
func (c *Client) Close() { c.api.Close() }

// Apply puts what the document holds.
func (c *Client) Apply(ctx context.Context, d Document) (Applied, error) {
	var applied Applied
	err := c.api.Post(ctx, "/apply", d, &applied)
	return applied, err
}

// Login returns credentials of a role without a token.
func (c *Client) Login(ctx context.Context, l Login) (Credentials, error) {
	var credentials Credentials
	err := c.api.Post(ctx, "/credentials", l, &credentials)
	return credentials, err
}

// Expire ends all sessions of a role: their tokens are expired from now on.
func (c *Client) Expire(ctx context.Context, role string) error {
	return c.api.Post(ctx, "/expire", Login{Role: role}, nil)
}

// ForgetSessions makes the keys of all sessions of a role unknown.
func (c *Client) ForgetSessions(ctx context.Context, role string) error {
	return c.api.Delete(ctx, "/sessions", url.Values{"role": {role}})
}

// DeleteSecret removes a secret at once.
func (c *Client) DeleteSecret(ctx context.Context, region, name string) error {
	return c.api.Delete(ctx, "/secrets", url.Values{"region": {region}, "name": {name}})
}

// DeleteParameter removes a parameter.
func (c *Client) DeleteParameter(ctx context.Context, region, name string) error {
	return c.api.Delete(ctx, "/parameters", url.Values{"region": {region}, "name": {name}})
}

// DeleteRole removes a role.
func (c *Client) DeleteRole(ctx context.Context, arn string) error {
	return c.api.Delete(ctx, "/roles", url.Values{"arn": {arn}})
}

// DeleteAssociation removes a Pod Identity association.
func (c *Client) DeleteAssociation(ctx context.Context, namespace, serviceAccount string) error {
	return c.api.Delete(ctx, "/associations", url.Values{"namespace": {namespace}, "serviceAccount": {serviceAccount}})
}

// DeleteFaults ends all faults, and lets go what hangs.
func (c *Client) DeleteFaults(ctx context.Context) error { return c.api.Delete(ctx, "/faults", nil) }

// Calls returns how often what was called since the last reset.
func (c *Client) Calls(ctx context.Context) ([]Call, error) {
	var answer struct{ Calls []Call }
	err := c.api.Get(ctx, "/calls", &answer)
	return answer.Calls, err
}

// Requests returns the latest requests in order.
func (c *Client) Requests(ctx context.Context) ([]Request, error) {
	var answer struct{ Requests []Request }
	err := c.api.Get(ctx, "/requests", &answer)
	return answer.Requests, err
}

// ResetCalls forgets the calls and requests so far.
func (c *Client) ResetCalls(ctx context.Context) error { return c.api.Delete(ctx, "/calls", nil) }

// Violations returns all breaches of AWS' models so far.
func (c *Client) Violations(ctx context.Context) ([]Violation, error) {
	var answer struct{ Violations []Violation }
	err := c.api.Get(ctx, "/violations", &answer)
	return answer.Violations, err
}

// ResetViolations forgets them.
func (c *Client) ResetViolations(ctx context.Context) error {
	return c.api.Delete(ctx, "/violations", nil)
}

// Reset makes everything as at the start, but the issuers.
func (c *Client) Reset(ctx context.Context) error {
	return c.api.Post(ctx, "/reset", nil, nil)
}

// Addresses returns where the double listens.
func (c *Client) Addresses(ctx context.Context) (Addresses, error) {
	var addresses Addresses
	err := c.api.Get(ctx, "/addresses", &addresses)
	return addresses, err
}
