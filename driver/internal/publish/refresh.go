package publish

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/refresh"
	"github.com/postern-dev/postern/driver/internal/volume"
	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// refreshTimeout bounds a refresh. It is longer than the gateway lets a call of
// a provider take.
const refreshTimeout = 45 * time.Second

// errVolumeGone ends the refresh of a volume that is unpublished, or was
// unmounted by somebody: kubelet's next call mounts that again.
var errVolumeGone = errors.New("the volume is gone")

// refresh fetches a volume again, and writes what has changed. Whatever happens,
// the volume keeps what it holds until all that is new is there; kubelet is not
// told, the pod's users are.
func (p *Publisher) refresh(ctx context.Context, volumeID string) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	v, now, ok := p.mounted.begin(volumeID, cancel)
	if !ok {
		return
	}
	started := time.Now()
	ctx, span := p.cfg.Tracer.Start(ctx, "driver.RefreshVolume", trace.WithAttributes(
		attribute.String("k8s.namespace.name", now.request.Pod.Namespace),
		attribute.String("k8s.pod.name", now.request.Pod.Name),
		attribute.String("postern.secret_provider_class", now.request.SecretProviderClass),
		attribute.String("csi.volume_id", volumeID),
	))
	defer span.End()
	t := &transaction{
		publisher: p, request: now.request, provider: now.content.provider,
		volume: v, held: now.content, requestedAt: now.requestedAt, unsyncedCount: now.unsyncedCount, syncOnly: now.syncOnly(started),
	}
	outcome, err := t.refreshOrPanic(ctx)
	if errors.Is(err, errVolumeGone) || (err != nil && errors.Is(ctx.Err(), context.Canceled)) {
		t.abandon() // the volume is gone, or the driver ends
		return
	}
	p.cfg.Metrics.refreshed(ctx, t.provider, started, outcome, err)
	if err != nil {
		span.SetStatus(otelcodes.Error, err.Error())
		t.recordRefreshFailure(ctx, rpc.FromError(err))
		return
	}
	t.recordRefreshed(ctx, outcome)
}

// abandon ends the refresh of a volume that is gone. What its provider issued
// for it meanwhile is released once more.
func (t *transaction) abandon() {
	if t.fetched && !t.publisher.mounted.known(t.request.VolumeID) {
		t.publisher.releaser.release(t.request.VolumeID)
	}
}

// refreshOrPanic makes a panic the failure of this volume alone.
func (t *transaction) refreshOrPanic(ctx context.Context) (_ outcome, err error) {
	defer func() {
		if r := recover(); r != nil {
			t.publisher.cfg.Logger.LogAttrs(ctx, slog.LevelError, "a refresh panicked",
				slog.String(logkey.VolumeID, t.request.VolumeID), slog.String(logkey.Stack, rpc.PanicStack()))
			err = &rpc.Error{Reason: rpc.ReasonInternal, Message: "refreshing the volume panicked: please report it with the driver's log"}
		}
	}()
	return t.refresh(ctx)
}

func (t *transaction) refresh(ctx context.Context) (outcome, error) {
	class, err := t.secretProviderClass(ctx)
	if err != nil {
		return outcome{}, err
	}
	interval, err := t.interval(class)
	if err != nil {
		return outcome{}, err
	}
	t.found = content{provider: string(class.Spec.Provider), interval: interval}
	o := outcome{content: t.held, began: time.Now()}
	o.content.revision = revisionOf(class)
	never := interval == 0 && !t.held.byProvider && t.requestedAt.IsZero()
	if never {
		o.content.interval = 0
	}
	if !never && !t.syncOnly {
		if err := t.renewContent(ctx, class, interval, &o); err != nil {
			return outcome{}, err
		}
	}
	t.syncMounted(ctx, class, &o)
	return o, nil
}

// renewContent brings the volume to what the store holds now.
func (t *transaction) renewContent(ctx context.Context, class *apiv1.SecretProviderClass, interval time.Duration, o *outcome) error {
	t.provider = string(class.Spec.Provider)
	request := &gatewayv1.FetchRequest{
		Refresh:         true,
		RefreshInterval: optionalDuration(interval),
		FetchedAfter:    timestamppb.New(t.fetchAfter(o.began, interval)),
	}
	if t.provider == t.held.provider { // versions of another mean nothing
		request.CurrentObjects, request.ProviderState = t.held.objects, t.held.state
	}
	response, err := t.fetch(ctx, class, request)
	if err != nil {
		return t.annotate(err)
	}
	o.content = t.contentOf(class, interval, response)
	if response.GetNotModified() {
		o.content.objects = t.held.objects
		return nil
	}
	files := filesOf(response)
	defer wipe(files)
	o.changed, err = t.update(ctx, files)
	return err
}

// update writes what differs, if the volume is still there.
func (t *transaction) update(ctx context.Context, files []volume.File) (changed bool, err error) {
	unlock, err := t.publisher.locks.Lock(ctx, t.request.Target)
	if err != nil {
		return false, busyError(t.request.Target)
	}
	defer unlock()
	if !t.publisher.mounted.has(t.volume) {
		return false, errVolumeGone
	}
	changed, err = t.write(ctx, files, t.publisher.cfg.Volumes.Update)
	switch {
	case errors.Is(err, volume.ErrNotMounted):
		return false, errVolumeGone
	case err != nil:
		return false, mountError(t.request.Target, err)
	default:
		return changed, nil
	}
}

// fetchAfter is when the store must have been asked for an answer to be of use:
// after it was asked for what the volume holds, not longer ago than the content
// may be old, and not before somebody asked for a refresh.
func (t *transaction) fetchAfter(now time.Time, interval time.Duration) time.Time {
	after := t.held.fetchedAt
	if oldest := now.Add(-interval); interval > 0 && oldest.After(after) {
		after = oldest
	}
	if t.requestedAt.After(after) {
		after = t.requestedAt
	}
	return after
}

// interval is how often the class's volumes are refreshed.
func (t *transaction) interval(class *apiv1.SecretProviderClass) (time.Duration, error) {
	interval, err := refresh.Interval(class.Spec.Parameters, t.publisher.cfg.RotationPollInterval)
	if err != nil {
		return 0, t.annotate(err)
	}
	return interval, nil
}

func revisionOf(class *apiv1.SecretProviderClass) classRevision {
	return classRevision{uid: string(class.UID), generation: class.Generation}
}
