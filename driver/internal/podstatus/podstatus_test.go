package podstatus_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
	"github.com/postern-dev/postern/driver/internal/podstatus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	statuses   = apiv1.ResourceSecretProviderClassPodStatuses
	statusName = "web-0-shop-db"
)

// bench is a recorder that runs, within a bubble.
type bench struct {
	t        *testing.T
	cluster  *kubetest.Cluster
	settle   time.Duration
	recorder *podstatus.Recorder
	stop     func()
}

// inBubble runs f with a recorder on node n1 that writes at once.
func inBubble(t *testing.T, f func(*bench)) {
	t.Helper()
	inBubbleSettling(t, 0, f)
}

// inBubbleSettling runs f with a recorder on node n1.
func inBubbleSettling(t *testing.T, settle time.Duration, f func(*bench)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := kubetest.New()
		b := &bench{t: t, cluster: cluster, settle: settle}
		b.start("n1")
		put(t, cluster, "pods", "shop", metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "web-0", UID: "u1"}})
		f(b)
		b.stop()
	})
}

// start starts a recorder, as on another node or after a restart.
func (b *bench) start(node string) {
	b.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	client, err := kube.New(kube.Config{RESTConfig: b.cluster.RESTConfig(), Logger: logger})
	if err != nil {
		b.t.Fatalf("kube.New: %v", err)
	}
	recorder, err := podstatus.New(podstatus.Config{Node: node, Statuses: client, Events: client, Logger: logger, Settle: b.settle})
	if err != nil {
		b.t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- recorder.Run(ctx) }()
	b.recorder = recorder
	b.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	}
}

// wantCalls waits until nothing happens any more and compares the calls since
// the last time, with paths cut to their last element.
func (b *bench) wantCalls(want ...string) {
	b.t.Helper()
	synctest.Wait()
	var got []string
	for _, call := range b.cluster.Calls() {
		method, path, _ := strings.Cut(call, " ")
		got = append(got, method+" "+path[strings.LastIndex(path, "/")+1:])
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		b.t.Errorf("calls (-want +got):\n%s", diff)
	}
	b.cluster.ResetCalls()
}

func (b *bench) status(name string) *apiv1.SecretProviderClassPodStatus {
	b.t.Helper()
	object := &apiv1.SecretProviderClassPodStatus{}
	if ok, err := b.cluster.Get(statuses, "shop", name, object); err != nil || !ok {
		b.t.Fatalf("status %s: there %v, %v; there are %q", name, ok, err, b.cluster.Names(statuses, "shop"))
	}
	return object
}

func put(t *testing.T, cluster *kubetest.Cluster, resource, namespace string, object any) {
	t.Helper()
	if err := cluster.Put(resource, namespace, object); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

// mounted is how a volume is that was just mounted.
func mounted() podstatus.Status {
	return podstatus.Status{
		Pod:                 podstatus.Pod{Namespace: "shop", Name: "web-0", UID: "u1"},
		SecretProviderClass: "db",
		VolumeID:            "csi-1",
		TargetPath:          "/target/1",
		Objects:             []podstatus.Object{{ID: "b", Version: "2"}, {ID: "a", Version: "1"}},
		LastRefresh:         time.Now(),
	}
}

func TestRecorder_Mounted(t *testing.T) {
	inBubble(t, func(b *bench) {
		now := metav1.NewTime(time.Now())
		b.recorder.Mounted(mounted())
		b.wantCalls("POST " + statuses)

		want := &apiv1.SecretProviderClassPodStatus{
			TypeMeta: metav1.TypeMeta{APIVersion: "secrets-store.csi.x-k8s.io/v1", Kind: "SecretProviderClassPodStatus"},
			ObjectMeta: metav1.ObjectMeta{
				Name: statusName, Namespace: "shop",
				Labels:          map[string]string{"internal.secrets-store.csi.k8s.io/node-name": "n1"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web-0", UID: "u1"}},
			},
			Status: apiv1.SecretProviderClassPodStatusStatus{
				PodName: "web-0", SecretProviderClassName: "db", Mounted: true, TargetPath: "/target/1", VolumeID: "csi-1",
				Objects:         []apiv1.SecretProviderClassObject{{ID: "a", Version: "1"}, {ID: "b", Version: "2"}},
				LastRefreshTime: &now,
				Conditions: []metav1.Condition{
					{Type: "Ready", Status: "True", Reason: "InPlace", LastTransitionTime: now},
					{Type: "Fresh", Status: "True", Reason: "Fetched", LastTransitionTime: now},
				},
			},
		}
		ignore := cmpopts.IgnoreFields(metav1.ObjectMeta{}, "ResourceVersion", "UID")
		if diff := cmp.Diff(want, b.status(statusName), ignore); diff != "" {
			t.Errorf("object (-want +got):\n%s", diff)
		}
	})
}

func TestRecorder_Mounted_WritesOnlyChanges(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.recorder.Mounted(mounted())
		b.wantCalls("POST " + statuses)

		same := mounted()
		same.Objects[0], same.Objects[1] = same.Objects[1], same.Objects[0]
		same.LastRefresh = time.Now().Add(time.Hour)
		b.recorder.Mounted(same)
		b.wantCalls()

		changed := mounted()
		changed.Objects = changed.Objects[:1]
		b.recorder.Mounted(changed)
		b.wantCalls("PATCH " + statusName)
		if got := b.status(statusName).Status.Objects; len(got) != 1 || got[0].ID != "b" {
			t.Errorf("got objects %v, want b alone", got)
		}
		b.recorder.Mounted(mounted())
		b.wantCalls("PATCH " + statusName)
	})
}

