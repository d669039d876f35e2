package publish

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

func (t *transaction) recordMounted(response *gatewayv1.FetchResponse) {
	status := podstatus.Status{
		Pod:                 t.pod(),
		SecretProviderClass: t.request.SecretProviderClass,
		VolumeID:            t.request.VolumeID,
		TargetPath:          t.request.Target,
		Objects:             make([]podstatus.Object, 0, len(response.GetObjects())),
		LastRefresh:         time.Now(),
	}
	for _, object := range response.GetObjects() {
		status.Objects = append(status.Objects, podstatus.Object{ID: object.GetId(), Version: object.GetVersion()})
	}
	t.publisher.refreshes.succeeded(status)
	t.publisher.cfg.Recorder.Mounted(status)
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
