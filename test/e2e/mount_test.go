package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/postern-dev/postern/test/kubelet"
)

func TestMount(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	t.Run("vault", func(t *testing.T) { t.Parallel(); testVaultMount(t, n) })
	t.Run("file", func(t *testing.T) { t.Parallel(); testFileMount(t, n) })
	t.Run("tokens in secrets", func(t *testing.T) { t.Parallel(); testTokensInSecrets(t, n) })
	t.Run("fsGroup", func(t *testing.T) { t.Parallel(); testFSGroup(t, n) })
	t.Run("republish", func(t *testing.T) { t.Parallel(); testRepublish(t, n) })
	t.Run("unpublish twice", func(t *testing.T) { t.Parallel(); testUnpublishTwice(t, n) })
	t.Run("privileges", func(t *testing.T) { t.Parallel(); testPrivileges(t, n) })
}

func testVaultMount(t *testing.T, n *node) {
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)

	files, err := n.Kubelet.Files(v)
	must(t, err)
	want := map[string]kubelet.File{
		"username": {Mode: 0o644, Contents: "bob"},
		"password": {Mode: 0o400, Contents: "p4ssw0rd"},
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, name := range []string{"username", "password"} {
		if link, err := os.Readlink(n.Kubelet.Target(v) + "/" + name); err != nil || link != "..data/"+name {
			t.Errorf("%s is a link to %q (%v), want ..data/%s: applications watch ..data", name, link, err, name)
		}
	}
	mounts, err := kubelet.Mounts(n.Kubelet.Target(v))
	must(t, err)
	if len(mounts) != 1 || mounts[0].Type != "tmpfs" || !mounts[0].Has("nosuid", "nodev", "noexec") {
		t.Errorf("mounts %v, want one tmpfs with nosuid, nodev, noexec", mounts)
	}
	wantPodStatus(t, n, v)
	wantVaultTrace(t, n, v)
}

// wantPodStatus waits for the SecretProviderClassPodStatus, which is written
// after the answer to kubelet.
func wantPodStatus(t *testing.T, n *node, v kubelet.Volume) {
	t.Helper()
	statuses := servers.API.Dynamic.Resource(podStatuses()).Namespace(v.Namespace)
	var object *unstructured.Unstructured
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, n.Driver.WaitFor(ctx, func(ctx context.Context) (err error) {
		object, err = statuses.Get(ctx, v.Pod+"-"+v.Namespace+"-"+v.SecretProviderClass, metav1.GetOptions{})
		if err == nil && !slices.ContainsFunc(object.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return string(o.UID) == v.UID }) {
			return fmt.Errorf("still of an earlier pod of that name: %v", object.GetOwnerReferences())
		}
		return err
	}))
	if got := object.GetLabels()["internal.secrets-store.csi.k8s.io/node-name"]; got != "node-1" {
		t.Errorf("label node-name = %q, want node-1", got)
	}
	owners := object.GetOwnerReferences()
	if len(owners) != 1 || owners[0].Kind != "Pod" || owners[0].Name != v.Pod || string(owners[0].UID) != v.UID {
		t.Errorf("owners %v, want the pod", owners)
	}
	encoded, err := json.Marshal(object.Object["status"])
	must(t, err)
	var status struct {
		PodName, SecretProviderClassName, TargetPath string
		Mounted                                      bool
		Objects                                      []struct{ ID, Version string }
	}
	must(t, json.Unmarshal(encoded, &status))
	if status.PodName != v.Pod || status.SecretProviderClassName != v.SecretProviderClass ||
		status.TargetPath != n.Kubelet.Target(v) || !status.Mounted {
		t.Errorf("status %s does not name pod, class, target path and mounted", encoded)
	}
	var ids []string
	for _, object := range status.Objects {
		ids = append(ids, object.ID)
		if object.Version == "" {
			t.Errorf("object %s has no version", object.ID)
		}
	}
	if diff := cmp.Diff([]string{"password", "username"}, ids); diff != "" {
		t.Errorf("objects, which are sorted by id (-want +got):\n%s", diff)
	}
}

