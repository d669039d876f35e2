package gcp

import (
	"context"
	"time"

	"github.com/postern-dev/postern/providers/gcp/internal/identity"
	"github.com/postern-dev/postern/providers/gcp/internal/params"
	"github.com/postern-dev/postern/providers/gcp/internal/store"
	"github.com/postern-dev/postern/providers/sdk"
)

// freshFor is how long an answer may serve other pods, too: what was read is good
// until somebody writes it, which only the gateway's own limits weigh.
const freshFor = time.Hour

var (
	_ sdk.Provider       = (*provider)(nil)
	_ sdk.AudienceLister = (*provider)(nil)
	_ sdk.Shutdowner     = (*provider)(nil)
)

// provider serves all classes and pods of a node.
type provider struct {
	options    options
	federation *federation
	tokens     *identity.Manager
	store      *store.Store
}

// Audiences are what pods' tokens are wanted for: those of the workload identity
// pool, if that is known without asking anybody.
func (p *provider) Audiences() []sdk.Audience {
	var all []sdk.Audience
	for _, audience := range p.federation.known {
		all = append(all, sdk.Audience{Value: audience, Optional: true}) // other modes take none
	}
	return all
}

// Fetch reads all objects of a class for a pod.
func (p *provider) Fetch(ctx context.Context, req *sdk.Request) (*sdk.Response, error) {
	spec, err := params.Parse(req.Parameters)
	if err != nil {
		return nil, err
	}
	use, err := p.useOf(ctx, spec, req)
	if err != nil {
		return nil, err
	}
	f := &fetch{p: p, req: req, spec: spec, use: use}
	return f.run(ctx)
}

// Shutdown closes the connections.
func (p *provider) Shutdown(context.Context) error {
	p.store.Close()
	return nil
}
