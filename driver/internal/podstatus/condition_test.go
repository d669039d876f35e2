package podstatus_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
	"github.com/postern-dev/postern/driver/internal/podstatus"
)

// conditions returns the conditions of the volume's object by type.
func (b *bench) conditions() map[string]metav1.Condition {
	b.t.Helper()
	byType := make(map[string]metav1.Condition)
	for _, condition := range b.status(statusName).Status.Conditions {
		byType[condition.Type] = condition
	}
	return byType
}

// wantConditions compares all conditions, whose types are the map's keys.
func (b *bench) wantConditions(want map[string]metav1.Condition) {
	b.t.Helper()
	for kind, condition := range want {
		condition.Type = kind
		want[kind] = condition
	}
	if diff := cmp.Diff(want, b.conditions()); diff != "" {
		b.t.Errorf("conditions (-want +got):\n%s", diff)
	}
}

// One state after the other, each with what is written of it.
func TestRecorder_Mounted_Conditions(t *testing.T) {
	inBubble(t, func(b *bench) {
		first := mounted()
		status := first
		began := metav1.Now()
		ready := metav1.Condition{Status: "True", Reason: "InPlace", LastTransitionTime: began}
		b.recorder.Mounted(status)
		b.wantCalls("POST " + statuses)

		<-time.After(time.Hour)
		staleSince := metav1.Now()
		status.Stale = &podstatus.Failure{Reason: "STORE_UNAVAILABLE", Message: "request 1"}
		b.recorder.Mounted(status)
		b.wantCalls("PATCH " + statusName)
		b.wantConditions(map[string]metav1.Condition{
			"Ready": ready,
			"Fresh": {Status: "False", Reason: "STORE_UNAVAILABLE", Message: "request 1", LastTransitionTime: staleSince},
		})
		if got := b.status(statusName).Status; !got.LastRefreshTime.Time.Equal(first.LastRefresh) || !got.Mounted {
			t.Errorf("last refresh %v, mounted %v; want the time before the failure, and mounted", got.LastRefreshTime, got.Mounted)
		}

		<-time.After(time.Minute)
		status.Stale = &podstatus.Failure{Reason: "STORE_UNAVAILABLE", Message: "request 2"}
		b.recorder.Mounted(status)
		b.wantCalls() // the wording alone is no reason

		status.Stale = &podstatus.Failure{Reason: "ACCESS_DENIED", Message: "ask for access"}
		b.recorder.Mounted(status)
		b.wantCalls("PATCH " + statusName)
		b.wantConditions(map[string]metav1.Condition{
			"Ready": ready,
			"Fresh": {Status: "False", Reason: "ACCESS_DENIED", Message: "ask for access", LastTransitionTime: staleSince},
		})

		<-time.After(time.Minute)
		fresh := metav1.Condition{Status: "True", Reason: "Fetched", LastTransitionTime: metav1.Now()}
		status.Stale, status.LastRefresh = nil, time.Now()
		b.recorder.Mounted(status)
		b.wantCalls("PATCH " + statusName)
		b.wantConditions(map[string]metav1.Condition{"Ready": ready, "Fresh": fresh})
		if got := b.status(statusName).Status.LastRefreshTime; !got.Time.Equal(status.LastRefresh) {
			t.Errorf("last refresh %v, want that of the recovery, %v", got, status.LastRefresh)
		}

		<-time.After(time.Minute)
		status.Unsynced = &podstatus.Failure{Reason: "NAMESPACE_NOT_OPEN", Message: "open it"}
		b.recorder.Mounted(status)
		b.wantCalls("PATCH " + statusName)
		b.wantConditions(map[string]metav1.Condition{
			"Ready": {Status: "False", Reason: "NAMESPACE_NOT_OPEN", Message: "open it", LastTransitionTime: metav1.Now()},
			"Fresh": fresh,
		})
		status.Unsynced = nil
		b.recorder.Mounted(status)
		b.wantCalls("PATCH " + statusName)
		ready.LastTransitionTime = metav1.Now()
		b.wantConditions(map[string]metav1.Condition{"Ready": ready, "Fresh": fresh})
	})
}

// The API server takes neither any reason nor a message of any length.
func TestRecorder_Mounted_ConditionBounds(t *testing.T) {
	inBubble(t, func(b *bench) {
		status := mounted()
		status.Stale = &podstatus.Failure{Reason: "not a reason!", Message: strings.Repeat("ü", 40_000)}
		status.Unsynced = &podstatus.Failure{Message: "x\xffy"}
		b.recorder.Mounted(status)
		b.wantCalls("POST " + statuses)
		got := b.conditions()
		if fresh := got["Fresh"]; fresh.Reason != "FetchFailed" || len(fresh.Message) > 1024 || !strings.HasSuffix(fresh.Message, "ü...") {
			t.Errorf("Fresh: reason %s, message of %d bytes", fresh.Reason, len(fresh.Message))
		}
		if ready := got["Ready"]; ready.Reason != "SyncFailed" || ready.Message != "x?y" {
			t.Errorf("Ready: %+v", ready)
		}
	})
}

