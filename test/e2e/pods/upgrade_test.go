package pods_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/test/installation"
)

// A new image of one provider replaces the pods of that provider and no other,
// and no mount notices.
func testUpgradeProvider(t *testing.T) {
	dumpIfFailed(t, system)
	l := startLoop(t)
	l.reach(loopMounts / 4)
	overlaps := watchOverlap(t, "provider-vault")
	upgrade(t, "provider-vault", "provider-vault.image.tag="+nextTag)
	overlaps()
	l.reach(max(loopMounts, l.made()+loopMounts/4))
	l.unharmed("upgrade of provider-vault")
}

// The same for the gateway.
func testUpgradeGateway(t *testing.T) {
	dumpIfFailed(t, system)
	l := startLoop(t)
	l.reach(loopMounts / 4)
	overlaps := watchOverlap(t, "gateway")
	upgrade(t, "gateway", "gateway.image.tag="+nextTag)
	overlaps()
	l.reach(max(loopMounts, l.made()+loopMounts/4))
	l.unharmed("upgrade of gateway")
}

// The driver's upgrade leaves mounted volumes alone: they stay the same mounts
// of the same files, which can be read at any moment.
func testUpgradeDriver(t *testing.T) {
	dumpIfFailed(t, system)
	n := newTenant(t, map[string]any{"password": "hunter2"})
	n.class("app", "password")
	pod := n.pod("web", "app")
	// The pod's own view: it ends when it once cannot read what it should.
	pod.Spec.Containers[0].Command = []string{"sh", "-c", `
		while test "$(cat /secrets/app/password)" = hunter2; do usleep 20000; done
		echo "read: $(cat /secrets/app/password)"; ls -la /secrets/app; exit 1`}
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod = n.start(pod)
	before := n.identity(pod, "app")
	reads := n.readThroughout(pod, "app", "password", "hunter2")

	upgrade(t, "driver", "driver.linux.image.tag="+nextTag)
	// The new driver works, too: kubelet's next call for the volume, and a mount.
	n.republished(pod, time.Now())
	n.start(n.pod("after", "app"))
	reads()

	if after := n.identity(pod, "app"); after != before {
		t.Errorf("the volume was %s and is %s", before, after)
	}
	pod, err := shared.client.CoreV1().Pods(n.namespace).Get(t.Context(), "web", metav1.GetOptions{})
	must(t, err)
	if !isReady(pod) {
		t.Errorf("the pod could not read its secret: %s", kubectl(t, "-n", n.namespace, "logs", "web"))
	}
	n.delete(pod, metav1.DeleteOptions{})
	n.left(pod)
}

// watchOverlap watches a part's pods. The returned function fails the test if the
// old pod was told to end before the new one was ready: mounts would have had to
// wait, if not for long.
func watchOverlap(t *testing.T, part string) (check func()) {
	t.Helper()
	pods := shared.client.CoreV1().Pods(system)
	options := metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=postern-" + part}
	list, err := pods.List(t.Context(), options)
	must(t, err)
	if len(list.Items) != 1 {
		t.Fatalf("%s has %d pods, want one", part, len(list.Items))
	}
	old := list.Items[0].UID
	options.ResourceVersion = list.ResourceVersion
	watcher, err := pods.Watch(t.Context(), options)
	must(t, err)
	result := make(chan error, 1)
	go func() { result <- overlap(watcher.ResultChan(), old) }()
	return func() {
		t.Helper()
		defer watcher.Stop()
		select {
		case err := <-result:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("nothing was told of the end of the old pod of %s", part)
		}
	}
}

// overlap reads what happens to pods until the old one is told to end.
func overlap(changes <-chan watch.Event, old types.UID) error {
	ready := ""
	for change := range changes {
		pod, ok := change.Object.(*corev1.Pod)
		switch {
		case !ok:
			return fmt.Errorf("the watch ended: %v", change.Object)
		case pod.UID != old && isReady(pod):
			ready = pod.Name
		case pod.UID == old && pod.DeletionTimestamp != nil && ready == "":
			return fmt.Errorf("pod %s was told to end before another one was ready", pod.Name)
		case pod.UID == old && pod.DeletionTimestamp != nil:
			return nil
		}
	}
	return errors.New("the watch ended")
}

