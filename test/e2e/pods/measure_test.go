package pods_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// measuredPods is how many pods of each kind are measured.
const measuredPods = 10

// testMeasure measures what a mount costs a pod, and what Postern costs a node.
func testMeasure(t *testing.T) {
	n := newTenant(t, map[string]any{"password": "hunter2"})
	n.class("app", "password")
	var without, with []time.Duration
	for i := range measuredPods {
		without = append(without, n.startTime(n.pod(fmt.Sprintf("without-%d", i))))
		with = append(with, n.startTime(n.pod(fmt.Sprintf("with-%d", i), "app")))
	}
	var mounts []time.Duration
	for _, trace := range publishes(n.namespace) {
		if trace.Has("driver.WriteVolume") {
			span, _ := trace.Find(publish)
			mounts = append(mounts, duration(span))
		}
	}
	t.Logf("measured: from a pod's creation to running: %s with a mount, %s without (medians of %d)",
		median(with).Round(time.Millisecond), median(without).Round(time.Millisecond), measuredPods)
	if len(mounts) > 0 {
		t.Logf("measured: a mount: median %s, longest %s of %d", median(mounts).Round(10*time.Microsecond),
			slices.Max(mounts).Round(10*time.Microsecond), len(mounts))
	}
	t.Logf("measured: memory: %s", strings.Join(memory(t), ", "))
}

// startTime creates a pod, waits until it runs, and deletes it.
func (n *tenant) startTime(pod *corev1.Pod) time.Duration {
	n.t.Helper()
	now := int64(0)
	start := time.Now()
	n.create(pod)
	_, err := waitForPod(n.t.Context(), n.namespace, pod.Name, isRunning)
	took := time.Since(start)
	must(n.t, err)
	must(n.t, shared.client.CoreV1().Pods(n.namespace).Delete(n.t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	return took
}

func median(durations []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[len(sorted)/2]
}

// memory returns the working set of each container of Postern, as kubelet has it.
func memory(t *testing.T) []string {
	t.Helper()
	raw, err := shared.client.CoreV1().RESTClient().Get().
		AbsPath("/api/v1/nodes/" + shared.cluster.NodeName() + "/proxy/stats/summary").DoRaw(t.Context())
	must(t, err)
	var summary struct {
		Pods []struct {
			PodRef     struct{ Name, Namespace string }
			Containers []struct {
				Name   string
				Memory struct{ WorkingSetBytes float64 }
			}
		}
	}
	must(t, json.Unmarshal(raw, &summary))
	var containers []string
	for _, pod := range summary.Pods {
		for _, container := range pod.Containers {
			if pod.PodRef.Namespace == system {
				containers = append(containers, fmt.Sprintf("%s/%s %.1f MiB", pod.PodRef.Name, container.Name, container.Memory.WorkingSetBytes/(1<<20)))
			}
		}
	}
	if len(containers) == 0 {
		t.Errorf("kubelet tells of no container of Postern: %s", raw)
	}
	slices.Sort(containers)
	return containers
}
