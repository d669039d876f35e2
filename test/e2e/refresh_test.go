package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
)

// What changes in the store is in all volumes within the interval, and the store
// is asked once for each interval and identity, however many volumes there are
// and however often kubelet calls. What does not change is not written.
func TestRefresh(t *testing.T) {
	t.Parallel()
	const interval, each = 5 * time.Second, 15
	n := startNode(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "old"})
	account(t, namespace, "worker")
	accounts := []string{"web", "worker"}
	class(t, namespace, "web", vaultSpec(namespace, map[string]any{"rotationPollInterval": interval.String()}))
	class(t, namespace, "worker", vaultSpec(namespace, map[string]any{"rotationPollInterval": interval.String(), "roleName": namespace + "-worker"}))
	var volumes []kubelet.Volume
	for i := range each {
		for _, account := range accounts {
			v := podOf(t, namespace, account, fmt.Sprintf("%s-%d", account, i), account)
			n.publish(t, v)
			volumes = append(volumes, v)
		}
	}
	n.republish(t, volumes, 500*time.Millisecond)
	<-time.After(2 * interval) // for those of one identity to fall into step

	before, versions := n.revisions(t, volumes), n.statusVersions(t, namespace)
	reads := map[string]int{}
	for _, account := range accounts {
		_, reads[account] = callsOf(t, namespace, account)
	}
	const rounds = 4
	<-time.After(rounds * interval)
	for _, account := range accounts {
		_, now := callsOf(t, namespace, account)
		if got := now - reads[account]; got < rounds-2 || got > rounds+1 {
			t.Errorf("%s: %d reads of the store in %d intervals by %d volumes", account, got, rounds, each)
		}
	}
	for target, revision := range n.revisions(t, volumes) {
		if revision != before[target] {
			t.Errorf("%s was written, and nothing had changed", target)
		}
	}
	for name, version := range n.statusVersions(t, namespace) {
		if versions[name] != version {
			t.Errorf("status %s was written, and nothing had changed", name)
		}
	}

	changed := time.Now()
	must(t, servers.Bao.PutSecret(t.Context(), namespace+"/app", map[string]any{"username": "bob", "password": "new"}))
	eventually(t, "all volumes hold what is new", func() bool {
		for _, v := range volumes {
			if n.read(t, v, "password") != "new" {
				return false
			}
		}
		return true
	})
	var last time.Time
	for _, v := range volumes {
		link, err := os.Lstat(n.Kubelet.Target(v) + "/..data")
		must(t, err)
		if link.ModTime().After(last) {
			last = link.ModTime()
		}
	}
	took := last.Sub(changed)
	t.Logf("the last of %d volumes was new after %v", len(volumes), took)
	if took > 2*interval+5*time.Second { // the machine may be busy
		t.Errorf("the last volume was new after %v, want %v", took, interval)
	}
}

// republish calls as kubelet does, and more often, until the test ends.
func (n *node) republish(t *testing.T, volumes []kubelet.Volume, pause time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	calls.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			for _, v := range volumes {
				if err := n.Kubelet.Publish(context.WithoutCancel(ctx), v); err != nil {
					t.Errorf("a repeated call failed: %v", err)
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		calls.Wait()
	})
}

// read is the content of a file of a mounted volume.
func (n *node) read(t *testing.T, v kubelet.Volume, name string) string {
	t.Helper()
	contents, err := os.ReadFile(n.Kubelet.Target(v) + "/" + name)
	must(t, err)
	return string(contents)
}

// revisions are the inodes of what a volume's swap replaces, by target.
func (n *node) revisions(t *testing.T, volumes []kubelet.Volume) map[string]uint64 {
	t.Helper()
	revisions := make(map[string]uint64, len(volumes))
	for _, v := range volumes {
		link, err := os.Lstat(n.Kubelet.Target(v) + "/..data")
		must(t, err)
		revisions[n.Kubelet.Target(v)] = link.Sys().(*syscall.Stat_t).Ino
	}
	return revisions
}

// statusVersions are the resource versions of a namespace's statuses, by name.
func (n *node) statusVersions(t *testing.T, namespace string) map[string]string {
	t.Helper()
	all, err := servers.API.Dynamic.Resource(podStatuses()).Namespace(namespace).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	versions := make(map[string]string, len(all.Items))
	for _, status := range all.Items {
		versions[status.GetName()] = status.GetResourceVersion()
	}
	return versions
}

