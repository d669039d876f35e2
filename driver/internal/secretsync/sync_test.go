package secretsync_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/driver/internal/secretdata"
	"github.com/postern-dev/postern/driver/internal/secretsync"
	"github.com/postern-dev/postern/internal/telemetry"
)

func TestSyncer_Creates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		v := volume(b.pod("web-0", "web"), class(), "s3cret")
		result := b.sync(b.node(), v)
		if diff := cmp.Diff(secretsync.Result{Created: []string{"db"}}, result); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
		got := b.mustGet("db")
		if diff := cmp.Diff(map[string][]byte{"password": []byte("s3cret")}, got.Data); diff != "" || got.Type != "Opaque" {
			t.Errorf("type %q, data (-want +got):\n%s", got.Type, diff)
		}
		if diff := cmp.Diff(map[string]string{"team": "blue", "secrets-store.csi.k8s.io/managed": "true"}, got.Metadata.Labels); diff != "" {
			t.Errorf("labels (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"ReplicaSet web uid-of-web"}, owners(got)); diff != "" {
			t.Errorf("owners (-want +got):\n%s", diff)
		}
		if owner := got.Metadata.OwnerReferences[0]; owner.Controller != nil || owner.BlockOwnerDeletion != nil {
			t.Errorf("the owner controls, or holds up: %+v", owner)
		}
		want := map[string]string{
			"note": "n", "postern.dev/secret-provider-class": "app", "postern.dev/provider": "vault", "postern.dev/objects": "a,b",
			"postern.dev/secret-provider-class-revision": "class-1/1", "postern.dev/fetched-at": v.FetchedAt.UTC().Format(time.RFC3339Nano),
			"postern.dev/notice": "Made by the Secrets Store CSI driver of what SecretProviderClass app fetches. " +
				"Do not edit: changes are undone. Change the class, or the secret in its store.",
		}
		if diff := cmp.Diff(want, got.Metadata.Annotations); diff != "" {
			t.Errorf("annotations (-want +got):\n%s", diff)
		}
	})
}

func TestSyncer_NamespaceNotOpen(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	pod := b.pod("web-0", "web")
	closed := b.nodeWith(telemetry.Discard(), "billing")
	_, err := closed.Sync(t.Context(), volume(pod, class(), "s3cret"))
	wantTemporary(t, err, false)
	contains(t, err, "secretproviderclass shop/app", "namespace shop is not open", "driver.syncSecret.namespaces")
	none := class()
	none.Spec.SecretObjects = nil
	b.sync(closed, volume(pod, none, "s3cret"))
	if calls := b.cluster.Calls(); len(calls) != 0 {
		t.Errorf("calls: %q, want none", calls)
	}
	if result := b.sync(b.nodeWith(telemetry.Discard(), secretsync.AllNamespaces), volume(pod, class(), "s3cret")); len(result.Created) != 1 {
		t.Errorf("with all namespaces open: %+v", result)
	}
}

// TestSyncer_ManyPods: whoever mounts finds the Secret there, and the API
// server is asked by the first.
func TestSyncer_ManyPods(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		node := b.node()
		var pods []secretsync.Pod
		for i := range 100 {
			pods = append(pods, b.pod(fmt.Sprintf("web-%d", i), "web"))
		}
		b.delay(10 * time.Millisecond)
		var group sync.WaitGroup
		for _, pod := range pods {
			group.Go(func() {
				if _, err := node.Sync(t.Context(), volume(pod, class(), "s3cret")); err != nil {
					t.Error(err)
				}
				if got, ok := b.get("db"); !ok || string(got.Data["password"]) != "s3cret" {
					t.Error("the Secret is not there after Sync")
				}
			})
		}
		group.Wait()
		if diff := cmp.Diff(map[string]int{"POST": 1, "GET": 2}, b.calls()); diff != "" { // a look, and the list after a start
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

// TestSyncer_ManyNodes: one creates, and the others find nothing to do.
func TestSyncer_ManyNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.delay(10 * time.Millisecond)
		var group sync.WaitGroup
		for i := range 20 {
			node, pod := b.node(), b.pod(fmt.Sprintf("web-%d", i), "web")
			group.Go(func() {
				if _, err := node.Sync(t.Context(), volume(pod, class(), "s3cret")); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		created := b.mustGet("db").Metadata.ResourceVersion
		for i := range 5 {
			b.sync(b.node(), volume(b.pod(fmt.Sprintf("late-%d", i), "web"), class(), "s3cret"))
		}
		if got := b.mustGet("db").Metadata.ResourceVersion; got != created {
			t.Errorf("written again: version %s, was %s", got, created)
		}
		if calls := b.calls(); calls["PATCH"] != 0 {
			t.Errorf("calls: %v, want no patch", calls)
		}
	})
}

func TestSyncer_NothingChangesForAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		node := b.node()
		var volumes []secretsync.Volume
		for i := range 10 {
			v := volume(b.pod(fmt.Sprintf("web-%d", i), "web"), class(), "s3cret")
			b.sync(node, v)
			v.Files = func() ([]secretdata.File, error) { t.Error("the files were read"); return nil, nil }
			volumes = append(volumes, v)
		}
		version := b.mustGet("db").Metadata.ResourceVersion
		b.cluster.ResetCalls()
		for range 30 {
			<-time.After(2 * time.Minute) // of the bubble
			for _, v := range volumes {
				if result := b.sync(node, unchanged(v)); !cmp.Equal(result, secretsync.Result{}) {
					t.Errorf("result %+v, want nothing", result)
				}
			}
		}
		if calls := b.calls(); b.writes() != 0 || calls["GET"] > 12 || calls["GET"] < 8 {
			t.Errorf("calls in an hour: %v, want a look every five minutes", calls)
		}
		if got := b.mustGet("db").Metadata.ResourceVersion; got != version {
			t.Errorf("version %s, was %s", got, version)
		}
	})
}

