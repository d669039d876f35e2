package publish_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/secretsync"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// syncing is a world with Kubernetes Secrets.
func syncing(t *testing.T) (*world, *memorySecrets) {
	t.Helper()
	w := newWorld(t)
	secrets := &memorySecrets{}
	w.config.Secrets = secrets
	w.config.RotationPollInterval = interval
	w.gateway.become(holding("old", "1", 0o600), nil)
	return w, secrets
}

// Secrets are there before the volume is.
func TestSync_BeforeTheMount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, secrets := syncing(t)
		secrets.before = func() {
			if w.volumes.at(target) != nil {
				t.Error("the volume was in place before its Secrets")
			}
		}
		mustPublish(t, w, w.running(t), 1)
		synced, files := secrets.syncs()
		if len(synced) != 1 || !synced[0].Changed || synced[0].Provider != "vault" || synced[0].VolumeID != "csi-1" ||
			synced[0].Pod != (secretsync.Pod{Namespace: "shop", Name: "web", UID: "uid-1"}) || synced[0].Class.Name != "database" ||
			!cmp.Equal(synced[0].Objects, []string{"password"}) || !synced[0].FetchedAt.Equal(time.Now()) {
			t.Errorf("synced %+v", synced)
		}
		if diff := cmp.Diff([]map[string]string{{"password": "old"}}, files); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	})
}

// temporaryError is one that may be gone at the next attempt.
type temporaryError struct{}

func (temporaryError) Error() string   { return "slow down" }
func (temporaryError) Temporary() bool { return true }

// What may pass at any moment fails the mount: the pod could not start.
func TestSync_TemporaryFailureOfAMount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, secrets := syncing(t)
		secrets.become(secretsync.Result{}, fmt.Errorf("sync: %w", temporaryError{}))
		p := w.running(t)
		err := p.Publish(t.Context(), request(t, nil))
		if err == nil || !strings.Contains(err.Error(), "failed to sync Kubernetes Secrets: sync: slow down") || w.volumes.at(target) != nil {
			t.Errorf("error %v, mounted %v", err, w.volumes.at(target))
		}
		secrets.become(secretsync.Result{}, nil)
		mustPublish(t, w, p, 2)
	})
}

// Anything else does not keep the pod from its files, and is tried again.
func TestSync_FailureIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, secrets := syncing(t)
		secrets.become(secretsync.Result{}, errors.New("namespace shop is not open"))
		p := w.running(t)
		mustPublish(t, w, p, 1)
		mustHold(t, w, "-rw------- old")
		events := w.recorder.told(podstatus.ReasonSecretFailed)
		if len(events) != 1 || events[0].Normal || !strings.Contains(events[0].Message, "namespace shop") {
			t.Errorf("events: %+v", events)
		}
		if last := w.recorder.last(); last.Unsynced == nil || last.Stale != nil {
			t.Errorf("status: %+v", last)
		}
		secrets.become(secretsync.Result{Created: []string{"database"}}, nil)
		<-time.After(interval)
		synctest.Wait()
		if last := w.recorder.last(); last.Unsynced != nil {
			t.Errorf("status: %+v", last.Unsynced)
		}
		if err := p.Unpublish(t.Context(), "csi-1", target); err != nil || !cmp.Equal(secrets.forgot, []string{"csi-1"}) {
			t.Errorf("%v, forgot %v", err, secrets.forgot)
		}
	})
}

// An API server that is away for a moment is no news for a volume whose Secrets
// are in place; one that stays away is.
func TestSync_TemporaryFailureOfARefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, secrets := syncing(t)
		mustPublish(t, w, w.running(t), 1)
		away := fmt.Errorf("sync: %w", temporaryError{})
		syncs := func() int {
			synced, _ := secrets.syncs()
			return len(synced)
		}
		secrets.become(secretsync.Result{}, away)
		nextFetch(t, w, 2)
		if last := w.recorder.last(); syncs() != 2 || last.Unsynced != nil || len(w.recorder.warnings()) != 0 {
			t.Errorf("after %d syncs: %+v, %+v", syncs(), last.Unsynced, w.recorder.warnings())
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if last := w.recorder.last(); syncs() != 3 || last.Unsynced == nil || len(w.recorder.told(podstatus.ReasonSecretFailed)) != 1 {
			t.Errorf("after %d syncs: %+v, %+v", syncs(), last.Unsynced, w.recorder.warnings())
		}
		<-time.After(interval / 2)
		wantFetches(t, w, 2) // the store has nothing to do with it
		<-time.After(10 * interval)
		synctest.Wait()
		if got := len(w.gateway.fetches()); got < 11 || got > 13 {
			t.Errorf("%d fetches in ten intervals", got-2)
		}
		secrets.become(secretsync.Result{}, nil)
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if last := w.recorder.last(); last.Unsynced != nil {
			t.Errorf("after it worked again: %+v", last.Unsynced)
		}
	})
}

// A refresh syncs what it brought, and what the volume holds if that is all the
// same.
func TestSync_OfARefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, secrets := syncing(t)
		mustPublish(t, w, w.running(t), 1)
		w.gateway.become(holding("new", "2", 0o600), nil)
		secrets.become(secretsync.Result{Updated: []string{"database"}}, nil)
		<-time.After(interval)
		wantFetches(t, w, 2)
		secrets.become(secretsync.Result{}, nil)
		w.gateway.become(&gatewayv1.FetchResponse{NotModified: true}, nil)
		<-time.After(interval + late)
		wantFetches(t, w, 3)
		w.classes.change(func(class *apiv1.SecretProviderClass) { class.Generation++ })
		<-time.After(interval + late)
		wantFetches(t, w, 4)

		synced, files := secrets.syncs()
		changed := make([]bool, 0, len(synced))
		for _, volume := range synced {
			changed = append(changed, volume.Changed)
		}
		if diff := cmp.Diff([]bool{true, true, false, true}, changed); diff != "" {
			t.Errorf("changed (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]map[string]string{{"password": "old"}, {"password": "new"}, {"password": "new"}, {"password": "new"}}, files); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		told := w.recorder.told(podstatus.ReasonSecretComplete)
		if len(told) != 1 || !told[0].Normal || !strings.Contains(told[0].Message, "database") {
			t.Errorf("events: %+v", told)
		}
	})
}

// Where nothing is refreshed a Secret that could not be made is tried again all
// the same, without a fetch.
func TestSync_WithoutRefreshes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, secrets := syncing(t)
		w.config.RotationPollInterval = 0
		secrets.become(secretsync.Result{}, errors.New("it is someone else's"))
		mustPublish(t, w, w.running(t), 1)
		<-time.After(10 * time.Minute)
		secrets.become(secretsync.Result{}, nil)
		<-time.After(10 * time.Minute)
		wantFetches(t, w, 1)
		synced, _ := secrets.syncs()
		if got := len(synced); got < 4 || got > 40 {
			t.Errorf("synced %d times", got)
		}
		<-time.After(time.Hour)
		if again, _ := secrets.syncs(); len(again) != len(synced) {
			t.Errorf("synced %d times more after it worked", len(again)-len(synced))
		}
		if last := w.recorder.last(); last.Unsynced != nil {
			t.Errorf("status: %+v", last.Unsynced)
		}
	})
}
