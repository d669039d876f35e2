package kube_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/secretdata"
	"github.com/postern-dev/postern/driver/internal/secretsync"
	"github.com/postern-dev/postern/internal/redact"
	"github.com/postern-dev/postern/internal/telemetry"
)

// Package secretsync is tested with the API server in memory. These are the
// cases that depend most on how a real one works.
func TestSecretSync(t *testing.T) {
	t.Parallel()
	onSecretServers(t, map[string]func(*testing.T, *secretServer){
		"life of a Secret":    checkSyncLife,
		"upstream's Secret":   checkSyncAdopts,
		"many nodes at once":  checkSyncRace,
		"someone else's":      checkSyncForeign,
		"the class is edited": checkSyncEdited,
	})
}

// podOwner is a pod of the ReplicaSet of that name.
type podOwner string

func (p podOwner) PodOwners(context.Context, string, string, string) ([]metav1.OwnerReference, error) {
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: string(p), UID: types.UID("uid-of-" + p)}}, nil
}

func (s *secretServer) node(t *testing.T, owner podOwner) *secretsync.Syncer {
	t.Helper()
	tel := telemetry.Discard()
	syncer, err := secretsync.New(secretsync.Config{
		Secrets: s.client, Pods: owner, Namespaces: []string{"shop"}, Node: "n1",
		Meter: tel.Meter("test"), Tracer: tel.Tracer("test"), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return syncer
}

// mirrored is a volume of one file for each key of Secret db.
func mirrored(generation int64, data map[string]string) secretsync.Volume {
	object := &apiv1.SecretObject{SecretName: "db"}
	var files []secretdata.File
	for key, value := range data {
		object.Data = append(object.Data, &apiv1.SecretObjectData{ObjectName: key, Key: key})
		files = append(files, secretdata.File{Path: key, Contents: redact.NewBytes([]byte(value))})
	}
	class := class("app")
	class.Namespace, class.UID, class.Generation = "shop", "class-1", generation
	class.Spec.SecretObjects = []*apiv1.SecretObject{object}
	return secretsync.Volume{
		Pod: secretsync.Pod{Namespace: "shop", Name: "web-0", UID: "u1"}, VolumeID: "v1", Class: class, Provider: "vault",
		Objects: []string{"o"}, FetchedAt: time.Now(), Changed: true,
		Files: func() ([]secretdata.File, error) { return files, nil },
	}
}

func (s *secretServer) expect(t *testing.T, want map[string]string, owners ...string) *kube.Secret {
	t.Helper()
	got := must[*kube.Secret](t)(s.client.Secret(t.Context(), "shop", "db"))
	if diff := cmp.Diff(want, reveal(got)); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	found := map[string]bool{}
	for _, owner := range got.Metadata.OwnerReferences {
		found[owner.Name] = true
	}
	for _, owner := range owners {
		if !found[owner] || len(found) != len(owners) {
			t.Errorf("owners %v, want %v", found, owners)
		}
	}
	return got
}

func checkSyncLife(t *testing.T, s *secretServer) {
	here, there := s.node(t, "web"), s.node(t, "rollout")
	v := mirrored(1, map[string]string{"a": "1", "b": "1"})
	created := must[secretsync.Result](t)(here.Sync(t.Context(), v))
	first := s.expect(t, map[string]string{"a": "1", "b": "1"}, "web")
	again := must[secretsync.Result](t)(s.node(t, "web").Sync(t.Context(), v))
	if diff := cmp.Diff([]secretsync.Result{{Created: []string{"db"}}, {}}, []secretsync.Result{created, again}); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if got := s.expect(t, map[string]string{"a": "1", "b": "1"}, "web"); got.Metadata.ResourceVersion != first.Metadata.ResourceVersion {
		t.Error("it was written twice")
	}
	must[secretsync.Result](t)(there.Sync(t.Context(), v))
	s.expect(t, map[string]string{"a": "1", "b": "1"}, "web", "rollout")
	s.edit(t, "db", `{"data":{"a":"eA==","mine":"eA=="}}`)
	must[secretsync.Result](t)(here.Sync(t.Context(), mirrored(1, map[string]string{"a": "2", "b": "1"})))
	s.expect(t, map[string]string{"a": "2", "b": "1", "mine": "x"}, "web", "rollout")
}

func checkSyncEdited(t *testing.T, s *secretServer) {
	node := s.node(t, "web")
	must[secretsync.Result](t)(node.Sync(t.Context(), mirrored(1, map[string]string{"a": "1", "b": "1"})))
	must[secretsync.Result](t)(node.Sync(t.Context(), mirrored(2, map[string]string{"a": "1", "c": "1"})))
	s.expect(t, map[string]string{"a": "1", "c": "1"}, "web")
	must[secretsync.Result](t)(node.Sync(t.Context(), mirrored(3, map[string]string{"c": "1"})))
	before := s.expect(t, map[string]string{"c": "1"}, "web")
	retyped := mirrored(4, map[string]string{"c": "1"})
	retyped.Class.Spec.SecretObjects[0].Type = "example.com/token"
	must[secretsync.Result](t)(node.Sync(t.Context(), retyped))
	if got := s.expect(t, map[string]string{"c": "1"}, "web"); got.Type != "example.com/token" || got.Metadata.UID == before.Metadata.UID {
		t.Errorf("got type %s", got.Type)
	}
	none := mirrored(5, nil)
	none.Class.Spec.SecretObjects = nil
	// After a start, so that the list finds it.
	result := must[secretsync.Result](t)(s.node(t, "web").Sync(t.Context(), none))
	if diff := cmp.Diff(secretsync.Result{Deleted: []string{"db"}}, result); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if code, _ := s.as(t, "test", http.MethodGet, "/db", "", ""); code != http.StatusNotFound {
		t.Errorf("the Secret is still there: %d", code)
	}
}

func checkSyncAdopts(t *testing.T, s *secretServer) {
	body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db","labels":{"secrets-store.csi.k8s.io/managed":"true","old":"x"}},
"type":"Opaque","data":{"a":%q,"stale":%[1]q}}`, base64.StdEncoding.EncodeToString([]byte("old")))
	if code, answer := s.as(t, "csi-secrets-store", http.MethodPost, "", "application/json", body); code != http.StatusCreated {
		t.Fatal(code, answer)
	}
	must[secretsync.Result](t)(s.node(t, "web").Sync(t.Context(), mirrored(1, map[string]string{"a": "1"})))
	got := s.expect(t, map[string]string{"a": "1"}, "web")
	if _, kept := got.Metadata.Labels["old"]; kept || got.Metadata.Annotations["postern.dev/secret-provider-class"] != "app" {
		t.Errorf("labels %v, annotations %v", got.Metadata.Labels, got.Metadata.Annotations)
	}
}

// checkSyncRace: nodes that start pods of one class at once end with all owners.
func checkSyncRace(t *testing.T, s *secretServer) {
	var group sync.WaitGroup
	var owners []string
	v := mirrored(1, map[string]string{"a": "1"})
	for i := range 5 {
		owner := fmt.Sprint("web-", i)
		owners = append(owners, owner)
		node := s.node(t, podOwner(owner))
		group.Go(func() {
			if _, err := node.Sync(t.Context(), v); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	s.expect(t, map[string]string{"a": "1"}, owners...)
}

func checkSyncForeign(t *testing.T, s *secretServer) {
	if code, answer := s.as(t, "someone", http.MethodPost, "", "application/json", `{"metadata":{"name":"db"},"data":{"a":"eA=="}}`); code != http.StatusCreated {
		t.Fatal(code, answer)
	}
	before := must[*metav1.ObjectMeta](t)(s.client.SecretMetadata(t.Context(), "shop", "db"))
	if _, err := s.node(t, "web").Sync(t.Context(), mirrored(1, map[string]string{"a": "1"})); err == nil || secretsync.Temporary(err) {
		t.Errorf("error = %v, want a lasting one", err)
	}
	if diff := cmp.Diff(before, must[*metav1.ObjectMeta](t)(s.client.SecretMetadata(t.Context(), "shop", "db"))); diff != "" {
		t.Errorf("metadata (-before +after):\n%s", diff)
	}
}