func TestRecorder_Mounted_NoObjects(t *testing.T) {
	inBubble(t, func(b *bench) {
		none := mounted()
		none.Objects = nil
		b.recorder.Mounted(none)
		b.wantCalls("POST " + statuses)
		b.recorder.Mounted(none)
		b.wantCalls()
	})
}

func TestRecorder_Mounted_LatestWins(t *testing.T) {
	inBubble(t, func(b *bench) {
		release := make(chan struct{})
		b.cluster.Intercept(func(*http.Request) *metav1.Status {
			<-release
			return nil
		})
		for version := range 20 {
			status := mounted()
			status.Objects = []podstatus.Object{{ID: "a", Version: fmt.Sprint(version)}}
			b.recorder.Mounted(status)
			if version == 0 {
				synctest.Wait()
			}
		}
		close(release)
		b.wantCalls("POST "+statuses, "PATCH "+statusName)
		if got := b.status(statusName).Status.Objects[0].Version; got != "19" {
			t.Errorf("got version %s, want the latest, 19", got)
		}
	})
}

func TestRecorder_Mounted_AfterRestart(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.recorder.Mounted(mounted())
		synctest.Wait()
		b.stop()
		b.start("n1")
		b.cluster.ResetCalls()
		b.recorder.Mounted(mounted())
		b.wantCalls("POST "+statuses, "GET "+statusName)
		b.recorder.Mounted(mounted())
		b.wantCalls()
	})
}

