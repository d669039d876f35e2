package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"

	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// Where the agent answers on every node that has it.
const (
	AgentIPv4 = "http://169.254.170.23/v1/credentials"
	AgentIPv6 = "http://[fd00:ec2::23]/v1/credentials"
)

// DefaultAgentTimeout is for one request to the agent, which may have to ask AWS.
const DefaultAgentTimeout = 5 * time.Second

const (
	// agentAttempts is how often the agent is asked at most, for one login.
	agentAttempts = 3
	// maxAgentDelay is between two attempts. Who asks for more is not asked again.
	maxAgentDelay = 2 * time.Second
	// maxAgentAnswer is many times what credentials take. Of more, the rest is not
	// read.
	maxAgentAnswer = 1 << 20
)

// AgentEndpoints are URLs of the EKS Pod Identity agent; "" is AgentIPv4, and
// AgentIPv6.
type AgentEndpoints struct {
	IPv4, IPv6 string
}

// agent is the EKS Pod Identity agent of the node.
type agent struct {
	client    *http.Client
	endpoints AgentEndpoints
	timeout   time.Duration
	backoff   retry.BackoffDelayer
}

func newAgent(cfg Config) *agent {
	a := &agent{
		endpoints: cfg.AgentEndpoints, timeout: cfg.AgentTimeout,
		backoff: retry.NewExponentialJitterBackoff(maxAgentDelay),
	}
	if a.endpoints.IPv4 == "" {
		a.endpoints.IPv4 = AgentIPv4
	}
	if a.endpoints.IPv6 == "" {
		a.endpoints.IPv6 = AgentIPv6
	}
	client := http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	if cfg.AgentHTTPClient != nil {
		client = *cfg.AgentHTTPClient
	}
	// A redirect would take the token elsewhere.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a.client = &client
	return a
}

// credentials asks the agent, more than once if that may help.
func (a *agent) credentials(ctx context.Context, use Use) (aws.Credentials, error) {
	for attempt := 1; ; attempt++ {
		credentials, failure := a.ask(ctx, use)
		if failure == nil {
			return credentials, nil
		}
		delay, again := a.again(attempt, failure)
		if !again {
			return aws.Credentials{}, failure
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return aws.Credentials{}, failure
		}
	}
}

// again tells whether the agent is asked once more, and when. One that does not
// answer has had its time.
func (a *agent) again(attempt int, failure *Error) (delay time.Duration, ok bool) {
	if attempt == agentAttempts || !passing(failure) || errors.Is(failure.Err, context.DeadlineExceeded) {
		return 0, false
	}
	delay, err := a.backoff.BackoffDelay(attempt-1, failure)
	delay = max(delay, failure.RetryAfter)
	return delay, err == nil && delay <= maxAgentDelay
}

// ask asks by one kind of address and, if the agent cannot be reached by it, by
// the other.
func (a *agent) ask(ctx context.Context, use Use) (aws.Credentials, *Error) {
	var unreached []error
	for _, endpoint := range a.choose(use.AddressType) {
		credentials, err := a.get(ctx, endpoint, use.Token)
		if err == nil {
			return credentials, nil
		}
		if failure, ok := errors.AsType[*Error](err); ok {
			return aws.Credentials{}, failure
		}
		unreached = append(unreached, err)
	}
	texts := make([]string, len(unreached))
	for i, err := range unreached {
		texts[i] = err.Error()
	}
	return aws.Credentials{}, &Error{
		Operation: OperationPodIdentity, Kind: Unavailable,
		Message: said(strings.Join(texts, "; "), use.Token), Err: errors.Join(unreached...),
	}
}

func (a *agent) choose(by params.AddressType) []string {
	switch by {
	case params.IPv4:
		return []string{a.endpoints.IPv4}
	case params.IPv6:
		return []string{a.endpoints.IPv6}
	default:
		return []string{a.endpoints.IPv4, a.endpoints.IPv6}
	}
}

// get does one request. An *Error is of the agent's answer; any other says that
// there was none.
func (a *agent) get(ctx context.Context, endpoint string, token sdk.SecretString) (aws.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, http.NoBody)
	if err != nil {
		return aws.Credentials{}, &Error{Operation: OperationPodIdentity, Kind: Invalid, Message: err.Error()}
	}
	req.Header.Set("Authorization", token.Reveal())
	req.Header.Set("Accept", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return aws.Credentials{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAgentAnswer))
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("read the answer of %s: %w", endpoint, err)
	}
	if resp.StatusCode != http.StatusOK {
		return aws.Credentials{}, agentRefusal(resp, body, token)
	}
	return agentCredentials(body)
}

// agentCredentials reads an answer. Its errors hold nothing of it.
func agentCredentials(body []byte) (aws.Credentials, error) {
	var answer struct {
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string
		Token           string
		AccountID       string `json:"AccountId"`
		Expiration      time.Time
	}
	if json.Unmarshal(body, &answer) != nil {
		return aws.Credentials{}, &Error{
			Operation: OperationPodIdentity, Kind: Unavailable, Status: http.StatusOK,
			Message: "the answer is none of the agent: check what is at its address",
		}
	}
	return aws.Credentials{
		AccessKeyID: answer.AccessKeyID, SecretAccessKey: answer.SecretAccessKey, SessionToken: answer.Token,
		AccountID: answer.AccountID, Expires: answer.Expiration,
	}, nil
}

// agentText is how the agent passes on what AWS said.
var agentText = regexp.MustCompile(`\(([A-Za-z]+)\): (.*?)(?:, fault: \w+)?$`)

// agentRefusal reads an answer that is no success: a text or, of others that serve
// the same protocol, JSON.
func agentRefusal(resp *http.Response, body []byte, token sdk.SecretString) *Error {
	e := &Error{
		Operation: OperationPodIdentity, Status: resp.StatusCode, RetryAfter: sdk.RetryAfter(resp.Header),
		Message: said(string(body), token),
	}
	var answer struct{ Code, Message string }
	if json.Unmarshal(body, &answer) == nil && answer.Message != "" {
		e.Code, e.Message = said(answer.Code, token), said(answer.Message, token)
	} else if found := agentText.FindStringSubmatch(e.Message); found != nil {
		e.Code, e.Message = found[1], found[2]
	}
	e.Kind = kindOf(e.Code, e.Status)
	return e
}
