package pods_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/openbao"
)

const (
	busybox = "local/busybox:1"
	driver  = "secrets-store.csi.k8s.io"
	// account is the service account of a tenant's pods.
	account = "app"
)

// tenant is a namespace whose service account may read its own secret of
// OpenBao, secret/<namespace>/app.
type tenant struct {
	t         *testing.T
	namespace string
}

// newTenant makes one. It goes with the test, after telling what there is to
// know if that failed.
func newTenant(t *testing.T, secret map[string]any) *tenant {
	t.Helper()
	n := newNamespace(t)
	n.putSecret(secret)
	must(t, shared.bao.PutPolicy(t.Context(), n.namespace,
		fmt.Sprintf(`path "secret/data/%s/*" { capabilities = ["read"] }`, n.namespace)))
	must(t, shared.bao.PutRole(t.Context(), openbao.Role{
		Name: n.namespace, Namespace: n.namespace, ServiceAccount: account, Audience: "vault", Policies: []string{n.namespace},
	}))
	return n
}

// newNamespace makes a tenant that has no secret yet.
func newNamespace(t *testing.T) *tenant {
	t.Helper()
	created, err := shared.client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "tenant-"}}, metav1.CreateOptions{})
	must(t, err)
	n := &tenant{t: t, namespace: created.Name}
	t.Cleanup(func() {
		err := shared.client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), n.namespace, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete namespace %s: %v", n.namespace, err)
		}
	})
	dumpIfFailed(t, n.namespace)
	_, err = shared.client.CoreV1().ServiceAccounts(n.namespace).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
	must(t, err)
	return n
}

// putSecret writes a new version of the tenant's secret.
func (n *tenant) putSecret(secret map[string]any) {
	n.t.Helper()
	must(n.t, shared.bao.PutSecret(n.t.Context(), n.namespace+"/app", secret))
}

// class makes a SecretProviderClass of these keys of the tenant's secret, each
// a file of the same name.
func (n *tenant) class(name string, keys ...string) {
	n.t.Helper()
	n.apply("v1", name, n.vaultSpec(keys...))
}

// vaultSpec is the spec of a class of these keys.
func (n *tenant) vaultSpec(keys ...string) map[string]any {
	n.t.Helper()
	var objects []map[string]string
	for _, key := range keys {
		objects = append(objects, map[string]string{
			"objectName": key, "secretPath": "secret/data/" + n.namespace + "/app", "secretKey": key,
		})
	}
	list, err := yaml.Marshal(objects)
	must(n.t, err)
	return map[string]any{"provider": "vault", "parameters": map[string]any{"roleName": n.namespace, "objects": string(list)}}
}

// apply makes or changes a SecretProviderClass, in a version of its API.
func (n *tenant) apply(version, name string, spec map[string]any) {
	n.t.Helper()
	resource := schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: version, Resource: "secretproviderclasses"}
	_, err := shared.dynamic.Resource(resource).Namespace(n.namespace).Apply(n.t.Context(), name, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": resource.GroupVersion().String(), "kind": "SecretProviderClass",
		"metadata": map[string]any{"name": name, "namespace": n.namespace},
		"spec":     spec,
	}}, metav1.ApplyOptions{FieldManager: "e2e"})
	must(n.t, err)
}

// statuses returns the names of the tenant's SecretProviderClassPodStatuses.
func (n *tenant) statuses(ctx context.Context) ([]string, error) {
	list, err := shared.dynamic.Resource(schema.GroupVersionResource{
		Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasspodstatuses",
	}).Namespace(n.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, item := range list.Items {
		names = append(names, item.GetName())
	}
	return names, nil
}

// pod returns a pod that does nothing, with a volume for each class, of the
// class's name, at /secrets/<class>. It is not created yet.
func (n *tenant) pod(name string, classes ...string) *corev1.Pod {
	grace, automount := int64(1), false // kubelet can be late with the token's volume, which is not what is tested
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: n.namespace},
		Spec: corev1.PodSpec{
			ServiceAccountName:            account,
			AutomountServiceAccountToken:  &automount,
			TerminationGracePeriodSeconds: &grace,
			Containers:                    []corev1.Container{{Name: "app", Image: busybox, Command: []string{"sleep", "3600"}}},
		},
	}
	for _, class := range classes {
		addVolume(&pod.Spec, class, class)
	}
	return pod
}

// addVolume adds a volume of a class to a pod, at /secrets/<name>.
func addVolume(pod *corev1.PodSpec, name, class string) {
	readOnly := true
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: driver, ReadOnly: &readOnly, VolumeAttributes: map[string]string{"secretProviderClass": class},
	}}})
	pod.Containers[0].VolumeMounts = append(pod.Containers[0].VolumeMounts,
		corev1.VolumeMount{Name: name, MountPath: "/secrets/" + name, ReadOnly: true})
}

