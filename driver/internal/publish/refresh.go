package publish

import (
	"context"
	"sync"
	"time"

	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/volume"
	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
)

// refreshTimeout bounds a refresh: kubelet does nothing else for the pod while
// it waits for the answer.
const refreshTimeout = 20 * time.Second

// refresh fetches a mounted volume again if that is due, and writes what has
// changed. A failure is told to the pod's users and not to kubelet, some
// versions of which remove the directory of a volume whose repeated publish
// fails (kubernetes/kubernetes#121271): the volume keeps what it has.
func (t *transaction) refresh(ctx context.Context) {
	p := t.publisher
	if !p.refreshes.due(t.request.VolumeID, p.cfg.RotationPollInterval) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	t.refreshing = true
	changed := false
	response, err := t.bring(ctx, func(ctx context.Context, spec volume.Spec) (err error) {
		changed, err = p.cfg.Volumes.Update(ctx, spec)
		return err
	})
	p.cfg.Metrics.refreshed(ctx, t.provider, changed, err)
	if err != nil {
		t.recordStale(ctx, err)
		return
	}
	t.recordMounted(ctx, response)
}

// recordStale tells the pod's users that the volume keeps its last content.
func (t *transaction) recordStale(ctx context.Context, err error) {
	failure := rpc.FromError(err)
	t.publisher.cfg.Logger.WarnContext(ctx, "refresh failed: the volume keeps its content",
		logkey.Namespace, t.request.Pod.Namespace, logkey.Pod, t.request.Pod.Name, logkey.Reason, failure.Reason, logkey.Error, failure.Message)
	t.warn(ctx, podstatus.ReasonRefreshFailed, "the volume keeps its content: "+failure.Message)
	if status, ok := t.publisher.refreshes.last(t.request.VolumeID); ok {
		status.Failure = &podstatus.Failure{Reason: failure.Reason, Message: failure.Message}
		t.publisher.cfg.Recorder.Mounted(status)
	}
}

// refreshes remembers when the content of each volume was fetched, by volume
// id. A volume that another process mounted is not known, and so is due.
//
// Invariants:
//  1. There is an entry at most for each volume that this process has brought
//     content to and not unpublished.
type refreshes struct {
	mu       sync.Mutex
	statuses map[string]podstatus.Status
}

// due reports whether a volume's content is at least interval old.
func (r *refreshes) due(volumeID string, interval time.Duration) bool {
	if interval == 0 {
		return false
	}
	status, ok := r.last(volumeID)
	return !ok || time.Since(status.LastRefresh) >= interval
}

func (r *refreshes) last(volumeID string) (podstatus.Status, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	status, ok := r.statuses[volumeID]
	return status, ok
}

func (r *refreshes) succeeded(status podstatus.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.statuses == nil {
		r.statuses = make(map[string]podstatus.Status)
	}
	r.statuses[status.VolumeID] = status
}

func (r *refreshes) forget(volumeID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.statuses, volumeID)
}
