package pods_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// kubelet is answered OK whatever becomes of a refresh: an error would be
// repeated as its own event, and after its restart keep containers from starting
// (docs/adr/0022). So while the store refuses, the container runs on, one that is
// restarted has the last good content, and what the store has later reaches it.
func testRepublishWhileRefreshFails(t *testing.T) {
	t.Parallel()
	n := newTenant(t, map[string]any{"password": "old"})
	n.class("app", "password")
	pod := n.pod("web", "app")
	pod.Spec.Containers[0].Command = []string{"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"}
	pod = n.start(pod)

	must(t, shared.bao.PutPolicy(t.Context(), n.namespace, `path "secret/data/nothing" { capabilities = ["read"] }`))
	n.putSecret(map[string]any{"password": "new"})
	eventOf(t, pod, "MountRotationFailed")
	n.republished(pod, time.Now())
	n.wantFiles(pod, "app", map[string]string{"password": "old"})

	n.exec("web", "kill", "-TERM", "1")
	_, err := waitForPod(t.Context(), n.namespace, "web", func(pod *corev1.Pod) bool { return restarts(pod) == 1 && isReady(pod) })
	must(t, err)
	if got := n.exec("web", "cat", "/secrets/app/password"); got != "old" {
		t.Errorf("the container that was restarted reads %q, want the last good content", got)
	}
	n.republished(pod, time.Now())
	list, err := events(t.Context(), pod)
	must(t, err)
	if slices.ContainsFunc(list, func(e corev1.Event) bool { return e.Reason == "FailedMount" }) {
		t.Errorf("kubelet was answered an error: %s", describe(t.Context(), pod))
	}

	must(t, shared.bao.PutPolicy(t.Context(), n.namespace,
		fmt.Sprintf(`path "secret/data/%s/*" { capabilities = ["read"] }`, n.namespace)))
	n.eventuallyFiles(pod, "app", map[string]string{"password": "new"})
	if got := n.exec("web", "cat", "/secrets/app/password"); got != "new" {
		t.Errorf("the container reads %q, want the new content", got)
	}
}