// classes is the resource of SecretProviderClasses.
func classes() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasses"}
}

// A person who annotates the class has its volumes refreshed at once, however
// long the interval is.
func TestRefresh_Annotation(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "1"})
	for _, name := range []string{"app", "other"} {
		class(t, namespace, name, vaultSpec(namespace, map[string]any{"rotationPollInterval": "1h"}))
	}
	var volumes []kubelet.Volume
	for i := range 5 {
		v := pod(t, namespace, fmt.Sprint(i), "app")
		n.publish(t, v)
		volumes = append(volumes, v)
	}
	other := pod(t, namespace, "other", "other")
	n.publish(t, other)
	_, before := callsOf(t, namespace, "web")
	const requests = 3
	for i := range requests {
		password := fmt.Sprint(i + 2)
		must(t, servers.Bao.PutSecret(t.Context(), namespace+"/app", map[string]any{"username": "bob", "password": password}))
		annotate(t, namespace, "app", fmt.Sprint(i))
		for _, v := range volumes {
			eventually(t, "the volume was refreshed", func() bool { return n.read(t, v, "password") == password })
		}
	}
	if got := n.read(t, other, "password"); got != "1" {
		t.Errorf("the volume of another class was refreshed: %q", got)
	}
	if _, after := callsOf(t, namespace, "web"); after-before > 2*requests {
		t.Errorf("%d reads of the store for %d requests and %d volumes", after-before, requests, len(volumes))
	}
}

