// Package oidc keeps the OIDC providers of IAM: the issuers of tokens that are
// trusted, and for what.
package oidc

import (
	"slices"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
	"github.com/postern-dev/postern/test/token"
)

// Providers verify tokens.
type Providers struct {
	*token.Verifier

	mu  sync.Mutex
	all []control.Issuer
}

// New returns none yet.
func New(now func() time.Time) *Providers { return &Providers{Verifier: token.NewVerifier(now)} }

// Put adds a provider, or replaces the one of the same URL.
func (p *Providers) Put(i control.Issuer) error {
	err := p.Verifier.Put(token.Issuer{URL: i.URL, JWKS: i.JWKS, JWKSURL: i.JWKSURL, CAPEM: i.CAPEM, BearerToken: i.BearerToken})
	if err != nil {
		return err
	}
	if len(i.Audiences) == 0 {
		i.Audiences = []string{iam.STSAudience}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = slices.DeleteFunc(p.all, func(other control.Issuer) bool { return other.URL == i.URL })
	p.all = append(p.all, i)
	return nil
}

// Audiences returns the client ids of an issuer's provider.
func (p *Providers) Audiences(url string) ([]string, bool) {
	i, ok := p.find(func(i control.Issuer) bool { return i.URL == url })
	return i.Audiences, ok
}

// PodIdentityIssuer returns the URL of the issuer whose tokens the Pod Identity
// agent takes.
func (p *Providers) PodIdentityIssuer() string {
	i, ok := p.find(func(i control.Issuer) bool { return i.PodIdentity })
	if !ok {
		i, _ = p.find(func(control.Issuer) bool { return true })
	}
	return i.URL
}

func (p *Providers) find(is func(control.Issuer) bool) (control.Issuer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.all, is)
	if i < 0 {
		return control.Issuer{}, false
	}
	return p.all[i], true
}
