package kube_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
)

func TestClient_PodOwners(t *testing.T) {
	t.Parallel()
	yes := true
	replicaSet := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "r1", Controller: &yes, BlockOwnerDeletion: &yes}
	other := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "c", UID: "c1"}
	plain := replicaSet
	plain.Controller, plain.BlockOwnerDeletion = nil, nil
	for name, test := range map[string]struct {
		pod  metav1.ObjectMeta
		want []metav1.OwnerReference
	}{
		"its controller":   {metav1.ObjectMeta{UID: "u1", OwnerReferences: []metav1.OwnerReference{other, replicaSet}}, []metav1.OwnerReference{plain}},
		"no controller":    {metav1.ObjectMeta{UID: "u1", OwnerReferences: []metav1.OwnerReference{other}}, []metav1.OwnerReference{other}},
		"itself":           {metav1.ObjectMeta{UID: "u1"}, []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web-0", UID: "u1"}}},
		"a static pod":     {metav1.ObjectMeta{UID: "mirror", Annotations: map[string]string{"kubernetes.io/config.mirror": "u1"}, OwnerReferences: []metav1.OwnerReference{other}}, []metav1.OwnerReference{other}},
		"a later pod":      {metav1.ObjectMeta{UID: "u2"}, nil},
		"is being deleted": {metav1.ObjectMeta{UID: "u1", DeletionTimestamp: &metav1.Time{Time: metav1.Now().Time}}, nil},
		"gone":             {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := kubetest.New()
			if test.pod.UID != "" {
				test.pod.Name = "web-0"
				put(t, cluster, "pods", "shop", map[string]any{"metadata": test.pod})
			}
			got, err := newClient(t, cluster).PodOwners(t.Context(), "shop", "web-0", "u1")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("owners (-want +got):\n%s", diff)
			}
		})
	}
	cluster := kubetest.New()
	cluster.Intercept(func(*http.Request) *metav1.Status {
		return kubetest.Status(500, metav1.StatusReasonInternalError, "down")
	})
	if _, err := newClient(t, cluster).PodOwners(t.Context(), "shop", "web-0", "u1"); !apierrors.IsInternalError(err) {
		t.Errorf("error = %v, want the API server's", err)
	}
}

// Errors say what to do, and what the API server answers stays in the chain.
func TestClient_Secrets_Errors(t *testing.T) {
	t.Parallel()
	terminating := kubetest.Status(403, metav1.StatusReasonForbidden, "being terminated")
	terminating.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "NamespaceTerminating"}}}
	for name, test := range map[string]struct {
		status *metav1.Status
		want   string
		is     func(error) bool
	}{
		"no right": {
			kubetest.Status(403, metav1.StatusReasonForbidden, "no"), "Secret shop/db: the API server refuses it; for the driver's rights in a namespace, " +
				"name it in the Helm value driver.syncSecret.namespaces", apierrors.IsForbidden,
		},
		"namespace is going": {terminating, "Secret shop/db: the namespace is being deleted", kube.IsNamespaceTerminating},
		"too large": {
			kubetest.Status(413, metav1.StatusReasonRequestEntityTooLarge, "limit"), "Secret shop/db: it is too large for the API server; take fewer files",
			apierrors.IsRequestEntityTooLargeError,
		},
		"down": {kubetest.Status(500, metav1.StatusReasonInternalError, "etcd"), "Secret shop/db: ", apierrors.IsInternalError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := kubetest.New()
			cluster.Intercept(func(*http.Request) *metav1.Status { return test.status })
			client := newClient(t, cluster)
			_, read := client.Secret(t.Context(), "shop", "db")
			_, meta := client.SecretMetadata(t.Context(), "shop", "db")
			_, created := client.CreateSecret(t.Context(), secret("db", "", nil))
			_, applied := client.ApplySecret(t.Context(), secret("db", "", nil))
			_, patched := client.PatchSecret(t.Context(), "shop", "db", []byte("{}"))
			deleted := client.DeleteSecret(t.Context(), &secret("db", "1", nil).Metadata)
			for what, err := range map[string]error{"get": read, "get the metadata of": meta, "create": created, "apply": applied, "patch": patched, "delete": deleted} {
				if err == nil || !strings.HasPrefix(err.Error(), what+" ") || !strings.Contains(err.Error(), test.want) || !test.is(err) {
					t.Errorf("%s: %v, want %q", what, err, test.want)
				}
			}
		})
	}
}
