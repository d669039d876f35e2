package pods_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/postern-dev/postern/test/openbao"
)

// grace is how much later than its interval a pod may have what is new.
const grace = 2 * time.Second

// testRefresh shows that a changed value is in all pods within the interval,
// that the store is asked once for each interval and identity whatever kubelet
// does, and that nothing is written while nothing changes.
func testRefresh(t *testing.T) {
	const replicas = 5
	var tests sync.WaitGroup
	defer tests.Wait()
	for _, interval := range []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute} {
		n := newTenant(t, map[string]any{"password": "old"})
		spec := n.vaultSpec("password")
		spec["parameters"].(map[string]any)["rotationPollInterval"] = interval.String()
		n.apply("v1", "app", spec)
		pods := make([]*corev1.Pod, replicas)
		for i := range pods {
			n.create(n.pod(fmt.Sprintf("web-%d", i), "app"))
		}
		for i := range pods {
			pods[i] = n.ready(fmt.Sprintf("web-%d", i))
		}
		tests.Go(func() { n.watchInterval(interval, pods) })
	}
}

// watchInterval looks at pods of one class for some intervals.
func (n *tenant) watchInterval(interval time.Duration, pods []*corev1.Pod) {
	n.t.Helper()
	// The first refreshes come sooner, and bring volumes that were mounted at
	// different times together.
	n.wait(interval + grace)
	if rounds := int(time.Minute / interval); rounds > 0 {
		n.wantQuiet(interval, rounds, pods)
	}
	changed, reads := time.Now(), n.reads()
	n.putSecret(map[string]any{"password": "new"})
	n.wait(interval + grace)
	var last time.Duration
	for _, pod := range pods {
		n.wantFiles(pod, "app", map[string]string{"password": "new"})
		link, err := os.Lstat(shared.cluster.NodePath(filepath.Join(volumePath(pod, "app"), "..data")))
		if err != nil {
			n.t.Error(err)
			return
		}
		last = max(last, link.ModTime().Sub(changed))
	}
	if got := n.reads() - reads; got < 1 || got > 2 {
		n.t.Errorf("interval %v: the store was read %d times in an interval", interval, got)
	}
	n.t.Logf("measured: interval %v: a changed value was in the last of %d pods after %.1fs", interval, len(pods), last.Seconds())
}

// wantQuiet wants the store to be read once for each of some intervals, and
// nothing to be written meanwhile.
func (n *tenant) wantQuiet(interval time.Duration, rounds int, pods []*corev1.Pod) {
	n.t.Helper()
	before, written, reads := n.revisions(pods), n.statusVersions(), n.reads()
	n.wait(time.Duration(rounds) * interval)
	if got := n.reads() - reads; got < rounds-2 || got > rounds+1 {
		n.t.Errorf("interval %v: the store was read %d times in %d intervals for %d pods", interval, got, rounds, len(pods))
	} else {
		n.t.Logf("measured: interval %v: %d reads of the store in %d intervals, by %d pods", interval, got, rounds, len(pods))
	}
	for pod, revision := range n.revisions(pods) {
		if before[pod] != revision {
			n.t.Errorf("interval %v: the volume of %s was written, and nothing had changed", interval, pod)
		}
	}
	for name, version := range n.statusVersions() {
		if written[name] != version {
			n.t.Errorf("interval %v: status %s was written, and nothing had changed", interval, name)
		}
	}
}

// wait lets time pass.
func (n *tenant) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-n.t.Context().Done():
	}
}

// revisions are the inodes of what a volume's swap replaces, by pod.
func (n *tenant) revisions(pods []*corev1.Pod) map[string]uint64 {
	n.t.Helper()
	revisions := make(map[string]uint64, len(pods))
	for _, pod := range pods {
		link, err := os.Lstat(shared.cluster.NodePath(filepath.Join(volumePath(pod, "app"), "..data")))
		if err != nil {
			n.t.Error(err)
			continue
		}
		revisions[pod.Name] = link.Sys().(*syscall.Stat_t).Ino
	}
	return revisions
}

// podStatuses is the resource of SecretProviderClassPodStatuses.
func podStatuses() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasspodstatuses"}
}

// statusVersions are the resource versions of the tenant's statuses, by name.
func (n *tenant) statusVersions() map[string]string {
	n.t.Helper()
	list, err := shared.dynamic.Resource(podStatuses()).Namespace(n.namespace).List(n.t.Context(), metav1.ListOptions{})
	if err != nil {
		n.t.Error(err)
		return nil
	}
	versions := make(map[string]string, len(list.Items))
	for _, item := range list.Items {
		versions[item.GetName()] = item.GetResourceVersion()
	}
	return versions
}

