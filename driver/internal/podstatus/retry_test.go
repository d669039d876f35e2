package podstatus_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
	"github.com/postern-dev/postern/driver/internal/podstatus"
)

func TestRecorder_Mounted_RetriesUntilItWorks(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.cluster.Intercept(func(*http.Request) *metav1.Status {
			return kubetest.Status(500, metav1.StatusReasonInternalError, "down")
		})
		b.recorder.Mounted(mounted())
		<-time.After(5 * time.Minute)
		if n := len(b.cluster.Calls()); n < 8 || n > 25 {
			t.Errorf("%d calls in 5 minutes, want between 8 and 25", n)
		}
		latest := mounted()
		latest.TargetPath = "/target/latest"
		b.recorder.Mounted(latest)
		b.cluster.Intercept(nil)
		<-time.After(time.Minute)
		if got := b.status(statusName).Status.TargetPath; got != "/target/latest" {
			t.Errorf("got target %s, want that of the latest status", got)
		}
	})
}

func TestRecorder_Mounted_GivesUp(t *testing.T) {
	terminating := kubetest.Status(403, metav1.StatusReasonForbidden, "namespace is being terminated")
	terminating.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "NamespaceTerminating"}}}
	tests := []struct {
		name   string
		status *metav1.Status
		calls  int
	}{
		{name: "namespace is going", status: terminating, calls: 1},
		{name: "object refused", status: kubetest.Status(422, metav1.StatusReasonInvalid, "invalid"), calls: 1},
		{name: "lasting refusal", status: kubetest.Status(403, metav1.StatusReasonForbidden, "no"), calls: 20},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				b.cluster.Intercept(func(*http.Request) *metav1.Status { return test.status })
				b.recorder.Mounted(mounted())
				<-time.After(2 * time.Hour)
				if n := len(b.cluster.Calls()); n != test.calls {
					t.Errorf("%d calls, want %d", n, test.calls)
				}
			})
		})
	}
}

// A volume that is unpublished while its status is written leaves nothing behind
// that is not known to be forgotten.
func TestRecorder_Forget_DuringAWrite(t *testing.T) {
	inBubble(t, func(b *bench) {
		release := make(chan struct{})
		b.cluster.Intercept(func(*http.Request) *metav1.Status {
			<-release
			return nil
		})
		b.recorder.Mounted(mounted())
		synctest.Wait()
		b.recorder.Forget("csi-1")
		close(release)
		b.wantCalls("POST " + statuses)
		b.recorder.Mounted(mounted())
		b.wantCalls("POST "+statuses, "GET "+statusName) // it does not remember that it wrote this
	})
}

// A volume may come again under its id while the one before is being forgotten.
func TestRecorder_Forget_AndMountedAgain(t *testing.T) {
	inBubbleSettling(t, time.Second, func(b *bench) {
		b.recorder.Mounted(mounted())
		<-time.After(time.Second)
		b.wantCalls("POST " + statuses)
		changed := mounted()
		changed.TargetPath = "/target/2"
		b.recorder.Forget("csi-1")
		b.recorder.Mounted(changed)
		<-time.After(time.Second)
		b.wantCalls("PATCH " + statusName)
		b.recorder.Mounted(mounted())
		b.recorder.Forget("csi-1")
		<-time.After(time.Minute)
		b.wantCalls()
	})
}

func TestRecorder_Forget(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.cluster.Intercept(func(*http.Request) *metav1.Status {
			return kubetest.Status(500, metav1.StatusReasonInternalError, "down")
		})
		b.recorder.Mounted(mounted())
		synctest.Wait()
		b.recorder.Forget("csi-1")
		b.cluster.ResetCalls()
		<-time.After(time.Hour)
		b.wantCalls()
	})
}

func TestRecorder_Run_FlushesAtTheEnd(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.cluster.Intercept(func(*http.Request) *metav1.Status {
			return kubetest.Status(500, metav1.StatusReasonInternalError, "down")
		})
		b.recorder.Mounted(mounted())
		<-time.After(time.Minute) // the next attempt is up to a minute away
		b.cluster.Intercept(nil)
		started := time.Now()
		b.stop()
		b.status(statusName)
		if took := time.Since(started); took != 0 {
			t.Errorf("the end took %v, want no wait", took)
		}
		b.stop = func() {}
	})
}

func TestRecorder_Run_EndIsBounded(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.cluster.Intercept(func(r *http.Request) *metav1.Status {
			<-r.Context().Done()
			return kubetest.Status(504, metav1.StatusReasonTimeout, "")
		})
		for i := range 50 {
			status := mounted()
			status.VolumeID = fmt.Sprint(i)
			b.recorder.Mounted(status)
		}
		synctest.Wait()
		started := time.Now()
		b.stop()
		if took := time.Since(started); took != 3*time.Second {
			t.Errorf("the end took %v, want 3s", took)
		}
		b.stop = func() {}
	})
}

// All volumes of a node become stale at once: the API server has a few calls at
// a time, and all is told.
func TestRecorder_Storm(t *testing.T) {
	const volumes = 110
	inBubbleSettling(t, time.Second, func(b *bench) {
		told := func(i int) (podstatus.Status, podstatus.Event) {
			status, event := mounted(), warning()
			status.Pod.Name = fmt.Sprintf("web-%d", i)
			status.Pod.UID, status.VolumeID = status.Pod.Name, status.Pod.Name
			event.Pod, event.Reason, event.Key = status.Pod, podstatus.ReasonRotationFailed, status.VolumeID
			return status, event
		}
		for i := range volumes {
			status, _ := told(i)
			put(b.t, b.cluster, "pods", "shop", metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: status.Pod.Name, UID: types.UID(status.Pod.UID)}})
			b.recorder.Mounted(status)
		}
		<-time.After(time.Minute)
		b.cluster.ResetCalls()
		var running, most atomic.Int32
		b.cluster.Intercept(func(*http.Request) *metav1.Status {
			now := running.Add(1)
			for before := most.Load(); now > before && !most.CompareAndSwap(before, now); before = most.Load() {
			}
			<-time.After(10 * time.Millisecond)
			running.Add(-1)
			return nil
		})
		for i := range volumes {
			status, event := told(i)
			status.Stale = &podstatus.Failure{Reason: "STORE_UNAVAILABLE"}
			b.recorder.Mounted(status)
			b.recorder.Tell(event)
		}
		<-time.After(time.Minute)
		if n := most.Load(); n != 4 {
			t.Errorf("up to %d calls at once, want 4", n)
		}
		if n := len(b.cluster.Calls()); n != 3*volumes { // a patch; a look at the pod and an event
			t.Errorf("%d calls, want %d", n, 3*volumes)
		}
		if n := len(b.events()); n != volumes {
			t.Errorf("%d events, want %d", n, volumes)
		}
		for _, name := range b.cluster.Names(statuses, "shop") {
			if got := b.status(name).Status.Conditions; len(got) != 2 || got[1].Type != "Fresh" || got[1].Status != "False" {
				t.Fatalf("%s: %v", name, got)
			}
		}
	})
}

func TestRecorder_Mounted_ManyVolumesConcurrentSafe(t *testing.T) {
	inBubble(t, func(b *bench) {
		for i := range 1000 {
			status := mounted()
			status.Pod.Name = fmt.Sprintf("web-%d", i)
			status.VolumeID = status.Pod.Name
			b.recorder.Mounted(status)
		}
		synctest.Wait()
		if n := len(b.cluster.Names(statuses, "shop")); n != 1000 {
			t.Errorf("%d statuses, want 1000", n)
		}
	})
}