// When a failure began is not when it could be written.
func TestRecorder_Mounted_ConditionSince(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.recorder.Mounted(mounted())
		<-time.After(time.Hour)
		status := mounted()
		since := metav1.Now()
		status.Stale = &podstatus.Failure{Reason: "STORE_UNAVAILABLE", Since: since.Time}
		status.Unsynced = &podstatus.Failure{Reason: "FORBIDDEN", Since: since.Add(24 * time.Hour)} // by a clock that was wrong
		<-time.After(time.Minute)
		b.recorder.Mounted(status)
		synctest.Wait()
		got := b.conditions()
		if at := got["Fresh"].LastTransitionTime; !at.Equal(&since) {
			t.Errorf("Fresh since %v, want when it began, %v", at, since)
		}
		if at := got["Ready"].LastTransitionTime; !at.Time.Equal(time.Now()) {
			t.Errorf("Ready since %v, want now: that is no time in the past", at)
		}
	})
}

// Former versions wrote a condition Refreshed.
func TestRecorder_Mounted_FormerConditions(t *testing.T) {
	inBubble(t, func(b *bench) {
		refreshed := metav1.Condition{Type: "Refreshed", Status: "True", Reason: "Fetched", LastTransitionTime: metav1.Now()}
		b.recorder.Mounted(mounted())
		synctest.Wait()
		object := b.status(statusName)
		object.Status.Conditions = []metav1.Condition{refreshed}
		put(t, b.cluster, statuses, "shop", object)
		b.stop()
		b.start("n1")
		b.cluster.ResetCalls()
		b.recorder.Mounted(mounted())
		b.wantCalls("POST "+statuses, "GET "+statusName, "PATCH "+statusName)
		if got := b.conditions(); len(got) != 2 || got["Ready"].Status != "True" || got["Fresh"].Status != "True" {
			t.Errorf("conditions %v, want Ready and Fresh alone", got)
		}

		object = b.status(statusName)
		object.Status.Conditions = append(object.Status.Conditions, refreshed)
		put(t, b.cluster, statuses, "shop", object)
		b.stop()
		b.start("n1")
		b.cluster.ResetCalls()
		b.recorder.Mounted(mounted())
		b.wantCalls("POST "+statuses, "GET "+statusName) // that alone is no reason to write
	})
}

// A driver that was restarted does not know what a volume holds before it has
// fetched that.
func TestRecorder_Mounted_ObjectsNotKnown(t *testing.T) {
	unknown := func() podstatus.Status {
		status := mounted()
		status.Objects, status.LastRefresh = []podstatus.Object{{ID: "not looked at"}}, time.Time{}
		return status
	}
	t.Run("keeps what a former process wrote", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			first := mounted()
			b.recorder.Mounted(first)
			synctest.Wait()
			<-time.After(time.Hour)
			b.stop()
			b.start("n1")
			b.cluster.ResetCalls()
			b.recorder.Mounted(unknown())
			b.wantCalls("POST "+statuses, "GET "+statusName)
			failing := unknown()
			failing.Stale = &podstatus.Failure{Reason: "STORE_UNAVAILABLE"}
			b.recorder.Mounted(failing)
			b.wantCalls("PATCH " + statusName)
			got := b.status(statusName).Status
			want := []apiv1.SecretProviderClassObject{{ID: "a", Version: "1"}, {ID: "b", Version: "2"}}
			if diff := cmp.Diff(want, got.Objects); diff != "" || !got.LastRefreshTime.Time.Equal(first.LastRefresh) {
				t.Errorf("last refresh %v, objects (-want +got):\n%s", got.LastRefreshTime, diff)
			}
			if condition := b.conditions()["Fresh"]; condition.Status != "False" {
				t.Errorf("Fresh: %+v", condition)
			}
		})
	})
	t.Run("there is no object", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			b.recorder.Mounted(unknown())
			b.wantCalls("POST " + statuses)
			if got := b.status(statusName).Status; len(got.Objects) != 0 || got.LastRefreshTime != nil {
				t.Errorf("last refresh %v, objects %v; want none", got.LastRefreshTime, got.Objects)
			}
			// The API server refuses null.
			var raw struct{ Status map[string]any }
			if _, err := b.cluster.Get(statuses, "shop", statusName, &raw); err != nil {
				b.t.Fatalf("Get: %v", err)
			}
			if at, ok := raw.Status["lastRefreshTime"]; ok {
				t.Errorf("last refresh %v, want no such field", at)
			}
			b.recorder.Mounted(unknown())
			b.wantCalls()
			b.recorder.Mounted(mounted())
			b.wantCalls("PATCH " + statusName)
			if got := b.status(statusName).Status; len(got.Objects) != 2 || got.LastRefreshTime == nil {
				t.Errorf("last refresh %v, objects %v; want both", got.LastRefreshTime, got.Objects)
			}
		})
	})
	t.Run("the object is that of a former pod", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			former := mounted()
			former.Pod.UID, former.VolumeID = "u0", "csi-0"
			former.Stale = &podstatus.Failure{Reason: "STORE_UNAVAILABLE"}
			b.recorder.Mounted(former)
			synctest.Wait()
			<-time.After(time.Hour)
			failing := unknown()
			failing.Stale = former.Stale
			b.recorder.Mounted(failing)
			synctest.Wait()
			got := b.status(statusName).Status
			if got.VolumeID != "csi-1" || len(got.Objects) != 0 || got.LastRefreshTime != nil {
				t.Errorf("volume %s, last refresh %v, objects %v; want csi-1 with neither", got.VolumeID, got.LastRefreshTime, got.Objects)
			}
			if at := b.conditions()["Fresh"].LastTransitionTime; !at.Time.Equal(time.Now()) {
				t.Errorf("Fresh since %v, want now: that of the former pod is not this one's", at)
			}
		})
	})
}

