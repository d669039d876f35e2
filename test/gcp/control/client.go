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

// AccessToken returns an access token without a login.
func (c *Client) AccessToken(ctx context.Context, r TokenRequest) (AccessToken, error) {
	var answer AccessToken
	err := c.api.Post(ctx, "/token", r, &answer)
	return answer, err
}

// Revoke makes all access tokens of a principal no good that it has so far.
func (c *Client) Revoke(ctx context.Context, principal string) error {
	return c.api.Post(ctx, "/revoke", TokenRequest{Principal: principal}, nil)
}

// CloseConnections closes the connections to a host, or all, and returns how many
// there were.
func (c *Client) CloseConnections(ctx context.Context, host string) (int, error) {
	return c.connections(ctx, "/connections/close", host)
}

// FreezeConnections has the connections to a host say nothing any more, as those
// through a firewall that forgot them.
func (c *Client) FreezeConnections(ctx context.Context, host string) (int, error) {
	return c.connections(ctx, "/connections/freeze", host)
}

func (c *Client) connections(ctx context.Context, path, host string) (int, error) {
	var answer Connected
	err := c.api.Post(ctx, path, Connections{Host: host}, &answer)
	return answer.Count, err
}

// DeleteSecret removes a secret with its versions.
func (c *Client) DeleteSecret(ctx context.Context, name string) error {
	return c.api.Delete(ctx, "/secrets", url.Values{"name": {name}})
}

// DeleteParameter removes a parameter with its versions, or one of them.
func (c *Client) DeleteParameter(ctx context.Context, name string) error {
	return c.api.Delete(ctx, "/parameters", url.Values{"name": {name}})
}

// DeleteServiceAccount removes one.
func (c *Client) DeleteServiceAccount(ctx context.Context, email string) error {
	return c.api.Delete(ctx, "/serviceaccounts", url.Values{"email": {email}})
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

// Violations returns all breaches of Google's protocols so far.
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
func (c *Client) Reset(ctx context.Context) error { return c.api.Post(ctx, "/reset", nil, nil) }

// Addresses returns where the double listens.
func (c *Client) Addresses(ctx context.Context) (Addresses, error) {
	var addresses Addresses
	err := c.api.Get(ctx, "/addresses", &addresses)
	return addresses, err
}

// CA returns the certificate of its authority as PEM.
func (c *Client) CA(ctx context.Context) (string, error) {
	var answer struct {
		PEM string `json:"pem"`
	}
	err := c.api.Get(ctx, "/ca", &answer)
	return answer.PEM, err
}
