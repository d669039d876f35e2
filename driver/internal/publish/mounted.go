package publish

import (
	"context"
	"sync"
	"time"

	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/refresh"
	"github.com/postern-dev/postern/internal/rpc"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// content is what a volume holds, as far as this process knows. Of a volume
// that another process mounted it knows nothing: the zero value.
type content struct {
	provider string
	objects  []*secretv1.ObjectVersion
	// state is what the provider wants to hear with the next fetch.
	state []byte
	// fetchedAt is when the store was asked for it.
	fetchedAt time.Time
	// interval is how old it may get: as its provider says, or its class. 0: as
	// old as it likes.
	interval time.Duration
	// byProvider says that the provider says so: something in it expires.
	byProvider bool
	// revision is the class's, as it was read for it.
	revision classRevision
	// requested is the class's annotation that asks for a refresh, as it was then.
	requested string
}

// classRevision tells one state of a SecretProviderClass's spec from another.
type classRevision struct {
	uid        string
	generation int64
}

// mountedVolume is one volume that is in place.
type mountedVolume struct {
	// request is kubelet's latest, with the newest tokens.
	request Request
	content content
	// requestedAt is when somebody asked for a refresh that was not made yet.
	requestedAt time.Time
	// due is when the volume is looked at next, and fetchDue when its content is
	// fetched next: later, if only its Secrets are to be tried again.
	due, fetchDue time.Time

	// failures counts attempts to refresh since the last success, the first of
	// which was at failingSince, and failure is why the last one failed.
	failures     int
	failingSince time.Time
	failure      *rpc.Error
	// stale is set once the volume's users are told of that.
	stale *podstatus.Failure
	// unsynced is why a Kubernetes Secret is not in place, once users are told,
	// and unsyncedCount how often in a row one was not.
	unsynced      *podstatus.Failure
	unsyncedCount int

	// cancel ends the latest refresh. Nil: there was none.
	cancel context.CancelFunc
}

func (v *mountedVolume) class() string {
	return v.request.Pod.Namespace + "/" + v.request.SecretProviderClass
}

// syncOnly reports whether the content is not due, but the Secrets.
func (v *mountedVolume) syncOnly(now time.Time) bool {
	return v.unsyncedCount > 0 && v.failures == 0 && v.requestedAt.IsZero() && now.Before(v.fetchDue)
}

func (v *mountedVolume) waitsForToken() bool {
	return v.failure != nil && refresh.OutlookOf(v.failure) == refresh.NeedsToken
}

// mountedVolumes are the volumes that this process keeps fresh.
//
// Invariants:
//  1. It holds a volume from when it is in place, or was seen to be, until it is
//     unpublished.
//  2. A volume that it holds is in the schedule, at the time in due.
//  3. A mountedVolume is touched with mu held only, and is never that of two
//     volumes: a volume that comes again under the same id has another.
type mountedVolumes struct {
	timing   refresh.Timing
	schedule *refresh.Schedule
	triggers Triggers

	mu   sync.Mutex
	byID map[string]*mountedVolume
}

// renew takes kubelet's latest request for a volume that is in place. One that
// waits for new tokens is due; one that is not known, too.
func (m *mountedVolumes) renew(request Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, known := m.takeLocked(request)
	if !known || v.waitsForToken() {
		m.setDueLocked(v, time.Now())
	}
}

// takeLocked takes a request for its volume, and makes a place for one that is
// not known. Needs m.mu.
func (m *mountedVolumes) takeLocked(request Request) (v *mountedVolume, known bool) {
	v, known = m.byID[request.VolumeID]
	if !known {
		v = &mountedVolume{}
		if m.byID == nil {
			m.byID = make(map[string]*mountedVolume)
		}
		m.byID[request.VolumeID] = v
		m.triggers.Add(request.VolumeID, request.Pod.Namespace, request.SecretProviderClass)
	}
	v.request = request
	return v, known
}

// mounted notes what a volume holds that was just put in place.
func (m *mountedVolumes) mounted(request Request, outcome outcome) mountedVolume {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, _ := m.takeLocked(request)
	m.succeededLocked(v, outcome, true)
	return *v
}

// refreshed notes what a refresh of v brought. It reports false if the volume is
// gone meanwhile.
func (m *mountedVolumes) refreshed(v *mountedVolume, outcome outcome) (mountedVolume, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID[v.request.VolumeID] != v {
		return mountedVolume{}, false
	}
	m.succeededLocked(v, outcome, false)
	return *v, true
}

// succeededLocked needs m.mu.
func (m *mountedVolumes) succeededLocked(v *mountedVolume, o outcome, first bool) {
	v.content = o.content
	v.failures, v.failure, v.stale = 0, nil, nil
	if !o.began.Before(v.requestedAt) {
		v.requestedAt = time.Time{}
	}
	v.unsynced = o.unsynced
	if v.unsyncedCount++; !o.syncAgain {
		v.unsyncedCount = 0
	}
	if o.stale != nil {
		v.failures, v.failure, v.stale = 1, &rpc.Error{Reason: o.stale.Reason, Message: o.stale.Message}, o.stale
		v.failingSince = time.Now()
		m.setDueLocked(v, m.retryAt(v, v.failure, v.failures))
		return
	}
	due := m.timing.Next(refresh.Content{
		Class: v.class(), FetchedAt: v.content.fetchedAt, Interval: v.content.interval, First: first,
	})
	if soonest := time.Now().Add(refresh.MinInterval); !due.IsZero() && due.Before(soonest) {
		due = soonest // whatever a gateway takes for new
	}
	v.fetchDue = due
	if o.syncAgain {
		due = earlier(due, m.retryAt(v, &rpc.Error{}, v.unsyncedCount))
	}
	if !v.requestedAt.IsZero() {
		due = time.Now()
	}
	m.setDueLocked(v, due)
}

// failed notes why a refresh of v failed, and what it found out about a volume of
// which nothing was known. It reports false if the volume is gone meanwhile.
func (m *mountedVolumes) failed(v *mountedVolume, found content, failure *rpc.Error) (mountedVolume, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID[v.request.VolumeID] != v {
		return mountedVolume{}, false
	}
	if v.failures == 0 {
		v.failingSince = time.Now()
	}
	v.failures++
	v.failure = failure
	if v.content.fetchedAt.IsZero() {
		v.content.provider, v.content.interval = found.provider, found.interval
	}
	if v.waitsForToken() {
		m.setDueLocked(v, time.Time{})
	} else {
		m.setDueLocked(v, m.retryAt(v, failure, v.failures))
	}
	// What may pass at any moment is told when it has not at the second attempt.
	if v.stale != nil || v.failures > 1 || refresh.OutlookOf(failure) != refresh.Transient {
		v.stale = &podstatus.Failure{Reason: failure.Reason, Message: failure.Message, Since: v.failingSince}
	}
	return *v, true
}

func (m *mountedVolumes) retryAt(v *mountedVolume, failure *rpc.Error, attempts int) time.Time {
	return time.Now().Add(m.timing.Retry(refresh.Failure{
		Class: v.class(), Err: failure, Attempts: attempts, Interval: v.content.interval,
	}))
}

// setDueLocked needs m.mu.
func (m *mountedVolumes) setDueLocked(v *mountedVolume, due time.Time) {
	v.due = due
	m.schedule.Set(v.request.VolumeID, v.content.provider, due)
}

// begin starts a refresh: it returns the volume, and a copy of it as it is now.
// It reports false if the volume is gone.
func (m *mountedVolumes) begin(volumeID string, cancel context.CancelFunc) (v *mountedVolume, now mountedVolume, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok = m.byID[volumeID]
	if !ok {
		return nil, mountedVolume{}, false
	}
	v.cancel = cancel
	return v, *v, true
}

// has reports whether v is still the volume.
func (m *mountedVolumes) has(v *mountedVolume) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byID[v.request.VolumeID] == v
}

// known reports whether there is a volume of this id.
func (m *mountedVolumes) known(volumeID string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.byID[volumeID]
	return ok
}

// remove forgets a volume, and ends its refresh if one is under way.
func (m *mountedVolumes) remove(volumeID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.byID[volumeID]; ok && v.cancel != nil {
		v.cancel()
	}
	delete(m.byID, volumeID)
	m.schedule.Remove(volumeID)
	m.triggers.Remove(volumeID)
}

// request makes those volumes of a class due that were fetched before the
// annotation had this value.
func (m *mountedVolumes) request(namespace, class, value string) {
	if value == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, v := range m.byID {
		if v.request.Pod.Namespace != namespace || v.request.SecretProviderClass != class || v.content.requested == value {
			continue
		}
		v.content.requested = value
		v.requestedAt = now
		m.setDueLocked(v, now)
	}
}

// all returns copies of all volumes.
func (m *mountedVolumes) all() []mountedVolume {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]mountedVolume, 0, len(m.byID))
	for _, v := range m.byID {
		all = append(all, *v)
	}
	return all
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
