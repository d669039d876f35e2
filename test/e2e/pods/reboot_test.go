package pods_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The node loses power. When it is back its pods run again, with full volumes:
// no container ever starts with an empty one.
func testReboot(t *testing.T) {
	dumpIfFailed(t, system)
	n := newTenant(t, map[string]any{"password": "hunter2", "username": "bob"})
	n.class("login", "username", "password")
	n.class("key", "password")
	pod := n.pod("web", "login", "key")
	pod.Spec.Containers[0].Command = []string{
		"sh", "-c",
		`echo "$(cat /secrets/login/username):$(cat /secrets/login/password):$(cat /secrets/key/password)"; exec sleep 3600`,
	}
	before := n.start(pod)

	started := time.Now()
	must(t, shared.cluster.Reboot(t.Context()))
	t.Logf("measured: reboot of the node took %s", time.Since(started).Round(10*time.Millisecond))
	must(t, shared.bao.Ready(t.Context(), shared.cluster))
	eventually(t, 3*time.Minute, "the pod to run again", func(ctx context.Context) error {
		after, err := shared.client.CoreV1().Pods(n.namespace).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if after.UID != before.UID {
			return fmt.Errorf("it is another pod")
		}
		if !isReady(after) || restarts(after) == restarts(before) {
			return errors.New(describe(ctx, after))
		}
		return nil
	})
	t.Logf("measured: %s after the reboot began the pod had its volumes again", time.Since(started).Round(10*time.Millisecond))
	n.wantFiles(before, "login", map[string]string{"username": "bob", "password": "hunter2"})
	n.wantFiles(before, "key", map[string]string{"password": "hunter2"})
	if got := kubectl(t, "-n", n.namespace, "logs", "web"); got != "bob:hunter2:hunter2\n" {
		t.Errorf("the container started with %q", got)
	}
	allPartsReady(t)
	n.delete(before, metav1.DeleteOptions{})
	n.left(before)
}

func restarts(pod *corev1.Pod) int32 {
	if len(pod.Status.ContainerStatuses) == 0 {
		return 0
	}
	return pod.Status.ContainerStatuses[0].RestartCount
}

// allPartsReady waits until every pod of Postern is ready.
func allPartsReady(t *testing.T) {
	t.Helper()
	eventually(t, 3*time.Minute, "all of Postern to be ready", func(ctx context.Context) error {
		list, err := shared.client.AppsV1().DaemonSets(system).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, set := range list.Items {
			status := set.Status
			if status.ObservedGeneration < set.Generation || status.NumberReady != status.DesiredNumberScheduled || status.NumberReady == 0 {
				return fmt.Errorf("%s has %d of %d pods ready", set.Name, status.NumberReady, status.DesiredNumberScheduled)
			}
		}
		return nil
	})
}