func TestRecorder_Mounted_TakesOver(t *testing.T) {
	former := func() *apiv1.SecretProviderClassPodStatus {
		return &apiv1.SecretProviderClassPodStatus{
			ObjectMeta: metav1.ObjectMeta{
				Name:            statusName,
				Labels:          map[string]string{apiv1.NodeNameLabel: "n0", "team": "a"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web-0", UID: "u0"}},
			},
			Status: apiv1.SecretProviderClassPodStatusStatus{
				PodName: "web-0", SecretProviderClassName: "db", Mounted: true, TargetPath: "/target/0", VolumeID: "csi-0",
			},
		}
	}
	tests := []struct {
		name   string
		change func(*apiv1.SecretProviderClassPodStatus)
		taken  bool
	}{
		{name: "of the former pod on another node", change: func(*apiv1.SecretProviderClassPodStatus) {}, taken: true},
		{name: "of the former pod, without labels", change: func(o *apiv1.SecretProviderClassPodStatus) { o.Labels = nil }, taken: true},
		{name: "without an owner", change: func(o *apiv1.SecretProviderClassPodStatus) { o.OwnerReferences = nil }, taken: true},
		{name: "of the upstream driver, for this volume", change: func(o *apiv1.SecretProviderClassPodStatus) {
			o.OwnerReferences[0].UID, o.Status.VolumeID, o.Status.TargetPath = "u1", "", "/target/1"
		}, taken: true},
		{name: "of the upstream driver, for another volume", change: func(o *apiv1.SecretProviderClassPodStatus) {
			o.OwnerReferences[0].UID, o.Status.VolumeID = "u1", ""
		}},
		{name: "of another volume of this pod", change: func(o *apiv1.SecretProviderClassPodStatus) { o.OwnerReferences[0].UID = "u1" }},
		{name: "of another pod", change: func(o *apiv1.SecretProviderClassPodStatus) {
			o.Status.PodName, o.Status.SecretProviderClassName = "web", "0-shop-db"
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				existing := former()
				test.change(existing)
				put(t, b.cluster, statuses, "shop", existing)
				b.recorder.Mounted(mounted())
				if !test.taken {
					b.wantCalls("POST "+statuses, "GET "+statusName, "POST "+statuses)
					if got := b.status(statusName); got.Status.TargetPath != "/target/0" {
						t.Errorf("another volume's status was changed: %v", got.Status)
					}
					if names := b.cluster.Names(statuses, "shop"); len(names) != 2 || !strings.HasPrefix(names[1], statusName+"-") {
						t.Errorf("got objects %q, want one with a suffix", names)
					}
					return
				}
				b.wantCalls("POST "+statuses, "GET "+statusName, "PATCH "+statusName)
				got := b.status(statusName)
				if got.Labels[apiv1.NodeNameLabel] != "n1" || got.Labels["team"] != existing.Labels["team"] {
					t.Errorf("got labels %v, want node n1 and the rest kept", got.Labels)
				}
				if len(got.OwnerReferences) != 1 || got.OwnerReferences[0].UID != types.UID("u1") {
					t.Errorf("got owners %v, want the pod alone", got.OwnerReferences)
				}
				if got.Status.VolumeID != "csi-1" || got.Status.TargetPath != "/target/1" {
					t.Errorf("got status %v, want the volume's", got.Status)
				}
			})
		})
	}
}

func TestRecorder_Mounted_OneClassTwice(t *testing.T) {
	inBubble(t, func(b *bench) {
		first, second := mounted(), mounted()
		second.VolumeID, second.TargetPath = "csi-2", "/target/2"
		write := func() {
			b.recorder.Mounted(first)
			synctest.Wait()
			b.recorder.Mounted(second)
			synctest.Wait()
		}
		write()
		before := b.cluster.Names(statuses, "shop")
		if len(before) != 2 || b.status(before[0]).Status.VolumeID != "csi-1" || b.status(before[1]).Status.VolumeID != "csi-2" {
			t.Fatalf("got objects %q, want that of csi-1 and, with a suffix, that of csi-2", before)
		}
		b.stop()
		b.start("n1")
		b.recorder.Mounted(second) // in the other order, after a restart
		synctest.Wait()
		write()
		if diff := cmp.Diff(before, b.cluster.Names(statuses, "shop")); diff != "" {
			t.Errorf("objects after a restart (-before +after):\n%s", diff)
		}
	})
}

func TestRecorder_Mounted_ConflictAndDeletion(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.recorder.Mounted(mounted())
		synctest.Wait()
		edited := b.status(statusName)
		edited.Labels["team"] = "a"
		put(t, b.cluster, statuses, "shop", edited)
		b.cluster.ResetCalls()
		changed := mounted()
		changed.Objects = nil
		b.recorder.Mounted(changed)
		b.wantCalls("PATCH "+statusName, "POST "+statuses, "GET "+statusName, "PATCH "+statusName)
		if got := b.status(statusName); got.Labels["team"] != "a" || len(got.Status.Objects) != 0 {
			t.Errorf("got labels %v and objects %v, want the label kept and no objects", got.Labels, got.Status.Objects)
		}
		b.cluster.Delete(statuses, "shop", statusName)
		b.recorder.Mounted(mounted())
		b.wantCalls("PATCH "+statusName, "POST "+statuses)
	})
}
