package keyvault

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// challenge is what a client learns of a vault with its first request: the tenant
// and the resource that tokens have to be of.
//
// Its invariants:
//  1. Until it is known, one request of the client is made at a time, so that the
//     vault is asked for it once.
//  2. Who waits for it while that request fails has the same failure, and makes
//     none.
//  3. Once it is known nobody waits.
type challenge struct {
	mu    sync.Mutex
	known bool
	// first is the request that asks, if there is one.
	first *asking
}

// asking is a request that asks for the challenge. When done is closed, failure says
// why it is still not known; nil if it is, or if that is no reason for others.
type asking struct {
	done    chan struct{}
	failure *Error
}

// wait returns when a request may be made: when the challenge is known, or when the
// request is the first, which is then to be told done. Otherwise there is a failure,
// or ctx has ended.
func (c *challenge) wait(ctx context.Context) (first bool, failure *Error) {
	for {
		c.mu.Lock()
		if c.known {
			c.mu.Unlock()
			return false, nil
		}
		one := c.first
		if one == nil {
			c.first = &asking{done: make(chan struct{})}
			c.mu.Unlock()
			return true, nil
		}
		c.mu.Unlock()
		select {
		case <-one.done:
		case <-ctx.Done():
			return false, nil
		}
		if one.failure != nil {
			return false, one.failure
		}
	}
}

// learned says that the vault's challenge is known.
func (c *challenge) learned() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = true
	c.end(nil)
}

// done says that the first request has ended, and how. It returns the failure if it
// is why the challenge is not known.
func (c *challenge) done(failure *Error) *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(failure)
	if c.known {
		return nil
	}
	return failure
}

func (c *challenge) end(failure *Error) {
	if c.first != nil {
		c.first.failure = failure
		close(c.first.done)
		c.first = nil
	}
}

// transportError is why a request got no answer.
type transportError struct{ error }

func (e *transportError) Unwrap() error { return e.error }

// Do sends a request of the client, and sees what comes back.
func (c *challenge) Do(req *policy.Request) (*http.Response, error) {
	a := attemptsOf(req.Raw().Context())
	a.token = req.Raw().Header.Get("Authorization")
	if a.token != "" {
		c.learned()
	}
	a.status = 0
	resp, err := req.Next()
	if err != nil {
		return nil, &transportError{err}
	}
	a.status = resp.StatusCode
	if resp.StatusCode == http.StatusUnauthorized {
		return resp, checkChallenge(resp, a.token != "")
	}
	return resp, nil
}

// errNoChallenge is a refusal that does not say what it wants. No vault gives one.
var errNoChallenge = errors.New("the answer asks for a login without saying of which tenant and for what")

// checkChallenge looks at a refusal before the SDK does, which takes its parts for
// granted. One that breaks the form is no challenge; after a token was refused the
// refusal is enough.
func checkChallenge(resp *http.Response, hadToken bool) error {
	const header = "WWW-Authenticate"
	if whole(resp.Header.Get(header)) {
		return nil
	}
	resp.Header.Del(header)
	if hadToken {
		return nil
	}
	return errNoChallenge
}

// whole reports whether a challenge names an authority with a tenant, and a resource
// or scope.
func whole(text string) bool {
	var tenant, resource bool
	for part := range strings.SplitSeq(strings.ReplaceAll(text, "Bearer ", ""), " ") {
		pair := strings.Split(part, "=")
		if len(pair) != 2 {
			continue
		}
		value := strings.TrimSuffix(strings.ReplaceAll(pair[1], `"`, ""), ",")
		switch pair[0] {
		case "authorization":
			segments := strings.Split(value, "/")
			tenant = len(segments) > 3 && segments[3] != ""
		case "resource", "scope":
			resource = value != ""
		}
	}
	return tenant && resource
}
