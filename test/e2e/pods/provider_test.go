package pods_test

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// soonAfter is how soon a pod has to run after its provider is ready; on an
// idle machine it takes far less.
const soonAfter = 10 * time.Second

// A pod whose provider is not installed waits, and says for what. Once the
// provider is there it runs, without a call of kubelet's that failed before:
// nothing depends on when kubelet tries again.
func testProviderInstalledLater(t *testing.T) {
	dumpIfFailed(t, system)
	n := newTenant(t, map[string]any{})
	n.apply("v1", "app", map[string]any{"provider": "file", "parameters": map[string]any{"objects": "- objectName: password"}})
	pod := n.create(n.pod("web", "app"))
	event := eventOf(t, pod, "WaitingForProvider")
	t.Logf("event: %s", event.Message)

	type outcome struct {
		at  time.Time
		err error
	}
	running := make(chan outcome, 1)
	go func() {
		_, err := waitForPod(t.Context(), n.namespace, "web", isRunning)
		running <- outcome{time.Now(), err}
	}()
	provider := firstReady(t, "postern-provider-file")
	started := time.Now()
	must(t, shared.postern.Upgrade(t.Context(), "provider-file.enabled=true",
		"provider-file.files."+n.namespace+".password=hunter2"))
	pods := <-running
	must(t, pods.err)
	ready := <-provider
	t.Logf("measured: provider installed: ready %s after helm upgrade began, the waiting pod ran %s after that",
		ready.Sub(started).Round(time.Millisecond), pods.at.Sub(ready).Round(time.Millisecond))
	if late := pods.at.Sub(ready); late > soonAfter {
		t.Errorf("the pod ran %s after its provider was ready", late)
	}
	list, err := events(t.Context(), pod)
	must(t, err)
	for _, event := range list {
		if event.Reason == "FailedMount" {
			t.Errorf("a call of kubelet's failed: %s", event.Message)
		}
	}
	n.wantFiles(pod, "app", map[string]string{"password": "hunter2"})
}

// firstReady tells when the first pod of a part is seen to be ready.
func firstReady(t *testing.T, name string) <-chan time.Time {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ready := make(chan time.Time, 1)
	watcher, err := shared.client.CoreV1().Pods(system).Watch(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + name})
	must(t, err)
	go func() {
		defer watcher.Stop()
		for event := range watcher.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok && isReady(pod) {
				ready <- time.Now()
				return
			}
		}
	}()
	return ready
}