// wantVaultTrace checks that one trace shows the mount through every process
// down to Vault's API.
func wantVaultTrace(t *testing.T, n *node, v kubelet.Volume) {
	t.Helper()
	trace := n.trace(t, v, "postern-driver", "postern-gateway", "postern-provider-vault")
	t.Log(trace.Tree())
	if trace.Spans[0].Name != "csi.NodePublishVolume" || trace.Spans[0].ParentID != "" {
		t.Errorf("the root is %q, want csi.NodePublishVolume", trace.Spans[0].Name)
	}
	var calls []string
	for _, span := range trace.Spans {
		if span.Failed {
			t.Errorf("span %s failed: %s", span.Name, span.Message)
		}
		if span.Service != "postern-provider-vault" || span.Kind != "client" {
			continue
		}
		calls = append(calls, span.Name)
		ancestors := strings.Join(trace.Ancestors(span), " < ")
		if !slices.Contains(trace.Ancestors(span), "provider.Fetch") || !slices.Contains(trace.Ancestors(span), "gateway.Fetch") {
			t.Errorf("Vault call %s is below %s, want provider.Fetch and gateway.Fetch", span.Name, ancestors)
		}
	}
	if len(calls) < 2 {
		t.Errorf("calls of Vault's API in the trace: %v, want the login and the read", calls)
	}
}

func testFileMount(t *testing.T, n *node) {
	namespace := "t-file"
	must(t, servers.API.EnsureServiceAccount(t.Context(), namespace, "web"))
	n.storeFile(t, namespace, "one", "1")
	n.storeFile(t, namespace, "dir/two", "2")
	class(t, namespace, "app", map[string]any{"provider": "file", "parameters": map[string]any{
		"objects": "- {objectName: one, filePermission: \"0440\"}\n- {objectName: dir}\n",
	}})
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	files, err := n.Kubelet.Files(v)
	must(t, err)
	want := map[string]kubelet.File{"one": {Mode: 0o440, Contents: "1"}, "dir/two": {Mode: 0o644, Contents: "2"}}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func testTokensInSecrets(t *testing.T, n *node) {
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	v := pod(t, namespace, "web-0", "app")
	v.TokensInSecrets = true
	n.publish(t, v)
	n.wantFiles(t, v, map[string]string{"username": "bob", "password": "p4ssw0rd"})
}

func testFSGroup(t *testing.T, n *node) {
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	v := pod(t, namespace, "web-0", "app")
	v.FSGroup = "4711"
	n.publish(t, v)
	files, err := n.Kubelet.Files(v)
	must(t, err)
	for name, file := range files {
		if file.GID != 4711 || file.Mode&0o040 == 0 {
			t.Errorf("%s is %v of group %d, want readable for group 4711", name, file.Mode, file.GID)
		}
	}
}

// kubelet publishes a mounted volume again every minute: nothing must change
// for who has it mounted.
func testRepublish(t *testing.T, n *node) {
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	before, err := os.Readlink(n.Kubelet.Target(v) + "/..data")
	must(t, err)
	for range 3 {
		must(t, n.Kubelet.Publish(t.Context(), v))
	}
	after, err := os.Readlink(n.Kubelet.Target(v) + "/..data")
	must(t, err)
	if before != after {
		t.Errorf("..data went from %s to %s though nothing changed", before, after)
	}
	mounts, err := kubelet.Mounts(n.Kubelet.Target(v))
	must(t, err)
	if len(mounts) != 1 {
		t.Errorf("%d mounts at the target, want 1: %v", len(mounts), mounts)
	}
}

func testUnpublishTwice(t *testing.T, n *node) {
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	n.unpublish(t, v)
	n.unpublish(t, v)
}

// Only the driver is root; the others can do nothing but what their files and
// sockets let their uid do.
func testPrivileges(t *testing.T, n *node) {
	seen := map[string]string{}
	for _, daemon := range n.Daemons() {
		status, err := daemon.Status()
		must(t, err)
		uid, _, _ := strings.Cut(status["Uid"], " ")
		if other, taken := seen[uid]; taken {
			t.Errorf("%s and %s both run as uid %s", daemon.Name(), other, uid)
		}
		seen[uid] = daemon.Name()
		if daemon == n.Driver {
			continue
		}
		if uid == "0" {
			t.Errorf("%s runs as root", daemon.Name())
		}
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
			if status[set] != "0000000000000000" {
				t.Errorf("%s: %s is %s, want no capability", daemon.Name(), set, status[set])
			}
		}
		if status["Groups"] != "" {
			t.Errorf("%s has supplementary groups %s", daemon.Name(), status["Groups"])
		}
	}
}
