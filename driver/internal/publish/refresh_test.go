package publish_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/publish"
	"github.com/postern-dev/postern/internal/rpc"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// rotated is a world whose volumes are refreshed every two minutes, and whose
// store has another content from now on.
func rotated(t *testing.T) (*world, *publish.Publisher) {
	t.Helper()
	w := newWorld(t)
	w.config.RotationPollInterval = 2 * time.Minute
	p := w.publisher(t)
	mustPublish(t, w, p, 1)
	w.gateway.response.Files = []*secretv1.File{{Path: "password", Mode: 0o600, Contents: []byte("new")}}
	w.gateway.response.Objects[0].Version = "2"
	return w, p
}

// mustPublish publishes, and wants so many fetches to have been made by then.
func mustPublish(t *testing.T, w *world, p *publish.Publisher, fetches int) {
	t.Helper()
	if err := p.Publish(t.Context(), request(t, nil)); err != nil {
		t.Fatal(err)
	}
	if got := len(w.gateway.fetches()); got != fetches {
		t.Fatalf("%d fetches, want %d", got, fetches)
	}
}

func TestRefresh_WhenDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		<-time.After(2*time.Minute - time.Second)
		mustPublish(t, w, p, 1)
		<-time.After(time.Second)
		mustPublish(t, w, p, 2)
		if diff := cmp.Diff(map[string]string{"password": "-rw------- new"}, w.volumes.at(target)); diff != "" {
			t.Errorf("mounted (-want +got):\n%s", diff)
		}
		last := w.recorder.statuses[len(w.recorder.statuses)-1]
		if last.Objects[0].Version != "2" || !last.LastRefresh.Equal(time.Now()) {
			t.Errorf("status: %+v", last)
		}
		<-time.After(2*time.Minute - time.Second)
		mustPublish(t, w, p, 2)
		<-time.After(time.Second)
		mustPublish(t, w, p, 3) // the content is the same: it is not older than the interval all the same
		<-time.After(time.Minute)
		mustPublish(t, w, p, 3)
	})
}

func TestRefresh_Never(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.publisher(t)
		mustPublish(t, w, p, 1)
		<-time.After(24 * time.Hour)
		mustPublish(t, w, p, 1)
	})
}

// A driver that was restarted, or has replaced another one, does not know how
// old what is mounted is.
func TestRefresh_AdoptedVolumeAtOnce(t *testing.T) {
	t.Parallel()
	w, _ := rotated(t)
	mustPublish(t, w, w.publisher(t), 2)
	if got := w.volumes.at(target)["password"]; got != "-rw------- new" {
		t.Errorf("password: %s", got)
	}
}

func TestRefresh_FailureKeepsContent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		before, mounted := w.volumes.at(target), time.Now()
		w.gateway.err = &rpc.Error{Reason: rpc.ReasonAccessDenied, Code: codes.PermissionDenied, Message: `provider "vault": denied`}
		<-time.After(3 * time.Minute)
		mustPublish(t, w, p, 2)
		if diff := cmp.Diff(before, w.volumes.at(target)); diff != "" {
			t.Errorf("mounted (-want +got):\n%s", diff)
		}
		events := w.recorder.warnings()
		if len(events) != 1 || events[0].Reason != podstatus.ReasonRefreshFailed || !strings.Contains(events[0].Message, "denied") {
			t.Errorf("events: %+v", events)
		}
		last := w.recorder.statuses[len(w.recorder.statuses)-1]
		want := &podstatus.Failure{Reason: rpc.ReasonAccessDenied, Message: last.Failure.Message}
		if diff := cmp.Diff(want, last.Failure); diff != "" || last.Objects[0].Version != "1" || !last.LastRefresh.Equal(mounted) {
			t.Errorf("status %+v (-want +got):\n%s", last, diff)
		}
		w.gateway.err = nil
		mustPublish(t, w, p, 3) // it is tried again at the next call, not an interval later
		if last := w.recorder.statuses[len(w.recorder.statuses)-1]; last.Failure != nil || last.Objects[0].Version != "2" {
			t.Errorf("status after it worked again: %+v", last)
		}
	})
}

// What hangs must not keep kubelet from the pod for long.
func TestRefresh_IsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		w.gateway.block = make(chan struct{})
		<-time.After(3 * time.Minute)
		started := time.Now()
		mustPublish(t, w, p, 2)
		if took := time.Since(started); took > 30*time.Second {
			t.Errorf("the call took %v", took)
		}
	})
}
