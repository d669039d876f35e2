package pods_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A class that is not there: the pod's event says which, and what to do, and
// the pod starts when it is done.
func testClassMissing(t *testing.T) {
	t.Parallel()
	n := newTenant(t, map[string]any{"password": "hunter2"})
	n.startsOnceThereIsAClass()
}

// A class of another namespace counts for nothing.
func testClassOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	other := newTenant(t, map[string]any{"password": "another's"})
	other.class("app", "password")
	n := newTenant(t, map[string]any{"password": "hunter2"})
	n.startsOnceThereIsAClass()
}

func (n *tenant) startsOnceThereIsAClass() {
	n.t.Helper()
	pod := n.create(n.pod("web", "app"))
	want := "failed to get secretproviderclass " + n.namespace + "/app: no such SecretProviderClass in the cluster: " +
		"create it in the pod's namespace"
	event := eventOf(n.t, pod, "SecretsMountFailed")
	sentence, _, traced := strings.Cut(event.Message, " (trace ")
	if sentence != want || !traced || event.Type != corev1.EventTypeWarning {
		n.t.Errorf("event %s %q, want a warning %q with a trace", event.Type, event.Message, want)
	}
	if kubelets := eventOf(n.t, pod, "FailedMount"); !strings.Contains(kubelets.Message, want) {
		n.t.Errorf("kubelet's event is %q, want it to have %q", kubelets.Message, want)
	}
	n.class("app", "password")
	n.wantFiles(n.ready("web"), "app", map[string]string{"password": "hunter2"})
}
