package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// managedCredential asks the node's instance metadata service.
func (m *Manager) managedCredential(k key, e *exchange) (azcore.TokenCredential, error) {
	e.next = m.cfg.LocalHTTPClient
	if m.cfg.IMDSEndpoint != "" {
		to, err := url.Parse(m.cfg.IMDSEndpoint)
		if err != nil {
			return nil, fmt.Errorf("endpoint of the instance metadata service: %w", err)
		}
		e.next = newElsewhere(to, m.cfg.LocalHTTPClient)
	}
	opts := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: e.options(m.cfg.ClientOptions)}
	if k.client != "" {
		opts.ID = azidentity.ClientID(k.client)
	}
	return azidentity.NewManagedIdentityCredential(opts)
}

// podCredential asks the NMI of AAD Pod Identity, which knows by the pod's labels
// which identity is its.
type podCredential struct {
	pipeline       runtime.Pipeline
	endpoint       string
	namespace, pod string
}

func newPodCredential(endpoint string, k key, opts azcore.ClientOptions) *podCredential {
	return &podCredential{
		pipeline: runtime.NewPipeline("azure", "", runtime.PipelineOptions{}, &opts),
		endpoint: endpoint, namespace: k.subject.Namespace, pod: k.pod,
	}
}

// GetToken makes the request.
func (c *podCredential) GetToken(ctx context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	req, err := runtime.NewRequest(ctx, http.MethodGet, c.endpoint)
	if err != nil {
		return azcore.AccessToken{}, fmt.Errorf("endpoint of the NMI: %w", err)
	}
	query := req.Raw().URL.Query()
	query.Set("resource", resourceOf(strings.Join(opts.Scopes, " ")))
	req.Raw().URL.RawQuery = query.Encode()
	req.Raw().Header.Set("podname", c.pod)
	req.Raw().Header.Set("podns", c.namespace)
	resp, err := c.pipeline.Do(req)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return azcore.AccessToken{}, errors.New("refused") // the exchange has the answer
	}
	body, err := runtime.Payload(resp)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	return nmiToken(body)
}

// nmiToken reads an answer: a token with its times as numbers or as texts, in a
// field or at the top. Its errors hold nothing of it.
func nmiToken(body []byte) (azcore.AccessToken, error) {
	type token struct {
		Access    string `json:"access_token"`
		ExpiresOn number `json:"expires_on"`
		ExpiresIn number `json:"expires_in"`
	}
	var answer struct {
		token
		Token token `json:"token"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return azcore.AccessToken{}, errors.New("the answer is malformed")
	}
	t := answer.Token
	if t.Access == "" {
		t = answer.token
	}
	got := azcore.AccessToken{Token: t.Access}
	switch {
	case t.Access == "" || t.ExpiresOn <= 0 && t.ExpiresIn <= 0:
		return azcore.AccessToken{}, errors.New("the answer is incomplete")
	case t.ExpiresOn > 0:
		got.ExpiresOn = time.Unix(int64(t.ExpiresOn), 0)
	default:
		got.ExpiresOn = time.Now().Add(time.Duration(t.ExpiresIn) * time.Second)
	}
	return got, nil
}

// number is one, or a text with one.
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if text == "" || text == "null" {
		return nil
	}
	value, err := strconv.ParseInt(text, 10, 64)
	*n = number(value)
	return err
}
