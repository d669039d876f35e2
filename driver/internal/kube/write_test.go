package kube_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
)

func TestClient_Event(t *testing.T) {
	t.Parallel()
	cluster := kubetest.New()
	client := newClient(t, cluster)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	event := kube.Event{
		Name: "web.1", Namespace: "shop", PodName: "web", PodUID: "u1", Type: "Warning", Reason: "R", Message: "m",
		Component: "c", Node: "n1", Count: 1, First: at, Last: at,
	}
	if err := client.CreateEvent(t.Context(), event); err != nil {
		t.Fatalf("CreateEvent: %v", err)
	}
	if err := client.CreateEvent(t.Context(), event); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second CreateEvent: got %v, want already-exists", err)
	}
	event.Count, event.Message, event.Last = 7, "m2", at.Add(time.Minute)
	if err := client.RepeatEvent(t.Context(), event); err != nil {
		t.Fatalf("RepeatEvent: %v", err)
	}
	got := make(map[string]any)
	if ok, err := cluster.Get("events", "shop", "web.1", &got); err != nil || !ok {
		t.Fatalf("Get: %v, %v", ok, err)
	}
	delete(got, "metadata")
	want := map[string]any{
		"apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "R", "message": "m2", "count": 7.0,
		"firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:05:05Z",
		"source":             map[string]any{"component": "c", "host": "n1"},
		"reportingComponent": "c", "reportingInstance": "n1",
		"involvedObject": map[string]any{"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "web", "uid": "u1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	event.Name = "gone"
	if err := client.RepeatEvent(t.Context(), event); !apierrors.IsNotFound(err) {
		t.Errorf("RepeatEvent of a dropped event: got %v, want not-found", err)
	}
}