func TestSyncer_Rotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		here, there := b.node(), b.node()
		first, second := b.pod("web-0", "web"), b.pod("web-1", "web")
		b.sync(here, volume(first, class(), "one"))
		b.sync(there, volume(second, class(), "one"))
		b.edit("db", `{"metadata":{"labels":{"mine":"yes"}},"data":{"mine":"eA=="}}`)
		<-time.After(2 * time.Minute)
		b.cluster.ResetCalls()
		if result := b.sync(here, volume(first, class(), "two")); !cmp.Equal(result, secretsync.Result{Updated: []string{"db"}}) {
			t.Errorf("result %+v, want db updated", result)
		}
		<-time.After(time.Second)
		if result := b.sync(there, volume(second, class(), "two")); !cmp.Equal(result, secretsync.Result{}) {
			t.Errorf("result of the second node: %+v, want nothing", result)
		}
		if calls := b.calls(); b.writes() != 1 || calls["PATCH"] != 1 {
			t.Errorf("calls: %v, want one apply", calls)
		}
		got := b.mustGet("db")
		if diff := cmp.Diff(map[string][]byte{"password": []byte("two"), "mine": []byte("x")}, got.Data); diff != "" || got.Metadata.Labels["mine"] != "yes" {
			t.Errorf("labels %v, data (-want +got):\n%s", got.Metadata.Labels, diff)
		}
	})
}

// TestSyncer_OlderContent: a node that fetched earlier does not undo what one
// that fetched later wrote, and still gets its owner in.
func TestSyncer_OlderContent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		old := volume(b.pod("old-0", "old"), class(), "one")
		<-time.After(time.Second)
		b.sync(b.node(), volume(b.pod("web-0", "web"), class(), "two"))
		before := b.mustGet("db")
		late := b.node()
		if result := b.sync(late, old); !cmp.Equal(result, secretsync.Result{Updated: []string{"db"}}) {
			t.Errorf("result %+v, want an owner added", result)
		}
		got := b.mustGet("db")
		if diff := cmp.Diff(before.Data, got.Data); diff != "" {
			t.Errorf("data (-before +after):\n%s", diff)
		}
		if diff := cmp.Diff(before.Metadata.Annotations, got.Metadata.Annotations); diff != "" {
			t.Errorf("annotations (-before +after):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"ReplicaSet old uid-of-old", "ReplicaSet web uid-of-web"}, owners(got)); diff != "" {
			t.Errorf("owners (-want +got):\n%s", diff)
		}
		b.cluster.ResetCalls()
		old.Changed = false
		b.sync(late, old)
		if writes := b.writes(); writes != 0 {
			t.Errorf("writes of the next refresh: %d", writes)
		}
	})
}

// TestSyncer_DifferentForGood: volumes whose contents never agree, such as
// leases, do not write in turn.
func TestSyncer_DifferentForGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		here, there := b.node(), b.node()
		mine, theirs := volume(b.pod("web-0", "web"), class(), "mine"), volume(b.pod("web-1", "web"), class(), "theirs")
		neighbour := volume(b.pod("web-2", "web"), class(), "neighbour")
		b.sync(here, mine)
		<-time.After(time.Second)
		theirs.FetchedAt, neighbour.FetchedAt = time.Now(), time.Now().Add(time.Second)
		b.sync(there, theirs)
		b.sync(here, neighbour)
		b.cluster.ResetCalls()
		for range 30 {
			<-time.After(2 * time.Minute)
			b.sync(here, unchanged(mine))
			b.sync(there, unchanged(theirs))
			b.sync(here, unchanged(neighbour))
		}
		if writes := b.writes(); writes != 0 || b.password() != "neighbour" {
			t.Errorf("writes in an hour: %d, content %q, want the last that changed", writes, b.password())
		}
		b.sync(here, volume(b.pod("web-0", "web"), class(), "mine, renewed"))
		if b.password() != "mine, renewed" {
			t.Errorf("content %q after a change", b.password())
		}
	})
}

