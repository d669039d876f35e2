package secretsync_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
	"github.com/postern-dev/postern/driver/internal/secretsync"
)

func TestSyncer_Prunes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		node := b.node()
		pod := b.pod("web-0", "web")
		full := class(object("extra", "other"), object("more", "other"), object("unmarked", "other"))
		b.sync(node, volume(pod, full, "s3cret"))
		b.edit("more", `{"metadata":{"labels":{"`+managed+`":null}}}`) // made somebody's own
		b.edit("unmarked", `{"metadata":{"annotations":{"postern.dev/secret-provider-class":null}}}`)
		less := edited(full, func(c *apiv1.SecretProviderClass) { c.Spec.SecretObjects = c.Spec.SecretObjects[:1] })

		b.refuse(http.StatusInternalServerError, "InternalError", http.MethodDelete)
		_, err := node.Sync(t.Context(), volume(pod, less, "s3cret"))
		wantTemporary(t, err, false) // the files are of use without
		contains(t, err, "Secret extra: delete Secret shop/extra")
		b.cluster.Intercept(nil)
		if result := b.sync(node, unchanged(volume(pod, less, "s3cret"))); !cmp.Equal(result, secretsync.Result{Deleted: []string{"extra"}}) {
			t.Errorf("result %+v, want extra deleted", result)
		}
		if diff := cmp.Diff([]string{"db", "more", "unmarked"}, b.cluster.Names("secrets", "shop")); diff != "" {
			t.Errorf("Secrets (-want +got):\n%s", diff)
		}
		b.cluster.ResetCalls()
		b.sync(node, unchanged(volume(pod, less, "s3cret")))
		if calls := b.calls(); len(calls) != 0 {
			t.Errorf("calls of the next refresh: %v", calls)
		}
		none := edited(less, func(c *apiv1.SecretProviderClass) { c.Spec.SecretObjects = nil })
		if result := b.sync(node, volume(pod, none, "s3cret")); !cmp.Equal(result, secretsync.Result{Deleted: []string{"db"}}) {
			t.Errorf("result %+v, want db deleted", result)
		}
	})
}

func TestSyncer_PrunesAfterRestart(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	pod := b.pod("web-0", "web")
	full := class(object("extra", "other"))
	b.sync(b.node(), volume(pod, full, "s3cret"))
	other := class()
	other.Name, other.UID = "billing", "class-2"
	other.Spec.SecretObjects = []*apiv1.SecretObject{object("invoices", "other")}
	b.sync(b.node(), volume(b.pod("billing-0", "billing"), other, "s3cret"))
	b.create("someone", wireSecret{Metadata: metav1.ObjectMeta{Name: "plain", Annotations: map[string]string{"postern.dev/secret-provider-class": "app"}}})
	b.create("csi-secrets-store", wireSecret{Metadata: metav1.ObjectMeta{Name: "upstream", Labels: map[string]string{managed: "true"}}})
	newer := wireSecret{Metadata: metav1.ObjectMeta{Name: "newer", Labels: map[string]string{managed: "true"}}}
	newer.Metadata.Annotations = map[string]string{"postern.dev/secret-provider-class": "app", "postern.dev/secret-provider-class-revision": "class-1/9"}
	b.create("secrets-store-csi-driver", newer)
	b.cluster.ResetCalls()

	restarted := b.node()
	less := edited(full, func(c *apiv1.SecretProviderClass) { c.Spec.SecretObjects = c.Spec.SecretObjects[:1] })
	if result := b.sync(restarted, volume(pod, less, "s3cret")); !cmp.Equal(result, secretsync.Result{Deleted: []string{"extra"}}) {
		t.Errorf("result %+v, want extra deleted", result)
	}
	b.sync(restarted, volume(b.pod("billing-0", "billing"), other, "s3cret"))
	if diff := cmp.Diff([]string{"db", "invoices", "newer", "plain", "upstream"}, b.cluster.Names("secrets", "shop")); diff != "" {
		t.Errorf("Secrets (-want +got):\n%s", diff)
	}
	lists := 0
	for _, call := range b.cluster.Calls() {
		if call == "GET "+secretPath {
			lists++
		}
	}
	if lists != 1 {
		t.Errorf("the namespace was listed %d times, want once", lists)
	}
	// A class that asks for none, and whose Secrets are of before the start.
	none := edited(other, func(c *apiv1.SecretProviderClass) { c.Spec.SecretObjects = nil })
	if result := b.sync(b.node(), volume(b.pod("billing-0", "billing"), none, "s3cret")); !cmp.Equal(result, secretsync.Result{Deleted: []string{"invoices"}}) {
		t.Errorf("result %+v, want invoices deleted", result)
	}
}

func TestSyncer_ListFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		lists := 0
		b.cluster.Intercept(func(r *http.Request) *metav1.Status {
			if r.Method == http.MethodGet && r.URL.Path == secretPath {
				lists++
				return kubetest.Status(http.StatusForbidden, metav1.StatusReasonForbidden, "no")
			}
			return nil
		})
		node := b.node()
		v := volume(b.pod("web-0", "web"), class(), "s3cret")
		b.sync(node, v)
		for range 4 {
			<-time.After(2 * time.Minute)
			b.sync(node, unchanged(v))
		}
		if lists != 2 {
			t.Errorf("%d lists in eight minutes, want two", lists)
		}
	})
}
