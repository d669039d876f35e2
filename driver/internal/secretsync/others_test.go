package secretsync_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/secretsync"
)

const managed = "secrets-store.csi.k8s.io/managed"

// refuse has the API server answer so to calls on Secrets with this method.
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

// TestSyncer_TwoClasses: what a node knows of a Secret is its class's only.
func TestSyncer_TwoClasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		node := b.node()
		other := class()
		other.Name, other.UID = "billing", "class-2"
		late := volume(b.pod("billing-0", "web"), other, "theirs") // fetched earlier, and synced later
		<-time.After(time.Second)
		v := volume(b.pod("web-0", "web"), class(), "s3cret")
		b.sync(node, v)
		for range 2 {
			_, err := node.Sync(t.Context(), late)
			wantTemporary(t, err, false)
			contains(t, err, "secretproviderclass shop/billing: Secret db: it exists and mirrors SecretProviderClass app")
		}
		b.cluster.ResetCalls()
		b.sync(node, unchanged(v))
		if calls := b.calls(); len(calls) != 0 {
			t.Errorf("calls of the first class's refresh: %v, want none", calls)
		}
		node.Forget(late.VolumeID)
		b.sync(node, unchanged(v))
		if calls := b.calls(); len(calls) != 0 {
			t.Errorf("calls after the other volume is gone: %v, want none", calls)
		}
	})
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

// TestSyncer_DeleteRace: somebody deletes the Secret after it was read.
func TestSyncer_DeleteRace(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"application/merge-patch+json", "application/apply-patch+yaml"} {
		t.Run(contentType, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			node := b.node()
			pod := b.pod("web-0", "web")
			b.sync(node, volume(pod, class(), "s3cret"))
			b.cluster.Intercept(func(r *http.Request) *metav1.Status {
				if r.Header.Get("Content-Type") == contentType {
					b.cluster.Intercept(nil)
					b.cluster.Delete("secrets", "shop", "db")
				}
				return nil
			})
			// Without a label that it had: that takes a patch before the apply.
			b.sync(node, volume(pod, edited(class(), func(c *apiv1.SecretProviderClass) { c.Spec.SecretObjects[0].Labels = nil }), "changed"))
			if got := b.mustGet("db"); string(got.Data["password"]) != "changed" || len(got.Metadata.OwnerReferences) != 1 {
				t.Errorf("content %q, owners %v", got.Data["password"], owners(got))
			}
		})
	}
}

// TestSyncer_RecentlySeen: what was seen just now is no right to write.
func TestSyncer_RecentlySeen(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	node := b.node()
	pod := b.pod("web-0", "web")
	b.sync(node, volume(pod, class(), "s3cret"))
	b.edit("db", `{"metadata":{"labels":{"`+managed+`":null}}}`)
	_, err := node.Sync(t.Context(), volume(pod, class(), "changed"))
	contains(t, err, "is someone else's")
	if b.password() != "s3cret" {
		t.Errorf("content %q, want it untouched", b.password())
	}
}

// A Secret that waits for a finalizer is not written: that would be lost.
func TestSyncer_BeingDeleted(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	node := b.node()
	pod := b.pod("web-0", "web")
	b.sync(node, volume(pod, class(), "s3cret"))
	b.edit("db", `{"metadata":{"finalizers":["example.com/hold"]}}`)
	b.as("kubectl-delete", http.MethodDelete, "/db", "application/json", "")
	_, err := node.Sync(t.Context(), volume(pod, class(), "changed"))
	wantTemporary(t, err, true)
	contains(t, err, "it is being deleted, and waits for finalizers", "example.com/hold")
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

// TestSyncer_PrunesAfterRestart: classes were edited while no driver ran.
// A list that fails stops nothing, and is not tried with every refresh.
// TestSyncer_Metrics holds the names that dashboards know.
// hasLine tells whether one line holds all texts.
