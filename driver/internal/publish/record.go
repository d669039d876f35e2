package publish

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/refresh"
	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
)

// recordMounted notes how a volume is that was put in place.
func (t *transaction) recordMounted(v mountedVolume) {
	t.publisher.cfg.Recorder.Mounted(v.status())
}

// status is what users are to be told of a volume.
func (v *mountedVolume) status() podstatus.Status {
	status := podstatus.Status{
		Pod:                 podOf(v.request),
		SecretProviderClass: v.request.SecretProviderClass,
		VolumeID:            v.request.VolumeID,
		TargetPath:          v.request.Target,
		Objects:             make([]podstatus.Object, 0, len(v.content.objects)),
		LastRefresh:         v.content.fetchedAt,
		Stale:               v.stale,
		Unsynced:            v.unsynced,
	}
	for _, object := range v.content.objects {
		status.Objects = append(status.Objects, podstatus.Object{ID: object.GetId(), Version: object.GetVersion()})
	}
	return status
}

// recordRefreshed notes what a refresh brought, unless the volume is gone.
func (t *transaction) recordRefreshed(ctx context.Context, o outcome) {
	v, ok := t.publisher.mounted.refreshed(t.volume, o)
	if !ok {
		t.abandon()
		return
	}
	if o.changed {
		t.tell(ctx, podstatus.Event{
			Normal: true, Reason: podstatus.ReasonRotationComplete, Message: "the volume holds new content: " + changes(t.held, o.content),
		})
	}
	t.publisher.cfg.Recorder.Mounted(v.status())
}

// changes names the objects that differ, without what is in them.
func changes(before, after content) string {
	const shown = 5
	versions := make(map[string]string, len(before.objects))
	for _, object := range before.objects {
		versions[object.GetId()] = object.GetVersion()
	}
	var names []string
	for _, object := range after.objects {
		if version, ok := versions[object.GetId()]; !ok || version != object.GetVersion() {
			names = append(names, object.GetId())
		}
		delete(versions, object.GetId())
	}
	for id := range versions {
		names = append(names, id+" (removed)")
	}
	slices.Sort(names)
	switch {
	case len(before.objects) == 0:
		return fmt.Sprintf("%d objects", len(after.objects))
	case len(names) > shown:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
	case len(names) == 0:
		return "the files were not as their versions say"
	default:
		return strings.Join(names, ", ")
	}
}

// recordRefreshFailure notes that the volume keeps its content, and tells its
// users once that seems to last.
func (t *transaction) recordRefreshFailure(ctx context.Context, failure *rpc.Error) {
	v, ok := t.publisher.mounted.failed(t.volume, t.found, failure)
	if !ok {
		t.abandon()
		return
	}
	t.publisher.cfg.Logger.WarnContext(ctx, "refresh failed: the volume keeps its content",
		logkey.Namespace, t.request.Pod.Namespace, logkey.Pod, t.request.Pod.Name, logkey.Attempt, v.failures,
		logkey.Reason, failure.Reason, logkey.Error, failure.Message)
	if v.stale == nil {
		return
	}
	message := "the volume keeps its content: " + failure.Message
	if refresh.OutlookOf(failure) == refresh.NeedsToken {
		message += "; it is fetched again when kubelet calls next, which brings new tokens"
	}
	t.tell(ctx, podstatus.Event{
		Reason: podstatus.ReasonRotationFailed, Message: message, Key: v.request.VolumeID + "/" + failure.Reason, Detail: ageOf(v.content),
	})
	t.publisher.cfg.Recorder.Mounted(v.status())
}

// ageOf says how old a content is.
func ageOf(c content) string {
	if c.fetchedAt.IsZero() {
		return "the content was fetched before this driver started"
	}
	return fmt.Sprintf("the content is %s old", time.Since(c.fetchedAt).Round(time.Second))
}

// noticeStale tells the pod's users that the volume is mounted with a kept
// answer, because the store is unreachable.
func (t *transaction) noticeStale(ctx context.Context, fetched time.Time) *podstatus.Failure {
	message := fmt.Sprintf("the store of provider %q is unreachable: the volume is mounted with what it answered at %s",
		t.provider, fetched.UTC().Format(time.RFC3339))
	age := fmt.Sprintf("%s ago", time.Since(fetched).Round(time.Second))
	t.tell(ctx, podstatus.Event{Reason: podstatus.ReasonStale, Message: message, Key: t.request.VolumeID, Detail: age})
	return &podstatus.Failure{Reason: rpc.ReasonStoreUnavailable, Message: message}
}

// recordFailure tells the pod's users, with the trace to look at.
func (t *transaction) recordFailure(ctx context.Context, err error) {
	t.warn(ctx, podstatus.ReasonMountFailed, rpc.FromError(err).Message)
}

func (t *transaction) warn(ctx context.Context, reason podstatus.Reason, message string) {
	t.tell(ctx, podstatus.Event{Reason: reason, Message: message})
}

// tell adds to an event whom it is for and the trace to look at.
func (t *transaction) tell(ctx context.Context, event podstatus.Event) {
	event.Pod = podOf(t.request)
	if span := trace.SpanContextFromContext(ctx); span.IsSampled() {
		event.TraceID = span.TraceID().String()
	}
	t.publisher.cfg.Recorder.Tell(event)
}

func podOf(request Request) podstatus.Pod {
	pod := request.Pod
	return podstatus.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
}
