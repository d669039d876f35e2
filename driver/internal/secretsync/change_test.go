package secretsync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/secretdata"
	"github.com/postern-dev/postern/driver/internal/secretsync"
)

func TestSyncer_ClassEdited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		here, there := b.node(), b.node()
		first := class()
		fetched := volume(b.pod("web-0", "web"), first, "s3cret")
		<-time.After(time.Second)
		b.sync(there, volume(b.pod("web-1", "web"), first, "s3cret"))
		// Content that was fetched before the other's, for a later state of the class.
		fetched.Class = edited(first, func(c *apiv1.SecretProviderClass) {
			c.Spec.SecretObjects[0].Data = []*apiv1.SecretObjectData{{ObjectName: "other", Key: "another"}}
			c.Spec.SecretObjects[0].Labels = nil
		})
		b.sync(here, fetched)
		want := func() {
			t.Helper()
			got := b.mustGet("db")
			if diff := cmp.Diff(map[string][]byte{"another": []byte("other")}, got.Data); diff != "" {
				t.Errorf("data (-want +got):\n%s", diff)
			}
			if _, kept := got.Metadata.Labels["team"]; kept {
				t.Errorf("labels: %v", got.Metadata.Labels)
			}
		}
		want()
		<-time.After(time.Second)
		b.sync(there, volume(b.pod("web-1", "web"), first, "changed")) // its node has not read the class again
		want()
	})
}

// TestSyncer_ClassLeavesOut: what the class names no more goes. That a caller
// takes nothing for changed does not matter.
func TestSyncer_ClassLeavesOut(t *testing.T) {
	t.Parallel()
	for name, leaveOut := range map[string]func(object *apiv1.SecretObject, last string){
		"key": func(o *apiv1.SecretObject, last string) {
			o.Data = slices.DeleteFunc(o.Data, func(d *apiv1.SecretObjectData) bool { return d.Key == last })
		},
		"label":      func(o *apiv1.SecretObject, last string) { delete(o.Labels, last) },
		"annotation": func(o *apiv1.SecretObject, last string) { delete(o.Annotations, last) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			node := b.node()
			state := class()
			db := state.Spec.SecretObjects[0]
			for _, name := range []string{"x", "y"} {
				db.Labels[name], db.Annotations[name] = "v", "v"
				db.Data = append(db.Data, &apiv1.SecretObjectData{ObjectName: "other", Key: name})
			}
			v := volume(b.pod("web-0", "web"), state, "s3cret")
			b.sync(node, v)
			// The first takes a patch that makes all fields the apply's.
			for _, step := range []struct {
				leave   string
				patches int
			}{{"x", 2}, {"y", 1}} {
				b.cluster.ResetCalls()
				v = unchanged(v)
				v.Class = edited(v.Class, func(c *apiv1.SecretProviderClass) { leaveOut(c.Spec.SecretObjects[0], step.leave) })
				b.sync(node, v)
				if calls := b.calls(); calls[http.MethodPatch] != step.patches {
					t.Errorf("without %s: calls %v, want %d patches", step.leave, calls, step.patches)
				}
				want := v.Class.Spec.SecretObjects[0]
				got := b.mustGet("db")
				if len(got.Data) != len(want.Data) || len(got.Metadata.Labels) != len(want.Labels)+1 || len(got.Metadata.Annotations) != len(want.Annotations)+6 {
					t.Errorf("without %s: data %v, labels %v, annotations %v", step.leave, got.Data, got.Metadata.Labels, got.Metadata.Annotations)
				}
			}
		})
	}
}

func TestSyncer_TypeChanges(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	node := b.node()
	b.sync(node, volume(b.pod("old-0", "old"), class(), "s3cret"))
	uid := b.mustGet("db").Metadata.UID
	next := edited(class(), func(c *apiv1.SecretProviderClass) { c.Spec.SecretObjects[0].Type = "example.com/token" })
	if result := b.sync(node, volume(b.pod("web-0", "web"), next, "s3cret")); !cmp.Equal(result, secretsync.Result{Updated: []string{"db"}}) {
		t.Errorf("result %+v, want db updated", result)
	}
	got := b.mustGet("db")
	if got.Type != "example.com/token" || got.Metadata.UID == uid || string(got.Data["password"]) != "s3cret" {
		t.Errorf("got %+v, want another Secret of the new type", got)
	}
	if diff := cmp.Diff([]string{"ReplicaSet old uid-of-old", "ReplicaSet web uid-of-web"}, owners(got)); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
}

func TestSyncer_Immutable(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]struct {
		class    *apiv1.SecretProviderClass
		password string
	}{
		"data": {class(), "changed"},
		"type": {edited(class(), func(c *apiv1.SecretProviderClass) { c.Spec.SecretObjects[0].Type = "example.com/token" }), "s3cret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			node := b.node()
			b.sync(node, volume(b.pod("web-0", "web"), class(), "s3cret"))
			b.edit("db", `{"immutable":true}`)
			b.sync(node, volume(b.pod("rollout-0", "rollout"), class(), "s3cret"))
			before := b.mustGet("db")
			if len(before.Metadata.OwnerReferences) != 2 {
				t.Errorf("owners: %v, want the second too", owners(before))
			}
			_, err := node.Sync(t.Context(), volume(b.pod("web-0", "web"), next.class, next.password))
			wantTemporary(t, err, false)
			contains(t, err, "secretproviderclass shop/app: Secret db: ", "made it immutable: delete it")
			if diff := cmp.Diff(before, b.mustGet("db")); diff != "" {
				t.Errorf("the Secret (-before +after):\n%s", diff)
			}
		})
	}
}

func TestSyncer_InvalidContent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	node := b.node()
	pod := b.pod("web-0", "web")
	broken := class(object("other", "missing"), object("third", "other"), object("third", "other"))
	result, err := node.Sync(t.Context(), volume(pod, broken, "s3cret"))
	wantTemporary(t, err, false)
	contains(t, err, "Secret other: ", "missing", "Secret third: the class asks for it twice")
	if diff := cmp.Diff(secretsync.Result{Created: []string{"db", "third"}}, result); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	unreadable := volume(pod, class(), "s3cret")
	unreadable.Files = func() ([]secretdata.File, error) { return nil, errors.New("no such volume") }
	_, err = b.node().Sync(t.Context(), unreadable)
	wantTemporary(t, err, false)
	contains(t, err, "read the volume's files: no such volume")
}

func TestSyncer_TriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		node := b.node()
		v := volume(b.pod("web-0", "web"), class(), "s3cret")
		b.sync(node, v)
		b.refuse(http.StatusInternalServerError, "InternalError", http.MethodPatch)
		<-time.After(time.Minute)
		v = volume(b.pod("web-0", "web"), class(), "changed")
		_, err := node.Sync(t.Context(), v)
		wantTemporary(t, err, true)
		b.cluster.Intercept(nil)
		b.sync(node, volume(b.pod("web-1", "web"), class(), "s3cret")) // which has not changed yet
		<-time.After(time.Minute)
		b.sync(node, unchanged(v))
		if b.password() != "changed" {
			t.Errorf("content %q after the refresh that followed", b.password())
		}
	})
}

func TestSyncer_Context(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.node().Sync(ctx, volume(b.pod("web-0", "web"), class(), "s3cret"))
	wantTemporary(t, err, true)
	if strings.Contains(fmt.Sprint(err, b.log.String()), "s3cret") {
		t.Errorf("the content is shown: %v", err)
	}
}
