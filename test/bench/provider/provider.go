// Package provider is a provider whose store is made up: it has the latency and
// the rate limit that the SecretProviderClass asks for, and costs nothing else.
// Drivers that are compared by it pay the same price for the same call.
//
// What it serves is one file, "secret", that says whose it is: an answer that
// reaches the wrong pod shows.
package provider

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/postern-dev/postern/providers/sdk"
)

// Names of the class's parameters.
const (
	ParameterStore       = "store"
	ParameterLatency     = "latency"
	ParameterRate        = "rate"
	ParameterRefuseFirst = "refuseFirst"
)

const (
	// Name is the provider's.
	Name = "bench"
	// Audience of the token that each fetch has to bring.
	Audience = "bench"
	// File is the name of the file that is served.
	File = "secret"
	// freshFor is longer than any benchmark: how long an answer is used again is
	// up to the gateway.
	freshFor = time.Hour
	// retryAfter is what a store over its limit asks for.
	retryAfter = time.Second
)

// Definition describes the provider to the sdk.
func Definition() sdk.Definition {
	return sdk.Definition{
		Name:      Name,
		Audiences: []sdk.Audience{{Value: Audience}},
		Parameters: []sdk.Parameter{
			{Name: ParameterStore, Description: "The store's name: each has a limit of its own.", Required: true, LocatesStore: true},
			{Name: ParameterLatency, Description: "How long the store takes for an answer."},
			{Name: ParameterRate, Description: "How many calls per second the store takes before it refuses; 0 is no limit."},
			{Name: ParameterRefuseFirst, Description: "Whether the store refuses the first call for each pod."},
		},
		New: func(context.Context, sdk.Environment) (sdk.Provider, error) { return New(), nil },
	}
}

// Content is what the file holds for a pod of a service account.
func Content(namespace, serviceAccount string) string { return namespace + "/" + serviceAccount }

// Provider serves made-up stores.
//
// Invariants:
//  1. A store's limit and what it remembers are shared by all its classes, and
//     by no other store.
//  2. A refused call takes no time, a served one the latency.
type Provider struct {
	mu     sync.Mutex
	stores map[string]*store
}

// store is one made-up store. Its limit is the first caller's.
type store struct {
	limit *rate.Limiter // nil: none

	mu   sync.Mutex
	pods map[string]bool // that were refused once
}

// New returns a Provider.
func New() *Provider { return &Provider{stores: map[string]*store{}} }

// Fetch takes the store's time and serves one file.
func (p *Provider) Fetch(ctx context.Context, req *sdk.Request) (*sdk.Response, error) {
	d := sdk.NewDecoder(req.Parameters)
	name := d.Required(ParameterStore, "is required: name the store")
	latency := d.Duration(ParameterLatency, 0)
	perSecond := d.Int(ParameterRate, 0)
	refuseFirst := d.Bool(ParameterRefuseFirst, false)
	if err := d.Err(); err != nil {
		return nil, err
	}
	if _, ok := req.Tokens.For(Audience); !ok {
		return nil, sdk.TokenMissing(Audience)
	}
	s := p.store(name, perSecond)
	if refuseFirst && s.first(req.Pod.UID) {
		return nil, sdk.RateLimited("", 0, "store %q refuses the first call for each pod", name)
	}
	if s.limit != nil && !s.limit.Allow() {
		return nil, sdk.RateLimited("", retryAfter, "store %q takes %d calls per second", name, perSecond)
	}
	if err := wait(ctx, latency); err != nil {
		return nil, err
	}
	account := req.Pod.ServiceAccount.Name
	return &sdk.Response{
		Files: []sdk.File{{
			Path: File, Mode: req.DefaultFileMode,
			Contents: sdk.NewSecret([]byte(Content(req.Pod.Namespace, account))),
		}},
		Objects:  []sdk.ObjectVersion{{ID: File, Version: "1"}},
		Sharing:  sdk.SharingServiceAccount,
		FreshFor: freshFor,
	}, nil
}

func (p *Provider) store(name string, perSecond int) *store {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.stores[name]
	if !ok {
		s = &store{pods: map[string]bool{}}
		if perSecond > 0 {
			s.limit = rate.NewLimiter(rate.Limit(perSecond), perSecond)
		}
		p.stores[name] = s
	}
	return s
}

// first reports whether the pod is asked for the first time.
func (s *store) first(uid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods[uid] {
		return false
	}
	s.pods[uid] = true
	return true
}

func wait(ctx context.Context, latency time.Duration) error {
	timer := time.NewTimer(latency)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