// republished waits until kubelet has repeated its call for a pod's volume.
func (n *tenant) republished(pod *corev1.Pod, since time.Time) {
	n.t.Helper()
	eventually(n.t, time.Minute, "kubelet's repeated call for pod "+pod.Name, func(context.Context) error {
		for _, trace := range publishes(n.namespace) {
			span, _ := trace.Find(publish)
			if span.Attributes["k8s.pod.name"] == pod.Name && span.Start.After(since) && !span.Failed {
				return nil
			}
		}
		return errors.New("no trace of one came")
	})
}

// upgrade changes one value with Helm, waits until the new pods serve and the
// old ones are gone, and fails the test if any other part's pods were replaced.
func upgrade(t *testing.T, part, value string) {
	t.Helper()
	before := podsOfParts(t)
	started := time.Now()
	must(t, shared.postern.Upgrade(t.Context(), value))
	waited := time.Since(started)
	eventually(t, 2*time.Minute, "the old pods of "+part+" to be gone", func(ctx context.Context) error {
		current, err := listParts(ctx)
		if err != nil {
			return err
		}
		if len(current[part]) != 1 {
			return fmt.Errorf("there are %v", current[part])
		}
		return nil
	})
	t.Logf("measured: helm upgrade of %s took %s, until the old pod was gone %s", part,
		waited.Round(10*time.Millisecond), time.Since(started).Round(10*time.Millisecond))
	after := podsOfParts(t)
	for name, pods := range before {
		same := fmt.Sprint(after[name]) == fmt.Sprint(pods)
		if same == (name == part) {
			t.Errorf("upgrade of %s: pods of %s were %v and are %v", part, name, pods, after[name])
		}
	}
}

// podsOfParts returns the names of the pods of Postern, by part.
func podsOfParts(t *testing.T) map[string][]string {
	t.Helper()
	parts, err := listParts(t.Context())
	must(t, err)
	return parts
}

func listParts(ctx context.Context) (map[string][]string, error) {
	list, err := shared.client.CoreV1().Pods(system).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + installation.Release})
	if err != nil {
		return nil, fmt.Errorf("list Postern's pods: %w", err)
	}
	parts := map[string][]string{}
	for _, pod := range list.Items {
		part := strings.TrimPrefix(pod.Labels["app.kubernetes.io/name"], "postern-")
		parts[part] = append(parts[part], pod.Name)
	}
	return parts, nil
}

// identity tells one mounted volume from another at the same place: the mount's
// id, the filesystem and the inode of its root.
func (n *tenant) identity(pod *corev1.Pod, volume string) string {
	n.t.Helper()
	if mounts := mountsBelow(n.t, volumePath(pod, volume)); len(mounts) != 1 {
		n.t.Fatalf("volume %s of pod %s has the mounts %v, want one", volume, pod.Name, mounts)
	}
	var stat unix.Statx_t
	must(n.t, unix.Statx(unix.AT_FDCWD, shared.cluster.NodePath(volumePath(pod, volume)), 0, unix.STATX_INO|unix.STATX_MNT_ID, &stat))
	if stat.Mask&unix.STATX_MNT_ID == 0 {
		n.t.Fatal("the kernel tells no ids of mounts: they are there since 5.8")
	}
	return fmt.Sprintf("mount %d of filesystem %d:%d, inode %d", stat.Mnt_id, stat.Dev_major, stat.Dev_minor, stat.Ino)
}

// readThroughout reads a file again and again until the returned function is
// called, which fails the test if it once was not as it should be.
func (n *tenant) readThroughout(pod *corev1.Pod, volume, name, want string) (stop func()) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	path := shared.cluster.NodePath(volumePath(pod, volume)) + "/" + name
	result := make(chan error, 1)
	go func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			contents, err := os.ReadFile(path)
			if err == nil && !bytes.Equal(contents, []byte(want)) {
				err = fmt.Errorf("file %s holds %q", name, contents)
			}
			if err != nil {
				result <- err
				return
			}
			<-ticker.C
		}
		result <- nil
	}()
	return func() {
		n.t.Helper()
		cancel()
		if err := <-result; err != nil {
			n.t.Error(err)
		}
	}
}
