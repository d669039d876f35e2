package fetch

import (
	"context"
	"sync"

	"github.com/postern-dev/postern/gateway/internal/registry"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// Description is what is known of a provider.
type Description struct {
	*providerv1.DescribeResponse
	// Provider is the name of its directory or legacy socket, of which the name
	// in an SPC may be an alias.
	Provider string
	// Legacy is set for a provider that cannot describe itself.
	Legacy bool
}

// descriptions remembers what each provider last said of itself, so that what
// is kept of its answers can be served while none of its instances is there. It
// holds names of providers that have served, and of no others.
type descriptions struct {
	mu     sync.Mutex
	byName map[string]Description
}

func (d *descriptions) learn(name string, handle *registry.Handle) Description {
	learned := Description{
		DescribeResponse: handle.Description,
		Provider:         handle.ProviderName,
		Legacy:           handle.Protocol == registry.Legacy,
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byName == nil {
		d.byName = map[string]Description{}
	}
	d.byName[name] = learned
	return learned
}

func (d *descriptions) last(name string) (Description, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known, ok := d.byName[name]
	return known, ok
}

// Describe tells what a provider said of itself: the instance that serves now,
// or else the last one that did. It waits for the first one inside ctx's
// deadline. Errors are [*rpc.Error], except for ctx's own.
func (f *Fetcher) Describe(ctx context.Context, name string) (Description, error) {
	handle, ok := f.cfg.Providers.TryAcquire(name)
	if !ok {
		if known, ok := f.descriptions.last(name); ok {
			return known, nil
		}
		var err error
		if handle, err = f.acquire(ctx, name); err != nil {
			return Description{}, err
		}
	}
	defer handle.Done()
	return f.descriptions.learn(name, handle), nil
}
