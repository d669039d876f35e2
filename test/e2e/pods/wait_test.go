package pods_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// podTimeout is more than a pod ever takes to start, on a machine that does
// much else; it is longer than kubelet's patience with one call of the driver.
const podTimeout = 150 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitForPod waits until the API server tells of a pod that satisfies
// condition. The error says in what state the pod is instead, and its events.
func waitForPod(ctx context.Context, namespace, name string, condition func(*corev1.Pod) bool) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, podTimeout)
	defer cancel()
	pods := shared.client.CoreV1().Pods(namespace)
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			return pods.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			return pods.Watch(ctx, options)
		},
	}
	var last *corev1.Pod
	_, err := watchtools.UntilWithSync(ctx, source, &corev1.Pod{}, nil, func(event watch.Event) (bool, error) {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok || event.Type == watch.Deleted {
			return false, nil
		}
		last = pod
		return condition(pod), nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for pod %s/%s: %w; %s", namespace, name, err, describe(context.WithoutCancel(ctx), last))
	}
	return last, nil
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func isRunning(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning }

func describe(ctx context.Context, pod *corev1.Pod) string {
	if pod == nil {
		return "there is none"
	}
	text := "it is " + string(pod.Status.Phase)
	list, err := events(ctx, pod)
	if err != nil {
		return text + "; " + err.Error()
	}
	for _, event := range list {
		text += fmt.Sprintf("\n  %s %s (%dx): %s", event.Type, event.Reason, event.Count, event.Message)
	}
	return text
}

// events returns the events of a pod.
func events(ctx context.Context, pod *corev1.Pod) ([]corev1.Event, error) {
	list, err := shared.client.CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(pod.UID)).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("list the events of pod %s: %w", pod.Name, err)
	}
	return list.Items, nil
}

// eventOf waits for an event with this reason on a pod.
func eventOf(t *testing.T, pod *corev1.Pod, reason string) corev1.Event {
	t.Helper()
	var found corev1.Event
	eventually(t, time.Minute, "event "+reason, func(ctx context.Context) error {
		list, err := events(ctx, pod)
		if err != nil {
			return err
		}
		index := slices.IndexFunc(list, func(e corev1.Event) bool { return e.Reason == reason })
		if index < 0 {
			return errors.New(describe(ctx, pod))
		}
		found = list[index]
		return nil
	})
	return found
}

// eventually calls check until it succeeds, and fails the test with its last
// error after timeout.
func eventually(t *testing.T, timeout time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	last := errors.New("not tried")
	for {
		if err := check(ctx); err == nil {
			return
		} else if ctx.Err() == nil {
			last = err // the error of a try that was cut short says nothing
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited %s for %s: %v", timeout, what, last)
		}
	}
}

// kubectl runs kubectl in the cluster and returns what it printed.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := output(shared.cluster.Command(context.WithoutCancel(t.Context()), "kubectl", args...))
	if err != nil {
		t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// output runs a command; its error holds what the command complained of.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}
