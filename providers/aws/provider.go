package aws

import (
	"cmp"
	"context"
	"time"

	"github.com/postern-dev/postern/providers/aws/internal/identity"
	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/aws/internal/store"
	"github.com/postern-dev/postern/providers/sdk"
)

// freshFor is how long an answer may serve other pods, too: what was read is good
// until somebody writes it, which only the gateway's own limits weigh.
const freshFor = time.Hour

var _ sdk.Provider = (*provider)(nil)

// provider serves all classes and pods of a node.
type provider struct {
	// region is for classes that say none.
	region string
	// describe has a refresh ask for versions before it reads.
	describe bool
	sessions *identity.Manager
	store    *store.Store
}

// Fetch reads all objects of a class for a pod.
func (p *provider) Fetch(ctx context.Context, req *sdk.Request) (*sdk.Response, error) {
	spec, err := params.Parse(req.Parameters, params.Defaults{Region: cmp.Or(p.region, req.Node.Labels[regionLabel])})
	if err != nil {
		return nil, err
	}
	use, err := useOf(spec, req)
	if err != nil {
		return nil, err
	}
	f := &fetch{p: p, req: req, spec: spec, use: use}
	return f.run(ctx)
}