func annotate(t *testing.T, namespace, name, value string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"postern.dev/refresh":%q}}}`, value)
	_, err := servers.API.Dynamic.Resource(classes()).Namespace(namespace).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	must(t, err)
}

// What is changed in a class is in its volumes after the next refresh: objects
// that were added, removed, or have another mode.
func TestRefresh_ClassEdited(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	edit := func(objects string) {
		class(t, namespace, "app", vaultSpec(namespace, map[string]any{"rotationPollInterval": "1s", "objects": objects}))
	}
	object := func(file, key, more string) string {
		return fmt.Sprintf("- {objectName: %s, secretPath: secret/data/%s/app, secretKey: %s%s}\n", file, namespace, key, more)
	}
	edit(object("a", "username", ""))
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	holds := func(want map[string]kubelet.File) {
		t.Helper()
		eventually(t, fmt.Sprintf("the volume holds %v", want), func() bool {
			files, err := n.Kubelet.Files(v)
			must(t, err)
			return fmt.Sprint(files) == fmt.Sprint(want)
		})
	}
	holds(map[string]kubelet.File{"a": {Mode: 0o644, Contents: "bob"}})
	edit(object("a", "username", "") + object("dir/b", "password", ""))
	holds(map[string]kubelet.File{"a": {Mode: 0o644, Contents: "bob"}, "dir/b": {Mode: 0o644, Contents: "p4ssw0rd"}})
	edit(object("a", "username", ", filePermission: 0400") + object("dir/b", "password", ""))
	holds(map[string]kubelet.File{"a": {Mode: 0o400, Contents: "bob"}, "dir/b": {Mode: 0o644, Contents: "p4ssw0rd"}})
	edit(object("dir/b", "username", ""))
	holds(map[string]kubelet.File{"dir/b": {Mode: 0o644, Contents: "bob"}})
	edit("- {objectName: c, secretPath: secret/data/elsewhere, secretKey: x}\n") // refused
	n.wantEvent(t, v, "MountRotationFailed", "elsewhere")
	holds(map[string]kubelet.File{"dir/b": {Mode: 0o644, Contents: "bob"}})
	n.wantCondition(t, v, "Fresh", metav1.ConditionFalse, "ACCESS_DENIED")
	edit(object("c", "username", ""))
	holds(map[string]kubelet.File{"c": {Mode: 0o644, Contents: "bob"}})
	n.wantCondition(t, v, "Fresh", metav1.ConditionTrue, "")
}

// wantEvent waits for an event of the volume's pod, of which there is one.
func (n *node) wantEvent(t *testing.T, v kubelet.Volume, reason, text string) {
	t.Helper()
	eventually(t, "the pod has the event "+reason, func() bool {
		events, err := servers.API.Client.CoreV1().Events(v.Namespace).List(t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.name=" + v.Pod + ",reason=" + reason,
		})
		must(t, err)
		if len(events.Items) > 1 {
			t.Errorf("%d events %s: %v", len(events.Items), reason, events.Items)
		}
		return len(events.Items) == 1 && strings.Contains(events.Items[0].Message, text)
	})
}

// wantCondition waits for a condition of the volume's status.
func (n *node) wantCondition(t *testing.T, v kubelet.Volume, name string, status metav1.ConditionStatus, reason string) {
	t.Helper()
	statuses := servers.API.Dynamic.Resource(podStatuses()).Namespace(v.Namespace)
	eventually(t, fmt.Sprintf("condition %s is %s", name, status), func() bool {
		object, err := statuses.Get(t.Context(), v.Pod+"-"+v.Namespace+"-"+v.SecretProviderClass, metav1.GetOptions{})
		must(t, err)
		condition := conditionOf(t, object, name)
		return condition.Status == status && (reason == "" || condition.Reason == reason)
	})
}

func conditionOf(t *testing.T, object *unstructured.Unstructured, name string) metav1.Condition {
	t.Helper()
	encoded, err := json.Marshal(object.Object["status"])
	must(t, err)
	var status struct{ Conditions []metav1.Condition }
	must(t, json.Unmarshal(encoded, &status))
	for _, condition := range status.Conditions {
		if condition.Type == name {
			return condition
		}
	}
	return metav1.Condition{}
}

// A store that asks to slow down is asked less, and pods' users are told.
func TestRefresh_Throttled(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "old"})
	class(t, namespace, "app", vaultSpec(namespace, map[string]any{"rotationPollInterval": "1s"}))
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	// A request each ten seconds, from each client, for this path alone.
	quota := "sys/quotas/rate-limit/" + namespace
	must(t, servers.Bao.Write(t.Context(), quota, map[string]any{"path": "secret/data/" + namespace + "/app", "rate": 1, "interval": "20s"}))
	n.wantEvent(t, v, "MountRotationFailed", "429")
	n.wantCondition(t, v, "Fresh", metav1.ConditionFalse, "RATE_LIMITED")
	_, before := callsOf(t, namespace, "web")
	<-time.After(20 * time.Second)
	if _, after := callsOf(t, namespace, "web"); after-before > 3 {
		t.Errorf("%d reads in 20 s of a store that allows one", after-before)
	}
	must(t, servers.Bao.Delete(t.Context(), quota))
	must(t, servers.Bao.PutSecret(t.Context(), namespace+"/app", map[string]any{"username": "bob", "password": "new"}))
	eventually(t, "the volume is fresh again", func() bool { return n.read(t, v, "password") == "new" })
	n.wantCondition(t, v, "Fresh", metav1.ConditionTrue, "")
}

// Whichever daemon is killed, what changes meanwhile is in the volume soon after
// it is back, and what has not changed is not written again.
func TestRefresh_Restarts(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "0"})
	class(t, namespace, "app", vaultSpec(namespace, map[string]any{"rotationPollInterval": "2s"}))
	var volumes []kubelet.Volume
	for i := range 3 {
		v := pod(t, namespace, fmt.Sprintf("web-%d", i), "app")
		n.publish(t, v)
		volumes = append(volumes, v)
	}
	for i, victim := range []*harness.Daemon{n.Driver, n.Gateway, n.Providers["vault"]} {
		before := n.revisions(t, volumes)
		restart := func(meanwhile func()) {
			victim.Kill()
			meanwhile()
			must(t, victim.Restart(t.Context()))
			n.Kubelet.Connect()
			for _, v := range volumes { // kubelet calls about once a minute
				eventually(t, "kubelet's call is answered", func() bool { return n.Kubelet.Publish(t.Context(), v) == nil })
			}
		}
		restart(func() {})
		<-time.After(5 * time.Second) // two intervals
		for target, revision := range n.revisions(t, volumes) {
			if revision != before[target] {
				t.Errorf("%s was written after daemon %d was restarted, and nothing had changed", target, i)
			}
		}
		password := fmt.Sprint(i + 1)
		restart(func() {
			must(t, servers.Bao.PutSecret(t.Context(), namespace+"/app", map[string]any{"username": "bob", "password": password}))
		})
		for _, v := range volumes {
			eventually(t, "the volume holds what is new", func() bool { return n.read(t, v, "password") == password })
		}
	}
}