// What changes to and fro within a moment is written once, as it is in the end,
// or not at all.
func TestRecorder_Mounted_Flapping(t *testing.T) {
	inBubbleSettling(t, time.Second, func(b *bench) {
		b.recorder.Mounted(mounted())
		<-time.After(time.Second)
		b.wantCalls("POST " + statuses)
		flap := func(times int) {
			for i := range times {
				status := mounted()
				if i%2 == 0 {
					status.Stale = &podstatus.Failure{Reason: "STORE_UNAVAILABLE"}
				}
				b.recorder.Mounted(status)
				<-time.After(100 * time.Millisecond)
			}
			<-time.After(time.Second)
		}
		flap(4) // ends as it began
		b.wantCalls()
		flap(5)
		b.wantCalls("PATCH " + statusName)
		if got := b.conditions()["Fresh"]; got.Status != "False" {
			t.Errorf("Fresh: %+v", got)
		}
	})
}

// What changes while a write is under way settles, too.
func TestRecorder_Mounted_ChangesDuringAWrite(t *testing.T) {
	inBubbleSettling(t, time.Second, func(b *bench) {
		b.cluster.Intercept(func(*http.Request) *metav1.Status {
			<-time.After(500 * time.Millisecond)
			return nil
		})
		for i := range 40 { // the first write is from 1s to 1.5s, and one more each 1.5s
			status := mounted()
			status.TargetPath = fmt.Sprint(i)
			b.recorder.Mounted(status)
			<-time.After(100 * time.Millisecond)
		}
		<-time.After(5 * time.Second)
		if n := len(b.cluster.Calls()); n < 3 || n > 4 {
			t.Errorf("%d calls, want 3 or 4", n)
		}
		if got := b.status(statusName).Status.TargetPath; got != "39" {
			t.Errorf("state %s, want the last, 39", got)
		}
	})
}

// An API server that is away is no reason to lose the last state.
func TestRecorder_Mounted_Outage(t *testing.T) {
	for _, outage := range []time.Duration{10 * time.Minute, 6 * time.Hour} {
		t.Run(outage.String(), func(t *testing.T) {
			inBubble(t, func(b *bench) {
				b.recorder.Mounted(mounted())
				b.wantCalls("POST " + statuses)
				b.cluster.Intercept(func(*http.Request) *metav1.Status {
					return kubetest.Status(503, metav1.StatusReasonServiceUnavailable, "away")
				})
				began := time.Now()
				status := mounted()
				for time.Since(began) < outage-time.Minute {
					status.Objects = []podstatus.Object{{ID: "a", Version: time.Since(began).String()}}
					status.Stale = nil
					b.recorder.Mounted(status)
					<-time.After(15 * time.Second)
					status.Stale = &podstatus.Failure{Reason: "STORE_UNAVAILABLE", Since: time.Now()}
					b.recorder.Mounted(status)
					<-time.After(15 * time.Second)
				}
				<-time.After(outage - time.Since(began))
				if calls := len(b.cluster.Calls()); calls > 30+int(outage/(2*time.Minute)) {
					t.Errorf("%d calls while it was away", calls)
				}
				b.cluster.Intercept(nil)
				<-time.After(5 * time.Minute)
				got := b.status(statusName).Status
				if got.Objects[0].Version != status.Objects[0].Version {
					t.Errorf("objects %v, want the last, %v", got.Objects, status.Objects)
				}
				if fresh := b.conditions()["Fresh"]; fresh.Status != "False" || !fresh.LastTransitionTime.Time.Equal(status.Stale.Since) {
					t.Errorf("Fresh: %+v, want the last state since %v", fresh, status.Stale.Since)
				}
			})
		})
	}
}
