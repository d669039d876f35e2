package azure

import (
	"context"
	"log/slog"
	"time"

	"github.com/postern-dev/postern/providers/azure/internal/identity"
	"github.com/postern-dev/postern/providers/azure/internal/keyvault"
	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// freshFor is how long an answer may serve other pods, too: what was read is good
// until somebody writes it, which only the gateway's own limits weigh.
const freshFor = time.Hour

var _ sdk.Provider = (*provider)(nil)

// provider serves all classes and pods of a node.
type provider struct {
	options options
	clouds  *params.Clouds
	tokens  *identity.Manager
	store   *keyvault.Store
	logger  *slog.Logger
}

// Fetch reads all objects of a class for a pod.
func (p *provider) Fetch(ctx context.Context, req *sdk.Request) (*sdk.Response, error) {
	spec, err := params.Parse(req.Parameters, params.Defaults{
		CloudName: p.options.cloudName,
		Clouds:    p.clouds,
		TenantID:  req.Pod.ServiceAccount.Annotations[tenantAnnotation],
	})
	if err != nil {
		return nil, err
	}
	use, err := p.useOf(spec, req)
	if err != nil {
		return nil, err
	}
	f := &fetch{p: p, req: req, spec: spec, use: use}
	read, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	return f.response(ctx, read)
}