// reads is how often the tenant's secret was read, as OpenBao's audit log has it.
func (n *tenant) reads() int {
	n.t.Helper()
	calls, err := openbao.ReadCalls(auditLog(n.t))
	if err != nil {
		n.t.Error(err)
	}
	count := 0
	for _, call := range calls {
		if call.Operation == "read" && call.Path == "secret/data/"+n.namespace+"/app" {
			count++
		}
	}
	return count
}

// auditLog is where OpenBao's pod writes it, as this machine sees it.
func auditLog(t *testing.T) string {
	t.Helper()
	pods, err := shared.client.CoreV1().Pods("openbao").List(t.Context(), metav1.ListOptions{LabelSelector: "app=openbao"})
	if err != nil || len(pods.Items) == 0 {
		t.Errorf("find OpenBao's pod: %v", err)
		return ""
	}
	return shared.cluster.NodePath(filepath.Join(podPath(&pods.Items[0]), "volumes/kubernetes.io~empty-dir/data/audit.log"))
}

// testOutage cuts the store off for some intervals: pods keep what they have, their
// users are told, and they are fresh soon after it is back.
func testOutage(t *testing.T) {
	const interval = 5 * time.Second
	n := newTenant(t, map[string]any{"password": "old"})
	spec := n.vaultSpec("password")
	spec["parameters"].(map[string]any)["rotationPollInterval"] = interval.String()
	n.apply("v1", "app", spec)
	pod := n.start(n.pod("web", "app"))
	n.eventuallyFresh("web", metav1.ConditionTrue)

	mend := cutOff(t)
	event := eventOf(t, pod, "MountRotationFailed")
	if event.Type != corev1.EventTypeWarning {
		t.Errorf("event %+v", event)
	}
	n.eventuallyFresh("web", metav1.ConditionFalse)
	n.wait(3 * interval)
	n.wantFiles(pod, "app", map[string]string{"password": "old"})
	list, err := events(t.Context(), pod)
	must(t, err)
	told := 0
	for _, event := range list {
		if event.Reason == "MountRotationFailed" {
			told++
			t.Logf("measured: outage: event (%dx): %s", event.Count, event.Message)
		}
	}
	if told > 2 { // the store away, and then left alone
		t.Errorf("%d events tell of one outage", told)
	}

	n.putSecret(map[string]any{"password": "new"})
	mend()
	back := time.Now()
	n.eventuallyFiles(pod, "app", map[string]string{"password": "new"})
	t.Logf("measured: outage: fresh %.1fs after the store was back", time.Since(back).Seconds())
	n.eventuallyFresh("web", metav1.ConditionTrue)
}

// cutOff cuts the store off from pods, until mend or the end of the test.
func cutOff(t *testing.T) (mend func()) {
	t.Helper()
	nft := func(rules string) {
		command := shared.cluster.Command(context.WithoutCancel(t.Context()), "nft", "-f", "-")
		command.Stdin = strings.NewReader(rules)
		if _, err := output(command); err != nil {
			t.Errorf("nft: %v", err)
		}
	}
	nft("table inet outage { chain forward { type filter hook forward priority -10; tcp dport 8200 reject with tcp reset; }; }\n")
	mend = sync.OnceFunc(func() { nft("delete table inet outage\n") })
	t.Cleanup(mend)
	return mend
}

// eventuallyFresh waits until the condition Fresh of a pod's volume is so.
func (n *tenant) eventuallyFresh(pod string, want metav1.ConditionStatus) {
	n.t.Helper()
	eventually(n.t, time.Minute, "condition Fresh "+string(want), func(ctx context.Context) error {
		object, err := shared.dynamic.Resource(podStatuses()).Namespace(n.namespace).Get(ctx, pod+"-"+n.namespace+"-app", metav1.GetOptions{})
		if err != nil {
			return err
		}
		conditions, _, err := unstructured.NestedSlice(object.Object, "status", "conditions")
		if err != nil {
			return err
		}
		for _, each := range conditions {
			if condition := each.(map[string]any); condition["type"] == "Fresh" && condition["status"] == string(want) {
				return nil
			}
		}
		return fmt.Errorf("conditions are %v", conditions)
	})
}
