// Package podstatus tells Kubernetes, and so its users, how the volumes of this
// node are: it writes SecretProviderClassPodStatus objects and events on pods.
//
// It does so beside the work, never within it: a call only leaves a note, and
// a mount is neither slowed down nor failed by an API server that is slow,
// down or refusing. Nothing of what is written is ever read back to decide
// what to do on the node.
package podstatus

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/internal/logkey"
)

// Pod names a pod.
type Pod struct {
	Namespace, Name, UID string
}

// Object is a mounted object, with its version.
type Object struct {
	ID, Version string
}

// Status is how a volume is.
type Status struct {
	Pod                 Pod
	SecretProviderClass string
	// VolumeID is the CSI volume id.
	VolumeID string
	// TargetPath is where the volume is on this node.
	TargetPath string
	// Objects are what is mounted, in any order.
	Objects []Object
	// LastRefresh is when the objects were last fetched with success. Zero: this
	// process has not fetched them yet, a former one has. What that wrote of them
	// stays, and Objects are not looked at.
	LastRefresh time.Time
	// Stale is set while refreshing fails, and the last good content stays.
	Stale *Failure
	// Unsynced is set while the Kubernetes Secrets that the class asks for are
	// not all in place.
	Unsynced *Failure
}

// Failure is why a volume is not as it should be.
type Failure struct {
	// Reason is a word such as ACCESS_DENIED or StoreUnavailable.
	Reason string
	// Message says what to do. It must hold no secret.
	Message string
	// Since is when it began, if that is known.
	Since time.Time
}

// bounded returns a copy that holds no more than is written.
func (f *Failure) bounded() *Failure {
	if f == nil {
		return nil
	}
	return &Failure{Reason: f.Reason, Message: cut(f.Message, maxMessage), Since: f.Since}
}

// Statuses keeps SecretProviderClassPodStatus objects. Its errors are told
// apart by the functions of k8s.io/apimachinery/pkg/api/errors.
type Statuses interface {
	PodStatus(ctx context.Context, namespace, name string) (*apiv1.SecretProviderClassPodStatus, error)
	CreatePodStatus(ctx context.Context, status *apiv1.SecretProviderClassPodStatus) (*apiv1.SecretProviderClassPodStatus, error)
	// PatchPodStatus applies a JSON merge patch.
	PatchPodStatus(ctx context.Context, namespace, name string, patch []byte) (*apiv1.SecretProviderClassPodStatus, error)
}

// Events keeps events on pods. Its errors are told apart like those of Statuses.
type Events interface {
	PodExists(ctx context.Context, namespace, name, uid string) (bool, error)
	CreateEvent(ctx context.Context, event kube.Event) error
	RepeatEvent(ctx context.Context, event kube.Event) error
}

// Config is what New needs.
type Config struct {
	// Node is this node's name.
	Node     string
	Statuses Statuses
	Events   Events
	Logger   *slog.Logger
	// Settle is how long what is new waits to be written: a node that starts
	// many pods at once mounts first and tells then, and of what changes quickly
	// only the last state is told.
	Settle time.Duration
}

// Recorder writes statuses and events.
//
// Invariants:
//  1. No method but Run blocks on the API server, or fails.
//  2. Of a volume's statuses the latest is written, and only if it differs
//     from what is there. What comes in between may never be written.
//  3. The latest status is tried until it is written or its volume is forgotten,
//     however long the API server is away; only what is refused is given up.
//  4. What waits to be written is bounded; beyond the bound it is dropped, and
//     the log says so.
type Recorder struct {
	logger   *slog.Logger
	queue    *queue
	statuses *statusWriter
	events   *eventWriter
}

// New returns a Recorder. Nothing is written until Run.
func New(cfg Config) (*Recorder, error) {
	switch {
	case cfg.Node == "":
		return nil, errors.New("recorder needs the node's name")
	case cfg.Statuses == nil || cfg.Events == nil:
		return nil, errors.New("recorder needs where to write statuses and events")
	case cfg.Logger == nil:
		return nil, errors.New("recorder needs a logger")
	}
	return &Recorder{
		logger:   cfg.Logger,
		queue:    newQueue(cfg.Logger, cfg.Settle),
		statuses: newStatusWriter(cfg.Statuses, cfg.Node),
		events:   newEventWriter(cfg.Events, cfg.Node),
	}, nil
}

// Run writes until ctx ends, and then for up to three seconds what is left.
func (r *Recorder) Run(ctx context.Context) error {
	r.queue.run(ctx)
	return nil
}

// Mounted notes how a volume is that is in place: after a mount, after a
// refresh that changed it, and when refreshing fails or works again. It may be
// called as often as one likes; what changed nothing is not written.
func (r *Recorder) Mounted(status Status) {
	status.Objects = slices.SortedFunc(slices.Values(status.Objects), func(a, b Object) int {
		return strings.Compare(a.ID, b.ID)
	})
	status.Stale, status.Unsynced = status.Stale.bounded(), status.Unsynced.bounded()
	write := func(ctx context.Context) error { return r.statuses.write(ctx, status) }
	if r.queue.put(statusKey(status.VolumeID), write) {
		return
	}
	r.logger.Warn("too much to write, a status is left out", logkey.Namespace, status.Pod.Namespace,
		logkey.Pod, status.Pod.Name, logkey.SecretProviderClass, status.SecretProviderClass)
}

// Forget drops what is kept for a volume that was unpublished. Its status
// object stays until Kubernetes collects it with its owner, the pod.
func (r *Recorder) Forget(volumeID string) {
	// In the queue it takes the place of a status that waits, and comes after
	// one that is being written, which remembers what it wrote.
	forget := func(context.Context) error {
		r.statuses.forget(volumeID)
		return nil
	}
	if !r.queue.put(statusKey(volumeID), forget) {
		r.statuses.forget(volumeID)
	}
}

// Tell notes an event on a pod. What was told within the last ten minutes is
// counted rather than told again.
func (r *Recorder) Tell(event Event) {
	key, found := r.events.note(event, time.Now())
	if found == noteCounted {
		return
	}
	write := func(ctx context.Context) error { return r.events.write(ctx, key) }
	if found == noteDue && r.queue.put(key.String(), write) {
		return
	}
	r.events.forget(key)
	r.logger.Warn("too much to write, an event is left out", logkey.Namespace, event.Pod.Namespace,
		logkey.Pod, event.Pod.Name, logkey.Reason, string(event.Reason))
}

func statusKey(volumeID string) string { return "status/" + volumeID }
