package keyvault

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// idleClients is how long a client is kept that nobody uses. Its token has ended by
// then, or soon will.
const idleClients = time.Hour

// clients keeps the SDK's, each with the challenge that it got.
//
// Its invariants:
//  1. A client is of one vault, one identity and one type of object. It has the
//     credential that it was made with.
//  2. There are at most max; the one not used for longest goes. Who has it goes on
//     with it.
type clients struct {
	options azcore.ClientOptions
	max     int

	mu    sync.Mutex
	byKey map[clientKey]*list.Element
	// used has *client values, the latest used first.
	used *list.List
}

type clientKey struct {
	url, identity string
	kind          params.ObjectType
}

type client struct {
	key       clientKey
	service   service
	challenge *challenge
	used      time.Time
}

func newClients(options azcore.ClientOptions, most int) *clients {
	return &clients{options: options, max: most, byKey: make(map[clientKey]*list.Element), used: list.New()}
}

// of returns the client of a vault for a type of object.
func (c *clients) of(vault Vault, kind params.ObjectType) (*client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := clientKey{vault.URL, vault.Identity, kind}
	place, ok := c.byKey[key]
	if !ok {
		made, err := c.make(key, vault.Credential)
		if err != nil {
			return nil, err
		}
		place = c.used.PushFront(made)
		c.byKey[key] = place
	}
	one, _ := place.Value.(*client) // used has nothing else
	one.used = time.Now()
	c.used.MoveToFront(place)
	c.drop()
	return one, nil
}

// drop forgets clients that are too many, or that nobody uses.
func (c *clients) drop() {
	for last := c.used.Back(); last != nil; last = c.used.Back() {
		one, _ := last.Value.(*client)
		if len(c.byKey) <= c.max && time.Since(one.used) < idleClients {
			return
		}
		c.used.Remove(last)
		delete(c.byKey, one.key)
	}
}

// make makes a client. Of the policies that are added to the SDK's own, the one for
// the host comes before that for tokens, and the challenge after it.
func (c *clients) make(key clientKey, credential azcore.TokenCredential) (*client, error) {
	address, err := url.Parse(key.url)
	if err != nil || address.Scheme != "https" || address.Host == "" {
		return nil, fmt.Errorf("%q is no address of a vault", key.url)
	}
	one := &client{key: key, challenge: new(challenge)}
	options := c.options
	options.PerCallPolicies = append(slices.Clone(options.PerCallPolicies), vaultHost(strings.TrimSuffix(address.Host, ":443")))
	options.PerRetryPolicies = append(slices.Clone(options.PerRetryPolicies), one.challenge)
	one.service, err = newService(key, tokens{credential}, options)
	return one, err
}

// vaultHost is the only host that a client's requests go to. Lists lead to their next
// page by an address of the vault's choice, which gets the token, too. Key Vault
// writes TLS' own port into it, with which the SDK would not know the host again, and
// spells its name its own way.
type vaultHost string

// errElsewhere is a page that leads away from the vault.
var errElsewhere = errors.New("the vault's answer leads to another host than its own")

// Do sends a request on.
func (h vaultHost) Do(req *policy.Request) (*http.Response, error) {
	address := req.Raw().URL
	if address.Scheme != "https" || !strings.EqualFold(strings.TrimSuffix(address.Host, ":443"), string(h)) {
		return nil, errElsewhere
	}
	address.Host = string(h)
	return req.Next()
}

// tokens has the errors of a credential told from others.
type tokens struct{ azcore.TokenCredential }

// tokenError is why a credential gives no token for what a vault's challenge names.
type tokenError struct{ error }

func (e *tokenError) Unwrap() error { return e.error }

func (t tokens) GetToken(ctx context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := t.TokenCredential.GetToken(ctx, opts)
	if err != nil {
		return azcore.AccessToken{}, &tokenError{err}
	}
	return token, nil
}
