package gcp

import (
	"context"

	"github.com/postern-dev/postern/providers/gcp/internal/identity"
	"github.com/postern-dev/postern/providers/sdk"
)

// federation is where the cluster's tokens are exchanged. What flags do not say is
// asked of the metadata server, by the first fetch that needs it.
type federation struct {
	// known are the audiences of pods' tokens, as far as flags say.
	known   []string
	locator *identity.Locator
}

// audience is the usual one of pods' tokens; "" if none is known.
func (f *federation) audience() string {
	if len(f.known) == 0 {
		return ""
	}
	return f.known[0]
}

// find returns it.
func (f *federation) find(ctx context.Context) (identity.Federation, error) {
	found, err := f.locator.Federation(ctx)
	switch {
	case err == nil:
		return found, nil
	case ctx.Err() != nil:
		return identity.Federation{}, ctx.Err()
	}
	return identity.Federation{}, sdk.StoreUnavailable("cannot find out which cluster this is: %v. Set the Helm values "+
		"gcp.project, gcp.clusterName and gcp.clusterLocation of provider-gcp", err).WithCause(err)
}
