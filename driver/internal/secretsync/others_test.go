package secretsync_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
	"github.com/postern-dev/postern/driver/internal/secretsync"
	"github.com/postern-dev/postern/internal/telemetry"
)

const managed = "secrets-store.csi.k8s.io/managed"

// refuse has the API server answer so to calls on Secrets with this method.
func (b *bed) refuse(code int, reason metav1.StatusReason, methods ...string) {
	b.refuseWith(kubetest.Status(code, reason, "refused"), methods...)
}

func (b *bed) refuseWith(status *metav1.Status, methods ...string) {
	b.cluster.Intercept(func(r *http.Request) *metav1.Status {
		for _, method := range methods {
			if r.Method == method && strings.HasPrefix(r.URL.Path, secretPath) {
				return status
			}
		}
		return nil
	})
}

func TestSyncer_NeverTakesOver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meta metav1.ObjectMeta
		want []string
	}{
		"somebody else's": {metav1.ObjectMeta{}, []string{"Secret db: it exists and is someone else's: rename it in the class (secretName), or delete it"}},
		"not marked as the driver's": {
			metav1.ObjectMeta{Labels: map[string]string{managed: "false"}, Annotations: map[string]string{"postern.dev/secret-provider-class": "app"}},
			[]string{"is someone else's"},
		},
		"another class's": {
			metav1.ObjectMeta{Labels: map[string]string{managed: "true"}, Annotations: map[string]string{"postern.dev/secret-provider-class": "billing"}},
			[]string{"mirrors SecretProviderClass billing", "rename it in one of the classes", "delete it"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			test.meta.Name = "db"
			b.create("someone", wireSecret{Metadata: test.meta, Type: "Opaque", Data: map[string][]byte{"password": []byte("theirs")}})
			before := b.mustGet("db")
			b.cluster.Intercept(func(r *http.Request) *metav1.Status {
				if r.URL.Path == secretPath+"/db" && !strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadata") {
					t.Errorf("%s reads the contents", r.Method)
				}
				return nil
			})
			node := b.node()
			pod := b.pod("web-0", "web")
			for range 2 {
				_, err := node.Sync(t.Context(), volume(pod, class(), "s3cret"))
				wantTemporary(t, err, false)
				contains(t, err, test.want...)
			}
			// Nor is it removed when the class asks for it no more.
			b.sync(node, volume(pod, edited(class(), func(c *apiv1.SecretProviderClass) { c.Spec.SecretObjects = nil }), "s3cret"))
			if diff := cmp.Diff(before, b.mustGet("db")); diff != "" {
				t.Errorf("the Secret (-before +after):\n%s", diff)
			}
		})
	}
}

// TestSyncer_CreateRace: somebody makes a Secret of that name in between.
func TestSyncer_CreateRace(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	pod := b.pod("web-0", "web")
	b.cluster.Intercept(func(r *http.Request) *metav1.Status {
		if r.Method == http.MethodPost && r.URL.Path == secretPath {
			b.cluster.Intercept(nil)
			b.create("someone", wireSecret{Metadata: metav1.ObjectMeta{Name: "db"}, Type: "Opaque"})
		}
		return nil
	})
	_, err := b.node().Sync(t.Context(), volume(pod, class(), "s3cret"))
	contains(t, err, "is someone else's")
	if got := b.mustGet("db"); len(got.Data) != 0 || len(got.Metadata.Labels) != 0 {
		t.Errorf("it was written: %+v", got)
	}
}

// TestSyncer_WriteRace: somebody makes the Secret theirs after it was read.
func TestSyncer_WriteRace(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	node := b.node()
	pod := b.pod("web-0", "web")
	b.sync(node, volume(pod, class(), "s3cret"))
	b.cluster.Intercept(func(r *http.Request) *metav1.Status {
		if r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml" {
			b.cluster.Intercept(nil)
			b.edit("db", `{"metadata":{"labels":{"`+managed+`":null}}}`)
		}
		return nil
	})
	_, err := node.Sync(t.Context(), volume(pod, class(), "changed"))
	contains(t, err, "is someone else's")
	if b.password() != "s3cret" {
		t.Errorf("content %q, want it untouched", b.password())
	}
}

func TestSyncer_AdoptsUpstreams(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.create("csi-secrets-store", wireSecret{
		Metadata: metav1.ObjectMeta{
			Name: "db", Labels: map[string]string{managed: "true", "old": "yes"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "old", UID: "uid-of-old"}},
		},
		Type: "Opaque", Data: map[string][]byte{"password": []byte("old"), "stale": []byte("x")},
	})
	b.edit("db", `{"metadata":{"labels":{"mine":"yes"}}}`)
	uid := b.mustGet("db").Metadata.UID
	if result := b.sync(b.node(), volume(b.pod("web-0", "web"), class(), "s3cret")); !cmp.Equal(result, secretsync.Result{Updated: []string{"db"}}) {
		t.Errorf("result %+v, want db updated", result)
	}
	got := b.mustGet("db")
	if diff := cmp.Diff(map[string][]byte{"password": []byte("s3cret")}, got.Data); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{managed: "true", "mine": "yes", "team": "blue"}, got.Metadata.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"ReplicaSet old uid-of-old", "ReplicaSet web uid-of-web"}, owners(got)); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
	if got.Metadata.UID != uid || got.Metadata.Annotations["postern.dev/secret-provider-class"] != "app" {
		t.Errorf("it is another Secret, or not claimed: %+v", got.Metadata)
	}
}

