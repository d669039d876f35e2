package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// maxAnswer is more than any answer of the double.
const maxAnswer = 64 << 20

// Client uses the control API of a double.
type Client struct {
	address string
	http    *http.Client
}

// NewClient returns a client for the control API at address, its URL.
func NewClient(address string) *Client {
	return &Client{address: address, http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}}
}

// Via has the client make its connections through transport, such as one into
// a cluster's network.
func (c *Client) Via(transport http.RoundTripper) *Client {
	c.http.Transport = transport
	return c
}

// Close closes its idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Apply puts what the document holds.
func (c *Client) Apply(ctx context.Context, d Document) (Applied, error) {
	var applied Applied
	err := c.do(ctx, http.MethodPost, "/apply", d, &applied)
	return applied, err
}

// Login returns credentials of a role without a token.
func (c *Client) Login(ctx context.Context, l Login) (Credentials, error) {
	var credentials Credentials
	err := c.do(ctx, http.MethodPost, "/credentials", l, &credentials)
	return credentials, err
}

// Expire ends all sessions of a role: their tokens are expired from now on.
func (c *Client) Expire(ctx context.Context, role string) error {
	return c.do(ctx, http.MethodPost, "/expire", Login{Role: role}, nil)
}

// ForgetSessions makes the keys of all sessions of a role unknown.
func (c *Client) ForgetSessions(ctx context.Context, role string) error {
	return c.delete(ctx, "/sessions", url.Values{"role": {role}})
}

// DeleteSecret removes a secret at once.
func (c *Client) DeleteSecret(ctx context.Context, region, name string) error {
	return c.delete(ctx, "/secrets", url.Values{"region": {region}, "name": {name}})
}

// DeleteParameter removes a parameter.
func (c *Client) DeleteParameter(ctx context.Context, region, name string) error {
	return c.delete(ctx, "/parameters", url.Values{"region": {region}, "name": {name}})
}

// DeleteRole removes a role.
func (c *Client) DeleteRole(ctx context.Context, arn string) error {
	return c.delete(ctx, "/roles", url.Values{"arn": {arn}})
}

// DeleteAssociation removes a Pod Identity association.
func (c *Client) DeleteAssociation(ctx context.Context, namespace, serviceAccount string) error {
	return c.delete(ctx, "/associations", url.Values{"namespace": {namespace}, "serviceAccount": {serviceAccount}})
}

// DeleteFaults ends all faults, and lets go what hangs.
func (c *Client) DeleteFaults(ctx context.Context) error { return c.delete(ctx, "/faults", nil) }

// Calls returns how often what was called since the last reset.
func (c *Client) Calls(ctx context.Context) ([]Call, error) {
	var answer struct{ Calls []Call }
	err := c.do(ctx, http.MethodGet, "/calls", nil, &answer)
	return answer.Calls, err
}

// Requests returns the latest requests in order.
func (c *Client) Requests(ctx context.Context) ([]Request, error) {
	var answer struct{ Requests []Request }
	err := c.do(ctx, http.MethodGet, "/requests", nil, &answer)
	return answer.Requests, err
}

// ResetCalls forgets the calls and requests so far.
func (c *Client) ResetCalls(ctx context.Context) error { return c.delete(ctx, "/calls", nil) }

// Violations returns all breaches of AWS' models so far.
func (c *Client) Violations(ctx context.Context) ([]Violation, error) {
	var answer struct{ Violations []Violation }
	err := c.do(ctx, http.MethodGet, "/violations", nil, &answer)
	return answer.Violations, err
}

// ResetViolations forgets them.
func (c *Client) ResetViolations(ctx context.Context) error { return c.delete(ctx, "/violations", nil) }

// Reset makes everything as at the start, but the issuers.
func (c *Client) Reset(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/reset", nil, nil)
}

// Addresses returns where the double listens.
func (c *Client) Addresses(ctx context.Context) (Addresses, error) {
	var addresses Addresses
	err := c.do(ctx, http.MethodGet, "/addresses", nil, &addresses)
	return addresses, err
}

func (c *Client) delete(ctx context.Context, path string, query url.Values) error {
	return c.do(ctx, http.MethodDelete, path+"?"+query.Encode(), nil, nil)
}

func (c *Client) do(ctx context.Context, method, path string, body, answer any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.address+path, bytes.NewReader(encoded))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	contents, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(contents))
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(contents, answer); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	return nil
}