func TestSyncer_RestoresWithinMinutes(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*bed){
		"deleted":            func(b *bed) { b.cluster.Delete("secrets", "shop", "db") },
		"data edited":        func(b *bed) { b.edit("db", `{"data":{"password":"eA=="}}`) },
		"key removed":        func(b *bed) { b.edit("db", `{"data":{"password":null}}`) },
		"label edited":       func(b *bed) { b.edit("db", `{"metadata":{"labels":{"team":"red"}}}`) },
		"annotation removed": func(b *bed) { b.edit("db", `{"metadata":{"annotations":{"postern.dev/secret-provider-class":null}}}`) },
		"owners removed":     func(b *bed) { b.edit("db", `{"metadata":{"ownerReferences":null}}`) },
		"deleted and made by another hand": func(b *bed) {
			made := b.mustGet("db")
			b.cluster.Delete("secrets", "shop", "db")
			made.Metadata.ResourceVersion, made.Metadata.UID, made.Data = "", "", nil
			b.create("kubectl-create", made)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t)
				node := b.node()
				v := volume(b.pod("web-0", "web"), class(), "s3cret")
				second := volume(b.pod("solo", ""), class(), "s3cret")
				b.sync(node, v)
				b.sync(node, second)
				want := b.mustGet("db")
				damage(b)
				for range 3 {
					<-time.After(2 * time.Minute)
					b.sync(node, unchanged(v))
					b.sync(node, unchanged(second))
				}
				got := b.mustGet("db")
				want.Metadata.ResourceVersion, got.Metadata.ResourceVersion = "", ""
				want.Metadata.UID, got.Metadata.UID = "", ""
				want.Metadata.ManagedFields, got.Metadata.ManagedFields = nil, nil
				if diff := cmp.Diff(owners(want), owners(got)); diff != "" {
					t.Errorf("owners after six minutes (-want +got):\n%s", diff)
				}
				want.Metadata.OwnerReferences, got.Metadata.OwnerReferences = nil, nil
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("after six minutes (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A mount does not trust what was seen minutes ago: a pod starts at once.
func TestSyncer_MountAfterDelete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		node := b.node()
		b.sync(node, volume(b.pod("web-0", "web"), class(), "s3cret"))
		<-time.After(10 * time.Second)
		b.cluster.Delete("secrets", "shop", "db")
		if result := b.sync(node, volume(b.pod("web-1", "web"), class(), "s3cret")); !cmp.Equal(result, secretsync.Result{Created: []string{"db"}}) {
			t.Errorf("result %+v, want db created", result)
		}
	})
}

func TestSyncer_Owners(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		node := b.node()
		going := b.pod("going", "web")
		b.put("pods", map[string]any{"metadata": map[string]any{"name": "going", "uid": going.UID, "deletionTimestamp": "2026-01-01T00:00:00Z"}})
		if result := b.sync(node, volume(going, class(), "s3cret")); !cmp.Equal(result, secretsync.Result{}) {
			t.Errorf("a pod that is going: %+v, want nothing made", result)
		}
		if _, found := b.get("db"); found {
			t.Fatal("a Secret without an owner was made")
		}
		for _, pod := range []secretsync.Pod{b.pod("web-0", "web"), b.pod("web-1", "web"), b.pod("rollout-0", "rollout"), b.pod("solo", ""), going} {
			b.sync(node, volume(pod, class(), "s3cret"))
		}
		want := []string{"Pod solo uid-of-solo", "ReplicaSet rollout uid-of-rollout", "ReplicaSet web uid-of-web"}
		if diff := cmp.Diff(want, owners(b.mustGet("db"))); diff != "" {
			t.Errorf("owners (-want +got):\n%s", diff)
		}
		// The collector takes owners that are gone; they do not come back.
		b.edit("db", `{"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"rollout","uid":"uid-of-rollout"}]}}`)
		<-time.After(time.Minute)
		b.sync(node, volume(b.pod("rollout-1", "rollout"), class(), "rotated"))
		if diff := cmp.Diff([]string{"ReplicaSet rollout uid-of-rollout"}, owners(b.mustGet("db"))); diff != "" {
			t.Errorf("owners after a rollout (-want +got):\n%s", diff)
		}
		// A pod that is going may still bring what changed.
		<-time.After(time.Minute)
		b.sync(node, volume(going, class(), "again"))
		if b.password() != "again" {
			t.Errorf("content %q", b.password())
		}
	})
}

// What failed is tried again at the next refresh, though nothing changed.
