package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"

	"github.com/postern-dev/postern/providers/sdk"
)

const (
	// tryTimeout bounds one request.
	tryTimeout = 10 * time.Second
	// maxRetries is for one request; a login makes one or two.
	maxRetries = 2
	// retryDelay is before the first retry, about; later ones are some times longer.
	retryDelay = 400 * time.Millisecond
	// maxRetryDelay is between two attempts. Who asks for more is not asked again.
	maxRetryDelay = 2 * time.Second
	// maxAnswer is many times what an answer takes.
	maxAnswer = 1 << 20
)

// exchange is the requests of one login. It remembers the last answer: of that the
// SDK's errors tell less, and the texts of some repeat an access token.
//
// Its invariants:
//  1. One goroutine uses it.
//  2. last is of the last request, with the whole body of the answer, or with the
//     error instead.
//  3. No request to Entra is made but by TLS, whatever the tenant's metadata say.
type exchange struct {
	key       key
	operation string
	proof     sdk.SecretString
	deadline  time.Time // zero: none
	next      policy.Transporter
	close     func()
	last      answer
}

// answer is to one request. Its URL is nil if there was none.
type answer struct {
	url    *url.URL
	status int
	header http.Header
	body   []byte
	err    error
}

func newExchange(ctx context.Context, k key, proof sdk.SecretString) *exchange {
	e := &exchange{key: k, operation: operationOf(k.kind), proof: proof, close: func() {}}
	e.deadline, _ = ctx.Deadline()
	return e
}

// options are the SDK's, for a credential of this login.
func (e *exchange) options(base azcore.ClientOptions) azcore.ClientOptions {
	base.Transport = e
	base.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: e.key.cloud.AuthorityHost}
	base.Logging = policy.LogOptions{}        // no bodies
	base.TracingProvider = tracing.Provider{} // its spans would hold the SDK's texts
	base.Retry = policy.RetryOptions{
		MaxRetries: maxRetries, TryTimeout: tryTimeout, RetryDelay: retryDelay, MaxRetryDelay: maxRetryDelay,
		ShouldRetry: func(*http.Response, error) bool { return e.again() },
	}
	return base
}

// again reports whether a request is made once more, because that may help. What
// did not answer in time has had its time, and nobody is waited for beyond the
// deadline.
func (e *exchange) again() bool {
	if !e.deadline.IsZero() && time.Until(e.deadline) <= maxRetryDelay {
		return false
	}
	if err := e.last.err; err != nil {
		dns, ok := errors.AsType[*net.DNSError](err)
		_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
		return !isTimeout(err) && !errors.Is(err, errPlaintext) && !untrusted && (!ok || !dns.IsNotFound)
	}
	switch status := e.last.status; status {
	case http.StatusRequestTimeout, http.StatusGone, http.StatusTooManyRequests:
		return true
	case http.StatusNotFound:
		return e.key.kind == ManagedIdentity // the service is being updated
	default:
		return status >= http.StatusInternalServerError
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout()
}

// errPlaintext is of metadata that name an address without TLS.
var errPlaintext = errors.New("the address has no TLS, and nothing is sent there")

// Do makes a request.
func (e *exchange) Do(req *http.Request) (*http.Response, error) {
	e.last = answer{url: req.URL}
	resp, err := e.send(req)
	if err != nil {
		e.last.err = err
		return nil, err
	}
	e.last.status, e.last.header = resp.StatusCode, resp.Header
	return resp, nil
}

func (e *exchange) send(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !e.key.kind.ofNode() {
		return nil, errPlaintext
	}
	resp, err := e.next.Do(req)
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
	e.last.body, resp.Body = body, io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// host is who was asked last.
func (e *exchange) host() string {
	if moved, ok := e.next.(*elsewhere); ok {
		return moved.to.Host
	}
	return e.last.url.Host
}

// ofNode reports whether the node answers, and not Entra.
func (k Kind) ofNode() bool { return k == ManagedIdentity || k == PodIdentity }

// problem says why a token cannot be used, without the token.
func (e *exchange) problem(got azcore.AccessToken) string {
	switch {
	case got.Token == "":
		return "the answer holds no access token"
	case !strings.EqualFold(e.last.tokenType(), bearer):
		return "the answer's token is no bearer token"
	case got.ExpiresOn.IsZero():
		return "the answer does not say when the token expires"
	case !time.Now().Before(got.ExpiresOn):
		return fmt.Sprintf("the token has expired when it arrives, at %s: check the node's clock",
			got.ExpiresOn.UTC().Format(time.RFC3339))
	default:
		return ""
	}
}

// bearer is the type of tokens that vaults accept.
const bearer = "Bearer"

// tokenType is what an answer says of its token; without that, it is a bearer's.
func (a answer) tokenType() string {
	type typed struct {
		Type string `json:"token_type"`
	}
	var of struct {
		typed
		Token typed `json:"token"` // of the NMI
	}
	_ = json.Unmarshal(a.body, &of) // the SDK has read it before
	return cmp.Or(of.Type, of.Token.Type, bearer)
}

// success reports whether an answer is one.
func (a answer) success() bool {
	return slices.Contains([]int{http.StatusOK, http.StatusCreated, http.StatusAccepted}, a.status)
}
