package charts_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/postern-dev/postern/test/charts"
)

// TestHelmTest holds what "helm test" mounts to what is installed.
func TestHelmTest(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values     string
		provider   string // "": there is no test
		parameters map[string]string
		file       string
	}{
		"no provider":    {"", "", nil, ""},
		"turned off":     {"{provider-file: {enabled: true}, tests: {enabled: false}}", "", nil, ""},
		"root elsewhere": {"provider-file: {enabled: true, root: {hostPath: /a}}", "", nil, ""},
		"file": {
			"provider-file: {enabled: true}", "file",
			map[string]string{"objects": "- objectName: helm-test\n"},
			"helm-test",
		},
		"vault": {
			"{provider-vault: {enabled: true}, tests: {provider: vault, file: password, parameters: {roleName: test}}}", "vault",
			map[string]string{"roleName": "test"},
			"password",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := renderWith(t, charts.Options{Chart: charts.Umbrella, Values: []string{test.values}, Tests: true})
			class := objects.Find("SecretProviderClass", "postern-test")
			if test.provider == "" {
				if class != nil || objects.Find("Pod", "postern-test") != nil {
					t.Error("there is a test, but nothing that it could mount")
				}
				return
			}
			if class == nil {
				t.Fatal("there is no test")
			}
			provider, _, _ := unstructured.NestedString(class.Object, "spec", "provider")
			parameters, _, _ := unstructured.NestedStringMap(class.Object, "spec", "parameters")
			if diff := cmp.Diff(test.parameters, parameters); diff != "" || provider != test.provider {
				t.Errorf("class of provider %q, parameters (-want +got):\n%s", provider, diff)
			}
			pod := decode[corev1.Pod](t, objects, "Pod", "postern-test")
			if env := pod.Spec.Containers[0].Env[0]; env.Value != test.file {
				t.Errorf("the test looks for %q", env.Value)
			}
			if csi := pod.Spec.Volumes[0].CSI; csi == nil || csi.VolumeAttributes["secretProviderClass"] != class.GetName() {
				t.Errorf("the test mounts %+v", pod.Spec.Volumes[0])
			}
			if pod.Spec.ServiceAccountName != objects.Find("ServiceAccount", "postern-test").GetName() {
				t.Errorf("the test's service account is %s", pod.Spec.ServiceAccountName)
			}
		})
	}
}

// TestServedFiles: what the chart keeps is where the provider looks for it, in
// a directory per namespace.
func TestServedFiles(t *testing.T) {
	t.Parallel()
	objects := render(t, `provider-file: {enabled: true, files: {shop: {password: "s3cret\n"}, postern-system: {more: x}}}`)
	secret := decode[corev1.Secret](t, objects, "Secret", "postern-provider-file")
	want := map[string]string{
		"postern-system.helm-test": "It works.", "postern-system.more": "x", "shop.password": "s3cret\n",
	}
	if diff := cmp.Diff(want, secret.StringData); diff != "" {
		t.Errorf("kept files (-want +got):\n%s", diff)
	}
	spec := daemonSets(t, "{provider-vault: {enabled: true}, provider-file: {enabled: true, files: {shop: {password: s3cret}}}}")["provider-file"].Spec.Template.Spec
	volume := spec.Volumes[slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == "files" })]
	paths := map[string]string{}
	for _, item := range volume.Secret.Items {
		paths[item.Key] = item.Path
	}
	if diff := cmp.Diff(map[string]string{"postern-system.helm-test": "postern-system/helm-test", "shop.password": "shop/password"}, paths); diff != "" {
		t.Errorf("where they are served (-want +got):\n%s", diff)
	}
	if *volume.Secret.DefaultMode != 0o440 || *spec.SecurityContext.FSGroup != 65010 {
		t.Errorf("files of mode %o and group %d", *volume.Secret.DefaultMode, *spec.SecurityContext.FSGroup)
	}
}
