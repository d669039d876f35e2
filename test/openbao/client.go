package openbao

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// maxAnswer is more than any answer that tests read.
const maxAnswer = 1 << 20

// Client uses the API of an OpenBao as root.
type Client struct {
	// Address is its URL.
	Address string

	rootToken string
	http      *http.Client
}

// NewClient returns a client for the server at address.
func NewClient(address, rootToken string) *Client {
	return &Client{Address: address, rootToken: rootToken, http: &http.Client{Timeout: 10 * time.Second}}
}

// Via has the client make its connections through transport, such as one into
// a cluster's network.
func (c *Client) Via(transport http.RoundTripper) *Client {
	c.http.Transport = transport
	return c
}

// RootToken returns the token that may do everything.
func (c *Client) RootToken() string { return c.rootToken }

// Initialize makes a new server's keys and its root token, which this client
// uses from then on. The server has to unseal itself.
func (c *Client) Initialize(ctx context.Context) error {
	var answer struct {
		RootToken string `json:"root_token"`
	}
	if err := c.do(ctx, http.MethodPut, "sys/init", map[string]any{"recovery_shares": 1, "recovery_threshold": 1}, &answer); err != nil {
		return err
	}
	c.rootToken = answer.RootToken
	return nil
}

// Read reads a path of the API below v1/ into answer, which may be nil.
func (c *Client) Read(ctx context.Context, path string, answer any) error {
	return c.do(ctx, http.MethodGet, path, nil, answer)
}

// Write sends body to a path of the API below v1/.
func (c *Client) Write(ctx context.Context, path string, body map[string]any) error {
	return c.do(ctx, http.MethodPost, path, body, nil)
}

// Delete deletes a path of the API below v1/.
func (c *Client) Delete(ctx context.Context, path string) error {
	return c.do(ctx, http.MethodDelete, path, nil, nil)
}

// PutSecret writes a version of a kv-v2 secret at secret/<path>.
func (c *Client) PutSecret(ctx context.Context, path string, data map[string]any) error {
	return c.Write(ctx, "secret/data/"+path, map[string]any{"data": data})
}

// PutPolicy writes an ACL policy in HCL.
func (c *Client) PutPolicy(ctx context.Context, name, policy string) error {
	return c.Write(ctx, "sys/policies/acl/"+name, map[string]any{"policy": policy})
}

// Kubernetes is the cluster whose service accounts may log in.
type Kubernetes struct {
	// Host is the API server's URL.
	Host string
	// CAFile is the certificate to trust it by.
	CAFile string
	// ReviewerToken may create TokenReviews.
	ReviewerToken string
}

// EnableKubernetesAuth enables the auth method at auth/kubernetes.
func (c *Client) EnableKubernetesAuth(ctx context.Context, k Kubernetes) error {
	ca, err := os.ReadFile(k.CAFile)
	if err != nil {
		return fmt.Errorf("read the API server's certificate: %w", err)
	}
	if err := c.Write(ctx, "sys/auth/kubernetes", map[string]any{"type": "kubernetes"}); err != nil {
		return err
	}
	return c.Write(ctx, "auth/kubernetes/config", map[string]any{
		"kubernetes_host": k.Host, "kubernetes_ca_cert": string(ca),
		"token_reviewer_jwt": k.ReviewerToken, "disable_local_ca_jwt": true,
	})
}

// Role lets a service account log in.
type Role struct {
	Name, Namespace, ServiceAccount, Audience string
	Policies                                  []string
}

// PutRole writes a role of the kubernetes auth method.
func (c *Client) PutRole(ctx context.Context, r Role) error {
	body := map[string]any{
		"bound_service_account_names": r.ServiceAccount, "bound_service_account_namespaces": r.Namespace,
		"token_policies": strings.Join(r.Policies, ","), "token_ttl": "20m",
	}
	if r.Audience != "" {
		body["audience"] = r.Audience
	}
	return c.Write(ctx, "auth/kubernetes/role/"+r.Name, body)
}

func (c *Client) do(ctx context.Context, method, path string, body map[string]any, answer any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Address+"/v1/"+path, bytes.NewReader(encoded))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("X-Vault-Token", c.rootToken)
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
