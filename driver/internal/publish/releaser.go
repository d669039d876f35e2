package publish

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-dev/postern/internal/logkey"
)

const (
	// releaseAttempts and releaseDelay bound how long a gateway that is away is
	// waited for; what it kept for the volume ends by itself after that.
	releaseAttempts = 10
	releaseDelay    = 3 * time.Second
	releaseTimeout  = 10 * time.Second
	// maxPendingReleases bounds memory on a node without a gateway.
	maxPendingReleases = 4096
)

// releaser tells the gateway which volumes are gone, after their Unpublish is
// answered: a pod never waits for it to go away.
//
// Invariants:
//  1. A volume is pending at most once.
//  2. At most maxPendingReleases are pending; more are dropped and logged.
type releaser struct {
	gateway Gateway
	logger  *slog.Logger

	mu      sync.Mutex
	pending map[string]int // attempts left
	wake    chan struct{}
}

func newReleaser(gateway Gateway, logger *slog.Logger) *releaser {
	return &releaser{gateway: gateway, logger: logger, pending: make(map[string]int), wake: make(chan struct{}, 1)}
}

func (r *releaser) release(volumeID string) {
	r.mu.Lock()
	full := len(r.pending) >= maxPendingReleases
	if !full {
		r.pending[volumeID] = releaseAttempts
	}
	r.mu.Unlock()
	if full {
		r.logger.Warn("too many volumes wait to be released, one is dropped: its leases end by themselves", logkey.VolumeID, volumeID)
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// forget keeps a volume that is published again from being released.
func (r *releaser) forget(volumeID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pending, volumeID)
}

func (r *releaser) run(ctx context.Context) error {
	retry := time.NewTicker(releaseDelay)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-retry.C:
		}
		for _, volumeID := range r.due() {
			r.try(ctx, volumeID)
		}
	}
}

func (r *releaser) due() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := make([]string, 0, len(r.pending))
	for volumeID := range r.pending {
		due = append(due, volumeID)
	}
	return due
}

func (r *releaser) try(ctx context.Context, volumeID string) {
	callCtx, cancel := context.WithTimeout(ctx, releaseTimeout)
	err := r.gateway.Release(callCtx, volumeID)
	cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.pending, volumeID)
		return
	}
	if _, ok := r.pending[volumeID]; !ok {
		return // published again meanwhile
	}
	r.pending[volumeID]--
	if r.pending[volumeID] <= 0 {
		delete(r.pending, volumeID)
		r.logger.Warn("volume was not released at the gateway: its leases end by themselves", logkey.VolumeID, volumeID, logkey.Error, err)
	}
}
