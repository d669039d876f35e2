package publish

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/secretdata"
	"github.com/postern-dev/postern/driver/internal/secretsync"
	"github.com/postern-dev/postern/driver/internal/volume"
	"github.com/postern-dev/postern/internal/rpc"
)

// syncBeforeMount makes the Kubernetes Secrets that the class asks for, of the
// files that are about to be mounted. What may pass at any moment fails the
// mount, since a pod that needs a Secret could not start; anything else is told
// to the pod's users, and does not keep the pod from its files.
func (t *transaction) syncBeforeMount(ctx context.Context, class *apiv1.SecretProviderClass, o *outcome, files []volume.File) error {
	err := t.sync(ctx, class, o, true, func() ([]volume.File, error) { return files, nil })
	if err != nil && secretsync.Temporary(err) {
		return syncError(err)
	}
	return nil
}

// syncMounted does the same for a volume that is in place, of what is in it.
func (t *transaction) syncMounted(ctx context.Context, class *apiv1.SecretProviderClass, o *outcome) {
	var files []volume.File
	defer func() { wipe(files) }()
	changed := o.changed || o.content.revision != t.held.revision
	_ = t.sync(ctx, class, o, changed, func() (_ []volume.File, err error) { // o has the failure
		files, err = t.publisher.cfg.Volumes.Read(t.request.Target)
		return files, err
	})
}

// sync notes in o what is not in place, and tells the pod's users.
func (t *transaction) sync(ctx context.Context, class *apiv1.SecretProviderClass, o *outcome, changed bool, files func() ([]volume.File, error)) error {
	if t.publisher.cfg.Secrets == nil {
		return nil
	}
	pod := t.request.Pod
	result, err := t.publisher.cfg.Secrets.Sync(ctx, secretsync.Volume{
		Pod:       secretsync.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		VolumeID:  t.request.VolumeID,
		Class:     class,
		Provider:  o.content.provider,
		Objects:   objectIDs(o.content),
		FetchedAt: o.content.fetchedAt,
		Changed:   changed,
		Files:     func() ([]secretdata.File, error) { return secretFiles(files) },
	})
	if names := result.Updated; len(names) > 0 {
		t.tell(ctx, podstatus.Event{
			Normal: true, Reason: podstatus.ReasonSecretComplete, Message: "brought up to date: Secret " + strings.Join(names, ", "),
		})
	}
	if err == nil {
		return nil
	}
	o.syncAgain = true
	if t.unsyncedCount == 0 && secretsync.Temporary(err) {
		return err // a mount tells it itself, and a refresh if it lasts
	}
	o.unsynced = &podstatus.Failure{Reason: secretsync.Reason(err), Message: err.Error()}
	t.tell(ctx, podstatus.Event{Reason: podstatus.ReasonSecretFailed, Message: err.Error(), Key: t.request.VolumeID})
	return err
}

func secretFiles(files func() ([]volume.File, error)) ([]secretdata.File, error) {
	all, err := files()
	if err != nil {
		return nil, err
	}
	converted := make([]secretdata.File, 0, len(all))
	for _, file := range all {
		converted = append(converted, secretdata.File{Path: file.Path, Contents: file.Contents})
	}
	return converted, nil
}

func objectIDs(c content) []string {
	ids := make([]string, 0, len(c.objects))
	for _, object := range c.objects {
		ids = append(ids, object.GetId())
	}
	return ids
}

func syncError(err error) error {
	return &stepError{errorTypeMount, &rpc.Error{
		Code:    codes.Unavailable,
		Message: fmt.Sprintf("failed to sync Kubernetes Secrets: %v", err),
		Err:     err,
	}}
}
