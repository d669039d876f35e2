package pods_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/test/otlp"
)

const (
	// loopWorkers create and delete pods at once, each with loopVolumes.
	loopWorkers = 3
	loopVolumes = 5
	// loopMounts is how many mounts a loop makes at least.
	loopMounts = 200
	// longestWait is how long a mount may wait for what is upgraded.
	longestWait = time.Second
)

// mountLoop creates and deletes pods that mount, until it is told to stop.
type mountLoop struct {
	*tenant

	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu     sync.Mutex
	mounts int
	errs   []error
	more   chan struct{} // closed and replaced when mounts grows or a worker fails
}

// startLoop starts a loop; it ends with the test at the latest.
func startLoop(t *testing.T) *mountLoop {
	t.Helper()
	l := &mountLoop{tenant: newTenant(t, map[string]any{"password": "hunter2"}), more: make(chan struct{})}
	var classes []string
	for i := range loopVolumes {
		classes = append(classes, fmt.Sprintf("class-%d", i))
		l.class(classes[i], "password")
	}
	ctx, cancel := context.WithCancel(t.Context())
	l.cancel = cancel
	t.Cleanup(func() {
		cancel()
		l.workers.Wait()
	})
	for worker := range loopWorkers {
		l.workers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				l.did(l.one(ctx, l.pod(fmt.Sprintf("web-%d-%d", worker, i), classes...)))
			}
		})
	}
	return l
}

// one creates a pod, waits until it runs and deletes it.
func (l *mountLoop) one(ctx context.Context, pod *corev1.Pod) error {
	now := int64(0)
	pod.Spec.HostNetwork = true // saves the time of setting up its own
	pods := shared.client.CoreV1().Pods(l.namespace)
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	// The pod is waited for to its end: one that was interrupted proves nothing.
	ctx = context.WithoutCancel(ctx)
	_, err := waitForPod(ctx, l.namespace, pod.Name, isRunning)
	if err != nil {
		return err
	}
	err = pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (l *mountLoop) did(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.mounts += loopVolumes
	case !errors.Is(err, context.Canceled):
		l.errs = append(l.errs, err)
		l.cancel()
	}
	close(l.more)
	l.more = make(chan struct{})
}

// reach waits until the loop has made so many mounts.
func (l *mountLoop) reach(mounts int) {
	l.t.Helper()
	timeout := time.NewTimer(5 * time.Minute)
	defer timeout.Stop()
	for {
		l.mu.Lock()
		made, errs, more := l.mounts, l.errs, l.more
		l.mu.Unlock()
		switch {
		case len(errs) > 0:
			l.t.Fatal(errors.Join(errs...))
		case made >= mounts:
			return
		}
		select {
		case <-more:
		case <-timeout.C:
			l.t.Fatalf("the loop made %d mounts in 5 minutes, want %d", made, mounts)
		}
	}
}

// made returns how many mounts there were so far.
func (l *mountLoop) made() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mounts
}

// stop ends the loop and returns the traces of all its mounts.
func (l *mountLoop) stop() []otlp.Trace {
	l.t.Helper()
	l.cancel()
	l.workers.Wait()
	l.mu.Lock()
	mounts, errs := l.mounts, l.errs
	l.mu.Unlock()
	must(l.t, errors.Join(errs...))
	var traces []otlp.Trace
	eventually(l.t, time.Minute, "the traces of all mounts", func(context.Context) error {
		traces = publishes(l.namespace)
		if len(traces) < mounts {
			return fmt.Errorf("%d mounts, %d complete traces", mounts, len(traces))
		}
		return nil
	})
	return traces
}

// publish is the span of kubelet's call for a volume.
const publish = "csi.NodePublishVolume"

// publishes returns the complete traces of kubelet's calls for a namespace's
// volumes.
func publishes(namespace string) []otlp.Trace {
	return slices.DeleteFunc(shared.traces.Traces(), func(trace otlp.Trace) bool {
		span, ok := trace.Find(publish)
		return !ok || span.Attributes["k8s.namespace.name"] != namespace || !trace.Complete()
	})
}

// unharmed fails the test unless every mount of the loop succeeded, at the first
// call and without a wait for a pod of Postern's.
func (l *mountLoop) unharmed(what string) {
	l.t.Helper()
	var took, waits []time.Duration
	var slowest otlp.Trace
	failed := 0
	for _, trace := range l.stop() {
		mount, _ := trace.Find(publish)
		if mount.Failed {
			failed++
			l.t.Errorf("a mount failed: %s", mount.Message)
		}
		took, waits = append(took, duration(mount)), append(waits, waited(trace))
		if duration(mount) == slices.Max(took) {
			slowest = trace
		}
		if waited(trace) > longestWait {
			l.t.Errorf("a mount waited %s, more than %s:\n%s", waited(trace), longestWait, trace.Tree())
		}
	}
	list, err := shared.client.CoreV1().Events(l.namespace).List(l.t.Context(), metav1.ListOptions{})
	must(l.t, err)
	for _, event := range list.Items {
		if event.Reason == "FailedMount" || strings.HasPrefix(event.Reason, "Secrets") || strings.HasPrefix(event.Reason, "WaitingFor") {
			failed++
			l.t.Errorf("event %s: %s", event.Reason, event.Message)
		}
	}
	l.t.Logf("measured: %s: %d mounts, %d failed; longest wait for gateway and provider %s; all of a mount: median %s, longest %s",
		what, len(took), failed, slices.Max(waits).Round(10*time.Microsecond),
		median(took).Round(10*time.Microsecond), slices.Max(took).Round(10*time.Microsecond))
	l.t.Logf("the slowest of all:\n%s", slowest.Tree())
}

// waited is how long a mount waited for a gateway or a provider to take its
// calls. Work is not counted: a busy machine makes that slow, whatever is
// upgraded.
func waited(trace otlp.Trace) time.Duration {
	spans := map[string]otlp.Span{}
	for _, span := range trace.Spans {
		spans[span.SpanID] = span
	}
	var wait time.Duration
	arrived := map[string]time.Duration{} // by the calling span: a call that is refused is made again
	for _, span := range trace.Spans {
		caller, ok := spans[span.ParentID]
		switch {
		case span.Name == "gateway.AcquireProvider":
			wait += duration(span)
		case ok && caller.Name == span.Name && caller.Service != span.Service:
			arrived[caller.SpanID] = max(arrived[caller.SpanID], span.Start.Sub(caller.Start))
		}
	}
	for _, late := range arrived {
		wait += late
	}
	return wait
}

func duration(span otlp.Span) time.Duration { return span.End.Sub(span.Start) }
