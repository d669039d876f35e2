package publish

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// recordMounted notes what the volume holds now. Its age is that of the store's
// answer, which may have been given to another pod.
func (t *transaction) recordMounted(ctx context.Context, response *gatewayv1.FetchResponse) {
	status := podstatus.Status{
		Pod:                 t.pod(),
		SecretProviderClass: t.request.SecretProviderClass,
		VolumeID:            t.request.VolumeID,
		TargetPath:          t.request.Target,
		Objects:             make([]podstatus.Object, 0, len(response.GetObjects())),
		LastRefresh:         time.Now(),
	}
	if response.GetFetchedAt().IsValid() {
		status.LastRefresh = response.GetFetchedAt().AsTime()
	}
	for _, object := range response.GetObjects() {
		status.Objects = append(status.Objects, podstatus.Object{ID: object.GetId(), Version: object.GetVersion()})
	}
	if response.GetSource() == gatewayv1.Source_SOURCE_STALE {
		status.Failure = t.noticeStale(ctx, status.LastRefresh)
	}
	t.publisher.refreshes.succeeded(status)
	t.publisher.cfg.Recorder.Mounted(status)
}

// noticeStale tells the pod's users that the volume was mounted with a kept
// answer, because the store is unreachable.
func (t *transaction) noticeStale(ctx context.Context, fetched time.Time) *podstatus.Failure {
	message := fmt.Sprintf("the store of provider %q is unreachable: the volume was mounted with what it answered at %s, %s ago",
		t.provider, fetched.UTC().Format(time.RFC3339), time.Since(fetched).Round(time.Second))
	t.warn(ctx, podstatus.ReasonStale, message)
	return &podstatus.Failure{Reason: rpc.ReasonStoreUnavailable, Message: message}
}

// recordFailure tells the pod's users, with the trace to look at.
func (t *transaction) recordFailure(ctx context.Context, err error) {
	t.warn(ctx, podstatus.ReasonMountFailed, rpc.FromError(err).Message)
}

func (t *transaction) warn(ctx context.Context, reason podstatus.Reason, message string) {
	event := podstatus.Event{Pod: t.pod(), Reason: reason, Message: message}
	if span := trace.SpanContextFromContext(ctx); span.IsSampled() {
		event.TraceID = span.TraceID().String()
	}
	t.publisher.cfg.Recorder.Warn(event)
}

func (t *transaction) pod() podstatus.Pod {
	pod := t.request.Pod
	return podstatus.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
}
