package pods_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// However a pod ends, nothing of it is left: no mount, no directory, no status.
func testNothingIsLeft(t *testing.T) {
	t.Parallel()
	now := int64(0)
	for name, end := range map[string]func(n *tenant, pod *corev1.Pod){
		"deleted": func(n *tenant, pod *corev1.Pod) { n.delete(pod, metav1.DeleteOptions{}) },
		"forced":  func(n *tenant, pod *corev1.Pod) { n.delete(pod, metav1.DeleteOptions{GracePeriodSeconds: &now}) },
		"evicted": func(n *tenant, pod *corev1.Pod) {
			must(n.t, shared.client.PolicyV1().Evictions(n.namespace).Evict(n.t.Context(),
				&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: n.namespace}}))
			n.gone(pod)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, map[string]any{"one": "1", "two": "2"})
			n.class("first", "one")
			n.class("second", "two")
			pod := n.pod("web", "first", "second")
			pod.Spec.AutomountServiceAccountToken = nil // as most pods: there is a volume of others, too
			pod = n.start(pod)
			if got := mountsBelow(t, podPath(pod)); len(got) != 3 { // and the service account's token
				t.Fatalf("the running pod has the mounts %v, want two volumes and a token", got)
			}
			eventually(t, time.Minute, "the statuses of both volumes", func(ctx context.Context) error {
				got, err := n.statuses(ctx)
				if err == nil && len(got) != 2 {
					err = fmt.Errorf("there are %v", got)
				}
				return err
			})
			end(n, pod)
			n.left(pod)
			eventually(t, time.Minute, "no status to be left", func(ctx context.Context) error {
				got, err := n.statuses(ctx)
				if err == nil && len(got) > 0 {
					err = fmt.Errorf("there are %v", got)
				}
				return err
			})
		})
	}
}

// left waits until the node has nothing of a pod that is gone.
func (n *tenant) left(pod *corev1.Pod) {
	n.t.Helper()
	eventually(n.t, time.Minute, "nothing to be left of pod "+pod.Name, func(context.Context) error {
		mounts, err := shared.mountsBelow(podPath(pod))
		if err != nil {
			return err
		}
		if len(mounts) > 0 {
			return fmt.Errorf("it has the mounts %v", mounts)
		}
		if _, err = os.Lstat(shared.cluster.NodePath(podPath(pod))); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return errors.Join(errors.New("its directory is there"), err)
	})
}

// eventuallyOwned waits until a status object is the pod's.
func (n *tenant) eventuallyOwned(name string, pod *corev1.Pod) {
	n.t.Helper()
	statuses := shared.dynamic.Resource(schema.GroupVersionResource{
		Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasspodstatuses",
	}).Namespace(n.namespace)
	eventually(n.t, time.Minute, "status "+name+" of the new pod", func(ctx context.Context) error {
		status, err := statuses.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		target, _, err := unstructured.NestedString(status.Object, "status", "targetPath")
		owners := status.GetOwnerReferences()
		if err != nil || len(owners) != 1 || owners[0].UID != pod.UID || !strings.HasPrefix(target, podPath(pod)) {
			return errors.Join(fmt.Errorf("it is of %v, for %s", owners, target), err)
		}
		return nil
	})
}

func mountsBelow(t *testing.T, path string) []string {
	t.Helper()
	mounts, err := shared.mountsBelow(path)
	must(t, err)
	return mounts
}
