package fetch

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/logkey"
)

// releaseTimeout bounds how long the release of a volume may take: a pod's end
// does not hang on a store.
const releaseTimeout = 5 * time.Second

// Release forgets a volume and tells the instances that served it. Where none
// of them is left it tells the one that serves now, and where the volume is not
// known, as after a restart of the gateway, all. Failures are logged, not
// returned: leases that could not be revoked run out by themselves, and a pod's
// end must not fail because of them.
func (f *Fetcher) Release(ctx context.Context, volumeID string) {
	handles := f.holders(volumeID)
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	var calls sync.WaitGroup
	for _, handle := range handles {
		calls.Go(func() {
			defer handle.Done()
			if err := handle.Provider.Release(ctx, volumeID); err != nil {
				f.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "provider did not release a volume; its leases run out by themselves",
					slog.String(logkey.Provider, handle.ProviderName),
					slog.String(logkey.Socket, handle.Socket),
					slog.String(logkey.VolumeID, volumeID),
					slog.String(logkey.Error, err.Error()))
			}
		})
	}
	calls.Wait()
}

// holders returns handles to the instances that have to know.
func (f *Fetcher) holders(volumeID string) []*registry.Handle {
	known, ok := f.volumes.released(volumeID)
	if ok && len(known.instances) == 0 {
		return nil // no provider knows it
	}
	handles := f.cfg.Providers.Connected()
	if !ok {
		return handles
	}
	handles = slices.DeleteFunc(handles, func(h *registry.Handle) bool {
		if slices.Contains(known.instances, h.ID) {
			return false
		}
		h.Done()
		return true
	})
	if len(handles) == 0 {
		if handle, ok := f.cfg.Providers.TryAcquire(known.provider); ok {
			handles = append(handles, handle)
		}
	}
	return handles
}
