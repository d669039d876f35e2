package double

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

// maxAnswer is more than any answer of a control API.
const maxAnswer = 64 << 20

// Client uses a control API.
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
func (c *Client) Via(transport http.RoundTripper) { c.http.Transport = transport }

// Close closes its idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Get reads what is at path.
func (c *Client) Get(ctx context.Context, path string, answer any) error {
	return c.do(ctx, http.MethodGet, path, call{answer: answer})
}

// Post sends body to path. Answer may be nil.
func (c *Client) Post(ctx context.Context, path string, body, answer any) error {
	return c.do(ctx, http.MethodPost, path, call{body: body, answer: answer})
}

// Delete deletes what path and query name.
func (c *Client) Delete(ctx context.Context, path string, query url.Values) error {
	return c.do(ctx, http.MethodDelete, path+"?"+query.Encode(), call{})
}

// call is what goes with a request.
type call struct{ body, answer any }

func (c *Client) do(ctx context.Context, method, path string, with call) error {
	contents, err := c.exchange(ctx, method, path, with.body)
	if err == nil && with.answer != nil {
		err = json.Unmarshal(contents, with.answer)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) exchange(ctx context.Context, method, path string, body any) ([]byte, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.address+path, bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	contents, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(contents))
	}
	return contents, nil
}