// create creates a pod.
func (n *tenant) create(pod *corev1.Pod) *corev1.Pod {
	n.t.Helper()
	created, err := shared.client.CoreV1().Pods(n.namespace).Create(n.t.Context(), pod, metav1.CreateOptions{})
	must(n.t, err)
	return created
}

// start creates a pod and waits until it is ready.
func (n *tenant) start(pod *corev1.Pod) *corev1.Pod {
	n.t.Helper()
	n.create(pod)
	return n.ready(pod.Name)
}

// ready waits until a pod is.
func (n *tenant) ready(name string) *corev1.Pod {
	n.t.Helper()
	pod, err := waitForPod(n.t.Context(), n.namespace, name, isReady)
	must(n.t, err)
	return pod
}

// refused creates a pod and waits until an event of it has all of these words.
func (n *tenant) refused(words ...string) *corev1.Pod {
	n.t.Helper()
	pod := n.create(n.pod("web", "app"))
	event := eventOf(n.t, pod, "SecretsMountFailed")
	n.t.Logf("event: %s", event.Message)
	for _, word := range words {
		if !strings.Contains(event.Message, word) {
			n.t.Errorf("the event says %q, and not %q", event.Message, word)
		}
	}
	if strings.Contains(event.Message, "hunter2") || strings.Contains(event.Message, "eyJ") {
		n.t.Errorf("the event tells a secret or a token: %s", event.Message)
	}
	return pod
}

// delete deletes a pod and waits until the API has none of that uid.
func (n *tenant) delete(pod *corev1.Pod, options metav1.DeleteOptions) {
	n.t.Helper()
	must(n.t, shared.client.CoreV1().Pods(n.namespace).Delete(n.t.Context(), pod.Name, options))
	n.gone(pod)
}

func (n *tenant) gone(pod *corev1.Pod) {
	n.t.Helper()
	eventually(n.t, time.Minute, "pod "+pod.Name+" to be gone", func(ctx context.Context) error {
		current, err := shared.client.CoreV1().Pods(n.namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || (err == nil && current.UID != pod.UID) {
			return nil
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("it is %s", current.Status.Phase)
	})
}

// exec runs a program in a pod's container and returns its output.
func (n *tenant) exec(pod string, command ...string) string {
	n.t.Helper()
	return kubectl(n.t, slices.Concat([]string{"-n", n.namespace, "exec", pod, "--"}, command)...)
}

// volumePath is where the node has a volume of a pod.
func volumePath(pod *corev1.Pod, volume string) string {
	return filepath.Join(podPath(pod), "volumes/kubernetes.io~csi", volume, "mount")
}

// podPath is the node's directory of a pod.
func podPath(pod *corev1.Pod) string { return "/var/lib/kubelet/pods/" + string(pod.UID) }

// files returns the files of a volume, as the node has them, by their paths.
func files(pod *corev1.Pod, volume string) (map[string]string, error) {
	contents := map[string]string{}
	read := func(dir, name string) error {
		file, err := os.ReadFile(filepath.Join(dir, name))
		contents[name] = string(file)
		return err
	}
	dir := shared.cluster.NodePath(volumePath(pod, volume))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, "..") {
			continue
		}
		below, err := os.ReadDir(filepath.Join(dir, name)) // a link to a file or to a directory
		if err != nil {
			if err := read(dir, name); err != nil {
				return nil, err
			}
			continue
		}
		for _, file := range below {
			if err := read(dir, filepath.Join(name, file.Name())); err != nil {
				return nil, err
			}
		}
	}
	return contents, nil
}

// wantFiles fails the test unless a volume holds exactly these files.
func (n *tenant) wantFiles(pod *corev1.Pod, volume string, want map[string]string) {
	n.t.Helper()
	got, err := files(pod, volume)
	must(n.t, err)
	if !maps.Equal(got, want) {
		n.t.Errorf("volume %s of pod %s holds %v, want %v", volume, pod.Name, got, want)
	}
}

// eventuallyFiles waits until a volume holds exactly these files.
func (n *tenant) eventuallyFiles(pod *corev1.Pod, volume string, want map[string]string) {
	n.t.Helper()
	eventually(n.t, time.Minute, "new content of volume "+volume, func(context.Context) error {
		got, err := files(pod, volume)
		if err == nil && !maps.Equal(got, want) {
			err = fmt.Errorf("it holds %v, want %v", got, want)
		}
		return err
	})
}
