package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/googleapis/gax-go/v2"

	"github.com/postern-dev/postern/providers/sdk"
)

const (
	// tryTimeout bounds one request.
	tryTimeout = 10 * time.Second
	// maxRetries is for one request; a login makes one or two.
	maxRetries = 2
	// retryDelay is before the first retry at most; later ones are some times longer.
	retryDelay = 400 * time.Millisecond
	// maxRetryDelay is between two attempts. Who asks for more is not asked again.
	maxRetryDelay = 2 * time.Second
	// maxAnswer is many times what an answer takes.
	maxAnswer = 1 << 20
)

// exchange is the requests of one login. It remembers the last answer: of that the
// errors of Google's packages tell less, and some of their texts repeat a token.
//
// Its invariants:
//  1. One goroutine uses it at a time.
//  2. last is of the last request, with the whole body of the answer, or with the
//     error instead.
//  3. No request for a pod is made but by TLS, and none follows a redirect.
type exchange struct {
	key       key
	operation string
	// secrets are what the login is made with: they must be in no message.
	secrets  []sdk.SecretString
	deadline time.Time // zero: none
	next     *http.Client
	last     answer
}

// answer is to one request. Its URL is nil if there was none.
type answer struct {
	url    *url.URL
	status int
	header http.Header
	body   []byte
	err    error
}

// success reports whether an answer is one.
func (a answer) success() bool {
	return a.err == nil && a.status >= http.StatusOK && a.status < http.StatusMultipleChoices
}

// retryAfter is when to ask again, if the header says so (RFC 9110, section 10.2.3).
func (a answer) retryAfter() time.Duration {
	value := a.header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

func (m *Manager) newExchange(ctx context.Context, k key, proof sdk.SecretString) *exchange {
	e := &exchange{key: k, operation: operationOf(k.kind), next: m.client}
	e.hide(proof)
	e.deadline, _ = ctx.Deadline()
	return e
}

func (e *exchange) hide(secret sdk.SecretString) {
	if !secret.IsZero() {
		e.secrets = append(e.secrets, secret)
	}
}

// client is one whose requests are the exchange's.
func (e *exchange) client() *http.Client { return withoutRedirects(&http.Client{Transport: e}) }

// withoutRedirects returns a client that takes a redirect for an answer: following
// it would take a token elsewhere.
func withoutRedirects(client *http.Client) *http.Client {
	straight := *client
	straight.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &straight
}

// post sends a message as JSON, and returns nil if the answer is a success.
func (e *exchange) post(ctx context.Context, address string, bearer sdk.SecretString, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return e.invalid(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return e.invalid(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if !bearer.IsZero() {
		req.Header.Set("Authorization", bearerType+" "+bearer.Reveal())
	}
	resp, err := e.client().Do(req)
	if err != nil {
		return e.failure(err)
	}
	_ = resp.Body.Close()
	if !e.last.success() {
		return e.failure(nil)
	}
	return nil
}

// RoundTrip makes a request, and makes it again where that may help.
func (e *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer func() { _ = req.Body.Close() }()
	}
	backoff := gax.Backoff{Initial: retryDelay, Max: maxRetryDelay, Multiplier: 2}
	for tries := 0; ; tries++ {
		resp, err := e.try(req)
		if tries == maxRetries || !e.again() {
			return resp, err
		}
		if gax.Sleep(req.Context(), max(backoff.Pause(), e.last.retryAfter())) != nil {
			return resp, err
		}
	}
}

func (e *exchange) try(req *http.Request) (*http.Response, error) {
	e.last = answer{url: req.URL}
	resp, err := e.send(req)
	if sending, ok := errors.AsType[*url.Error](err); ok {
		err = sending.Err // the address is said by who has it
	}
	if err != nil {
		e.last.err = err
		return nil, err
	}
	return resp, nil
}

// errPlaintext is of an address without TLS.
var errPlaintext = errors.New("the address has no TLS, and nothing is sent there")

func (e *exchange) send(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && e.key.kind != Provider {
		return nil, errPlaintext
	}
	ctx, cancel := context.WithTimeout(req.Context(), tryTimeout)
	defer cancel()
	once := req.Clone(ctx)
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		once.Body = body
	}
	resp, err := e.next.Do(once) //nolint:gosec // the addresses are the operator's: check and withKey see to it
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	_ = resp.Body.Close()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	e.last.status, e.last.header, e.last.body = resp.StatusCode, resp.Header, body
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// again reports whether a request is made once more, because that may help. What
// did not answer in time has had its time, and nobody is waited for beyond the
// deadline.
func (e *exchange) again() bool {
	if !e.deadline.IsZero() && time.Until(e.deadline) <= maxRetryDelay || e.last.retryAfter() > maxRetryDelay {
		return false
	}
	if err := e.last.err; err != nil {
		dns, ok := errors.AsType[*net.DNSError](err)
		_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
		return !isTimeout(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, errPlaintext) && !untrusted &&
			(!ok || !dns.IsNotFound)
	}
	switch status := e.last.status; status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	default:
		return status >= http.StatusInternalServerError
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout()
}
