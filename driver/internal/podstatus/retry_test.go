package podstatus_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
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
