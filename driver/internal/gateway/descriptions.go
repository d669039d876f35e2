package gateway

import (
	"sync"
	"time"

	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// describedFor is how long a description is taken for current. A provider that
// is upgraded may say something else; what it then lacks, the next call brings.
const describedFor = time.Second

// descriptions keeps what providers said of themselves, for a moment.
//
// Invariants:
//  1. mu guards byProvider.
//  2. It holds at most one description of each provider that answered within the
//     last describedFor when it was last added to.
type descriptions struct {
	mu         sync.Mutex
	byProvider map[string]described
}

type described struct {
	description *providerv1.DescribeResponse
	at          time.Time
}

func (d *descriptions) recent(provider string) (*providerv1.DescribeResponse, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known, ok := d.byProvider[provider]
	if !ok || time.Since(known.at) >= describedFor {
		return nil, false
	}
	return known.description, true
}

func (d *descriptions) keep(provider string, description *providerv1.DescribeResponse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for name, known := range d.byProvider {
		if now.Sub(known.at) >= describedFor {
			delete(d.byProvider, name)
		}
	}
	if d.byProvider == nil {
		d.byProvider = map[string]described{}
	}
	d.byProvider[provider] = described{description: description, at: now}
}
