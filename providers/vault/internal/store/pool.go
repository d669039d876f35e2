package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/postern-dev/postern/providers/sdk"
)

const (
	// maxClients bounds the pool: addresses come from SecretProviderClasses.
	maxClients = 64
	// maxAnswerBytes bounds one answer, a little above what a volume may take.
	maxAnswerBytes = 16 << 20
	// maxTextBytes bounds what is repeated of a server's text.
	maxTextBytes = 512
	firstDelay   = 200 * time.Millisecond
	maxDelay     = 3 * time.Second
)

// errClient is a client that cannot be made.
var errClient = errors.New("cannot set up the client of the store")

// Config is what a Pool needs.
type Config struct {
	// Instrument wraps the transport of each client, for spans. May be nil.
	Instrument func(http.RoundTripper) http.RoundTripper
}

// Pool has a client for each server and TLS configuration, so that mounts
// share connections.
//
// Its invariants:
//  1. A client never holds a token: each request brings its own, and the
//     VAULT_TOKEN and VAULT_WRAP_TTL of the environment are not used.
//  2. A client's TLS files are those on disk: it is replaced when they change.
//  3. There are at most maxClients; the one not used for longest goes.
type Pool struct {
	instrument func(http.RoundTripper) http.RoundTripper

	mu      sync.Mutex
	clients map[clientKey]*client
}

// clientKey is what a client depends on. The namespace is not in it: it is a
// header of each request.
type clientKey struct {
	address string
	tls     TLS
	// files says which state of the TLS files the client was made of.
	files string
}

type client struct {
	api       *api.Client
	closeIdle func()
	retries   int
	used      time.Time
}

// New returns a Pool without clients.
func New(cfg Config) *Pool {
	if cfg.Instrument == nil {
		cfg.Instrument = func(rt http.RoundTripper) http.RoundTripper { return rt }
	}
	return &Pool{instrument: cfg.Instrument, clients: make(map[clientKey]*client)}
}

// Close closes the connections that are idle.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, c := range p.clients {
		c.closeIdle()
		delete(p.clients, key)
	}
}

func (p *Pool) client(ep Endpoint) (*client, error) {
	key := clientKey{address: ep.Address, tls: ep.TLS, files: stamps(ep.TLS)}
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.clients[key]
	if !ok {
		var err error
		if c, err = p.newClient(ep); err != nil {
			return nil, &Error{Err: fmt.Errorf("%w: %w", errClient, err)}
		}
		p.makeRoom()
		p.clients[key] = c
	}
	c.used = time.Now()
	return c, nil
}

func (p *Pool) makeRoom() {
	if len(p.clients) < maxClients {
		return
	}
	var oldest clientKey
	var found *client
	for key, c := range p.clients {
		if found == nil || c.used.Before(found.used) {
			oldest, found = key, c
		}
	}
	found.closeIdle()
	delete(p.clients, oldest)
}

func (p *Pool) newClient(ep Endpoint) (*client, error) {
	cfg := api.DefaultConfig() // reads the environment
	if cfg.Error != nil {
		return nil, cfg.Error
	}
	if err := cfg.ConfigureTLS(&api.TLSConfig{
		CACert: ep.TLS.CACert, CAPath: ep.TLS.CADirectory, TLSServerName: ep.TLS.ServerName,
		ClientCert: ep.TLS.ClientCert, ClientKey: ep.TLS.ClientKey, Insecure: ep.TLS.SkipVerify,
	}); err != nil {
		return nil, err
	}
	cfg.Address, cfg.AgentAddress = ep.Address, ""
	retries := cfg.MaxRetries
	cfg.MaxRetries = 0 // its waits of a second and more are not aware of what is being asked
	c, err := api.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	c.ClearToken()
	c.SetWrappingLookupFunc(func(string, string) string { return "" })
	closeIdle := cfg.HttpClient.CloseIdleConnections
	if transport, ok := cfg.HttpClient.Transport.(*http.Transport); ok {
		closeIdle = transport.CloseIdleConnections
	}
	cfg.HttpClient.Transport = p.instrument(cfg.HttpClient.Transport)
	return &client{api: c, closeIdle: closeIdle, retries: retries}, nil
}