// The time of a node whose clock is wrong does not lock the others out.
func TestSyncer_ClockOfTheFuture(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ahead := volume(b.pod("web-0", "web"), class(), "ahead")
	ahead.FetchedAt = time.Now().Add(time.Hour)
	b.sync(b.node(), ahead)
	b.sync(b.node(), volume(b.pod("web-1", "web"), class(), "s3cret"))
	if b.password() != "s3cret" {
		t.Errorf("content %q", b.password())
	}
}

func TestSyncer_Prunes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		node := b.node()
		pod := b.pod("web-0", "web")
		full := class(object("extra", "other"), object("more", "other"))
		b.sync(node, volume(pod, full, "s3cret"))
		b.edit("more", `{"metadata":{"labels":{"`+managed+`":null}}}`) // made somebody's own
		less := edited(full, func(c *apiv1.SecretProviderClass) { c.Spec.SecretObjects = c.Spec.SecretObjects[:1] })

		b.refuse(http.StatusInternalServerError, "InternalError", http.MethodDelete)
		_, err := node.Sync(t.Context(), volume(pod, less, "s3cret"))
		wantTemporary(t, err, false) // the files are of use without
		contains(t, err, "Secret extra: delete Secret shop/extra")
		b.cluster.Intercept(nil)
		if result := b.sync(node, unchanged(volume(pod, less, "s3cret"))); !cmp.Equal(result, secretsync.Result{Deleted: []string{"extra"}}) {
			t.Errorf("result %+v, want extra deleted", result)
		}
		if diff := cmp.Diff([]string{"db", "more"}, b.cluster.Names("secrets", "shop")); diff != "" {
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

// TestSyncer_PrunesAfterRestart: classes were edited while no driver ran.
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

// A list that fails stops nothing, and is not tried with every refresh.
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

func TestSyncer_Failures(t *testing.T) {
	t.Parallel()
	terminating := kubetest.Status(http.StatusForbidden, metav1.StatusReasonForbidden, "being terminated")
	terminating.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "NamespaceTerminating"}}}
	for name, test := range map[string]struct {
		status    *metav1.Status
		method    string
		temporary bool
		reason    string
		text      string
	}{
		"no right": {
			kubetest.Status(http.StatusForbidden, metav1.StatusReasonForbidden, "no"), http.MethodGet, false, "FORBIDDEN", "driver.syncSecret.namespaces",
		},
		"namespace is going": {terminating, http.MethodPost, false, "NAMESPACE_TERMINATING", "the namespace is being deleted"},
		"namespace is gone":  {kubetest.Status(http.StatusNotFound, metav1.StatusReasonNotFound, "no"), http.MethodPost, false, "NAMESPACE_TERMINATING", "the namespace is gone"},
		"refused by a webhook": {
			kubetest.Status(http.StatusBadRequest, metav1.StatusReasonBadRequest, "denied by policy"), http.MethodPost, false, "REFUSED", "denied by policy",
		},
		"invalid":                  {kubetest.Status(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "no"), http.MethodPost, false, "REFUSED", ""},
		"down":                     {kubetest.Status(http.StatusInternalServerError, metav1.StatusReasonInternalError, "etcd"), http.MethodGet, true, "API_UNAVAILABLE", "etcd"},
		"overloaded":               {kubetest.Status(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "no"), http.MethodGet, true, "RATE_LIMITED", ""},
		"credentials not accepted": {kubetest.Status(http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "no"), http.MethodGet, true, "API_UNAVAILABLE", ""},
		"always overtaken":         {kubetest.Status(http.StatusConflict, metav1.StatusReasonConflict, "no"), http.MethodPost, true, "CONFLICT", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t)
				tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "test"})
				if err != nil {
					t.Fatal(err)
				}
				node := b.nodeWith(tel, "shop")
				pod := b.pod("web-0", "web")
				b.refuseWith(test.status, test.method)
				_, err = node.Sync(t.Context(), volume(pod, class(), "s3cret"))
				wantTemporary(t, err, test.temporary)
				contains(t, err, "secretproviderclass shop/app: Secret db: ", test.text)
				if got := metrics(t, tel, "postern_driver_secret_syncs_total"); !strings.Contains(got, `outcome="failed"`) || !strings.Contains(got, `reason="`+test.reason+`"`) {
					t.Errorf("metrics:\n%swant reason %s", got, test.reason)
				}
				if strings.Contains(err.Error(), "s3cret") {
					t.Error("the error shows the content")
				}
			})
		})
	}
}

func TestTemporary_OneOfMany(t *testing.T) {
	t.Parallel()
	if secretsync.Temporary(nil) || secretsync.Temporary(errors.New("x")) {
		t.Error("an error that is not Sync's is temporary")
	}
	b := newBed(t)
	pod := b.pod("web-0", "web")
	b.create("someone", wireSecret{Metadata: metav1.ObjectMeta{Name: "db"}})
	b.refuse(http.StatusInternalServerError, "InternalError", http.MethodPost)
	_, err := b.node().Sync(t.Context(), volume(pod, class(object("extra", "other")), "s3cret"))
	contains(t, err, "is someone else's", "Secret extra: create")
	wantTemporary(t, err, true)
}
