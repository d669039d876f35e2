package pods_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod without root reads files that belong to its fsGroup, and nobody else
// on the node can.
func testNonRoot(t *testing.T) {
	t.Parallel()
	n := newTenant(t, map[string]any{"password": "hunter2"})
	spec := n.vaultSpec()
	spec["parameters"].(map[string]any)["objects"] = fmt.Sprintf(
		`[{objectName: password, secretPath: "secret/data/%s/app", secretKey: password, filePermission: 0440}]`, n.namespace)
	n.apply("v1", "app", spec)
	pod := n.pod("web", "app")
	user, group, yes, no := int64(1000), int64(2000), true, false
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user, FSGroup: &group,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	n.start(pod)
	got := n.exec("web", "sh", "-c", "id -u; id -G; stat -L -c '%a %u:%g' /secrets/app/password; cat /secrets/app/password")
	if want := "1000\n1000 2000\n440 0:2000\nhunter2"; got != want {
		t.Errorf("the pod sees\n%s\nwant\n%s", got, want)
	}
	if out := n.exec("web", "sh", "-c", "touch /secrets/app/new 2>&1; rm -f /secrets/app/password 2>&1; true"); strings.Count(out, "Read-only file system") != 2 {
		t.Errorf("the pod can write: %s", out)
	}
}

// One pod, three volumes, two classes: each volume holds its own class's files.
func testSeveralVolumes(t *testing.T) {
	t.Parallel()
	n := newTenant(t, map[string]any{"username": "bob", "password": "hunter2", "key": "k"})
	n.class("login", "username", "password")
	n.class("key", "key")
	pod := n.pod("web", "login", "key")
	addVolume(&pod.Spec, "again", "login")
	pod = n.start(pod)
	login := map[string]string{"username": "bob", "password": "hunter2"}
	n.wantFiles(pod, "login", login)
	n.wantFiles(pod, "again", login)
	n.wantFiles(pod, "key", map[string]string{"key": "k"})
	if got := n.exec("web", "sh", "-c", "cat /secrets/login/username /secrets/again/password /secrets/key/key"); got != "bobhunter2k" {
		t.Errorf("the pod reads %q", got)
	}
}

// A StatefulSet's pod comes back under the same name, with the secret as it is
// by then, and its status object is of the new pod.
func testStatefulSet(t *testing.T) {
	t.Parallel()
	n := newTenant(t, map[string]any{"password": "old"})
	spec := n.vaultSpec("password")
	spec["parameters"].(map[string]any)["maxAge"] = "0" // its next pod comes within seconds
	n.apply("v1", "app", spec)
	template := n.pod("", "app")
	_, err := shared.client.AppsV1().StatefulSets(n.namespace).Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}}, Spec: template.Spec,
			},
		},
	}, metav1.CreateOptions{})
	must(t, err)
	first := n.ready("db-0")
	n.wantFiles(first, "app", map[string]string{"password": "old"})

	n.putSecret(map[string]any{"password": "new"})
	n.delete(first, metav1.DeleteOptions{})
	second := n.ready("db-0")
	n.wantFiles(second, "app", map[string]string{"password": "new"})
	n.eventuallyOwned("db-0-"+n.namespace+"-app", second)
	n.left(first)
}

// A pod's nodePublishSecretRef reaches its provider, here one that was made for
// the upstream driver.
func testNodePublishSecret(t *testing.T) {
	t.Parallel()
	n := newTenant(t, map[string]any{"password": "hunter2"})
	n.startUpstreamProvider()
	n.apply("v1", "app", map[string]any{"provider": "upstream", "parameters": map[string]any{"greeting": "hello"}})
	_, err := shared.client.CoreV1().Secrets(n.namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "credentials"}, StringData: map[string]string{"clientid": "me"},
	}, metav1.CreateOptions{})
	must(t, err)
	pod := n.pod("web", "app")
	pod.Spec.Volumes[0].CSI.NodePublishSecretRef = &corev1.LocalObjectReference{Name: "credentials"}
	pod = n.start(pod)
	got, err := files(pod, "app")
	must(t, err)
	for name, want := range map[string]string{"greeting": "hello", "secret_clientid": "me", "csi.storage.k8s.io_pod.name": "web"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	// kubelet sends the tokens as secrets; providers know them as an attribute.
	if !strings.Contains(got["csi.storage.k8s.io_serviceAccount.tokens"], `"vault"`) {
		t.Error("the provider was sent no token")
	}
	for name := range got {
		if strings.HasPrefix(name, "secret_") && name != "secret_clientid" {
			t.Errorf("the provider was sent the secret %s, which the pod does not name", name)
		}
	}
}

// A class that was written for the API's first version serves.
func testV1Alpha1(t *testing.T) {
	t.Parallel()
	n := newTenant(t, map[string]any{"password": "hunter2"})
	n.apply("v1alpha1", "app", n.vaultSpec("password"))
	pod := n.start(n.pod("web", "app"))
	n.wantFiles(pod, "app", map[string]string{"password": "hunter2"})
}

// startUpstreamProvider runs a provider that was made for the upstream driver.
func (n *tenant) startUpstreamProvider() {
	n.t.Helper()
	const sockets = "/var/run/secrets-store-csi-providers"
	pod := n.pod("provider")
	pod.Spec.Volumes = []corev1.Volume{{Name: "sockets", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: sockets},
	}}}
	container := &pod.Spec.Containers[0]
	container.Image, container.Command, container.Args = upstreamProvider, nil, []string{sockets + "/upstream.sock"}
	container.VolumeMounts = []corev1.VolumeMount{{Name: "sockets", MountPath: sockets}}
	n.start(pod)
}