// stamps tells the state of the TLS files.
func stamps(t TLS) string {
	var b strings.Builder
	for _, path := range []string{t.CACert, t.CADirectory, t.ClientCert, t.ClientKey} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%d-%d ", info.ModTime().UnixNano(), info.Size())
		}
	}
	return b.String()
}

// call is a request on its way.
type call struct {
	endpoint Endpoint
	token    sdk.SecretString
	// hidden is what else the server's texts must not repeat.
	hidden  sdk.SecretString
	request Request
	// retry says that it may be sent more than once.
	retry bool
}

// do sends a call, again if that is allowed and may help, until the retries
// are used up or the context's deadline would pass. Errors are [*Error].
func (p *Pool) do(ctx context.Context, c call) (*api.Secret, error) {
	cl, err := p.client(c.endpoint)
	if err != nil {
		return nil, err
	}
	for attempt := 0; ; attempt++ {
		secret, failure := cl.once(ctx, c)
		if failure == nil {
			return secret, nil
		}
		if !c.retry || attempt >= cl.retries || ctx.Err() != nil || !failure.again(c.request.ReadOnly()) {
			return nil, failure
		}
		delay := min(firstDelay<<attempt, maxDelay)
		delay = max(delay/2+rand.N(delay/2+1), failure.RetryAfter) //nolint:gosec // jitter is no secret
		if deadline, ok := ctx.Deadline(); delay > 2*maxDelay || (ok && time.Until(deadline) <= delay) {
			return nil, failure
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, failure
		}
	}
}

func (c *client) once(ctx context.Context, call call) (*api.Secret, *Error) {
	store := c.api
	if call.endpoint.Namespace != "" {
		store = store.WithNamespace(call.endpoint.Namespace)
	}
	r := store.NewRequest(call.request.Method, "/"+call.request.Path)
	r.ClientToken = call.token.Reveal()
	for name, values := range call.request.Query {
		r.Params[name] = values
	}
	if len(call.request.Body) > 0 {
		r.Obj, r.BodyBytes = call.request.Body, call.request.Body
	}
	// RawRequest is the API's only way to choose a method and to see statuses.
	resp, err := store.RawRequestWithContext(ctx, r) //nolint:staticcheck // see above
	// Of an error status it makes an error, which holds the whole answer.
	if _, answered := errors.AsType[*api.ResponseError](err); err != nil && !answered {
		return nil, &Error{Err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return nil, &Error{Err: fmt.Errorf("read the store's answer: %w", err)}
	case len(body) > maxAnswerBytes:
		return nil, &Error{Status: resp.StatusCode, Texts: []string{"the answer is larger than 16 MiB"}}
	case resp.StatusCode >= 300:
		return nil, failureOf(resp, body, call)
	case len(bytes.TrimSpace(body)) == 0:
		return nil, nil //nolint:nilnil // 204: for revocations that is success
	}
	secret, err := api.ParseSecret(bytes.NewReader(body))
	if err != nil { // its text may quote the content
		return nil, &Error{Status: resp.StatusCode, Texts: []string{"the answer is not the API's: does the address lead to Vault?"}}
	}
	return secret, nil
}

// failureOf decodes an answer that is no success.
func failureOf(resp *api.Response, body []byte, call call) *Error {
	e := &Error{Status: resp.StatusCode}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	var said struct {
		Errors   []string       `json:"errors"`
		Warnings []string       `json:"warnings"`
		Data     map[string]any `json:"data"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return e // a proxy's page, maybe: not to be repeated
	}
	e.Texts, e.Warnings = call.clean(said.Errors), call.clean(said.Warnings)
	metadata, _ := said.Data["metadata"].(map[string]any)
	deletion, _ := metadata["deletion_time"].(string)
	e.Deleted = resp.StatusCode == http.StatusNotFound && (deletion != "" || metadata["destroyed"] == true)
	return e
}

// clean takes tokens and line breaks out of a server's texts.
func (c *call) clean(texts []string) []string {
	var cleaned []string
	for _, text := range texts {
		for _, hidden := range []sdk.SecretString{c.token, c.hidden} {
			if !hidden.IsZero() {
				text = strings.ReplaceAll(text, hidden.Reveal(), placeholder)
			}
		}
		text = strings.Join(strings.Fields(text), " ")
		if len(text) > maxTextBytes {
			text = strings.ToValidUTF8(text[:maxTextBytes], "") + "..."
		}
		cleaned = append(cleaned, text)
	}
	return cleaned
}
