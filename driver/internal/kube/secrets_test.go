package kube_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
	"github.com/postern-dev/postern/internal/redact"
)

// secretServer is an API server, in memory or real, and its users.
type secretServer struct {
	client *kube.Client
	users  *http.Client
	url    string
	// log is what the client logs.
	log *bytes.Buffer
}

func newSecretServer(t *testing.T, config *rest.Config) *secretServer {
	t.Helper()
	log := &bytes.Buffer{}
	client, err := kube.New(kube.Config{RESTConfig: config, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	users, err := rest.HTTPClientFor(rest.CopyConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(users.CloseIdleConnections)
	return &secretServer{client: client, users: users, url: config.Host, log: log}
}

// onSecretServers runs a test with the API server in memory and with a real
// one: what the one says has to be what the other says.
func onSecretServers(t *testing.T, tests map[string]func(*testing.T, *secretServer)) {
	t.Helper()
	t.Run("in memory", func(t *testing.T) {
		t.Parallel()
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, newSecretServer(t, kubetest.New().RESTConfig()))
			})
		}
	})
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		server := startRealServer(t)
		server.must(t, http.MethodPost, "/api/v1/namespaces", yamlBody, "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")
		s := newSecretServer(t, &rest.Config{
			Host: server.url, BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(server.dir, "apiserver.crt")},
		})
		for name, test := range tests { // one after the other: each deletes what it made
			t.Run(name, func(t *testing.T) {
				test(t, s)
				s.as(t, "test", http.MethodDelete, "/db", "", "")
				s.as(t, "test", http.MethodDelete, "/web", "", "")
			})
		}
	})
}

// as has somebody call, and returns the answer.
func (s *secretServer) as(t *testing.T, manager, method, path, contentType, body string) (int, map[string]any) {
	t.Helper()
	url := s.url + "/api/v1/namespaces/shop/secrets" + path + "?fieldManager=" + manager
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	response, err := s.users.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read to its end
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
	return response.StatusCode, answer
}

// edit is a merge patch by a person.
func (s *secretServer) edit(t *testing.T, name, patch string) {
	t.Helper()
	if code, answer := s.as(t, "kubectl-edit", http.MethodPatch, "/"+name, mergePatch, patch); code != http.StatusOK {
		t.Fatalf("edit %s: %d %v", name, code, answer)
	}
}

func secret(name, version string, data map[string]string) *kube.Secret {
	s := &kube.Secret{
		Metadata: metav1.ObjectMeta{
			Namespace: "shop", Name: name, ResourceVersion: version,
			Labels: map[string]string{"managed": "true"}, Annotations: map[string]string{"class": "db"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "u1"}},
		},
		Type: "Opaque", Data: map[string]redact.Bytes{},
	}
	for key, value := range data {
		s.Data[key] = redact.NewBytes([]byte(value))
	}
	return s
}

func reveal(s *kube.Secret) map[string]string {
	data := map[string]string{}
	for key, value := range s.Data {
		data[key] = string(value.Reveal())
	}
	return data
}

// must is for calls that have to work.
func must[T any](t *testing.T) func(value T, err error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func TestClient_Secrets(t *testing.T) {
	t.Parallel()
	onSecretServers(t, map[string]func(*testing.T, *secretServer){
		"create and read":      checkCreate,
		"apply":                checkApply,
		"apply over others'":   checkApplyOverOthers,
		"apply, overtaken":     checkApplyOvertaken,
		"what cannot change":   checkFixed,
		"delete":               checkDelete,
		"list":                 checkList,
		"ownership by a patch": checkOwnershipPatch,
	})
}

func checkCreate(t *testing.T, s *secretServer) {
	ctx := t.Context()
	if _, err := s.client.Secret(ctx, "shop", "db"); !apierrors.IsNotFound(err) {
		t.Errorf("Secret before: %v, want not-found", err)
	}
	if _, err := s.client.SecretMetadata(ctx, "shop", "db"); !apierrors.IsNotFound(err) {
		t.Errorf("SecretMetadata before: %v, want not-found", err)
	}
	want := map[string]string{"password": "s3cret-\xff", "empty": ""}
	created := must[*metav1.ObjectMeta](t)(s.client.CreateSecret(ctx, secret("db", "", want)))
	if created.UID == "" || created.ResourceVersion == "" || len(created.OwnerReferences) != 1 {
		t.Errorf("created: %+v", created)
	}
	if _, err := s.client.CreateSecret(ctx, secret("db", "", nil)); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second CreateSecret: %v, want already-exists", err)
	}
	got := must[*kube.Secret](t)(s.client.Secret(ctx, "shop", "db"))
	if diff := cmp.Diff(want, reveal(got)); diff != "" || got.Type != "Opaque" || got.Immutable {
		t.Errorf("type %q, contents (-want +got):\n%s", got.Type, diff)
	}
	meta := must[*metav1.ObjectMeta](t)(s.client.SecretMetadata(ctx, "shop", "db"))
	for what, m := range map[string]*metav1.ObjectMeta{"created": created, "read": &got.Metadata} {
		if diff := cmp.Diff(meta, m); diff != "" {
			t.Errorf("metadata, %s (-metadata +got):\n%s", what, diff)
		}
	}
	if text := fmt.Sprintf("%v %+v %s", got, *got, s.log); strings.Contains(text, "s3cret") {
		t.Errorf("the contents are shown: %s", text)
	}
	got.Wipe()
	if reveal(got)["password"] == want["password"] {
		t.Error("Wipe left the contents")
	}
}

func checkApply(t *testing.T, s *secretServer) {
	ctx := t.Context()
	created := must[*metav1.ObjectMeta](t)(s.client.CreateSecret(ctx, secret("db", "", map[string]string{"a": "1"})))
	first := must[*metav1.ObjectMeta](t)(s.client.ApplySecret(ctx, secret("db", created.ResourceVersion, map[string]string{"a": "2", "b": "2"})))
	if first.UID != created.UID || first.ResourceVersion == created.ResourceVersion {
		t.Errorf("applied: %+v", first)
	}
	same := must[*metav1.ObjectMeta](t)(s.client.ApplySecret(ctx, secret("db", first.ResourceVersion, map[string]string{"a": "2", "b": "2"})))
	if same.ResourceVersion != first.ResourceVersion {
		t.Errorf("an apply that changes nothing made version %s of %s", same.ResourceVersion, first.ResourceVersion)
	}
	must[*metav1.ObjectMeta](t)(s.client.ApplySecret(ctx, secret("db", "", map[string]string{"a": "2", "empty": ""})))
	got := must[*kube.Secret](t)(s.client.Secret(ctx, "shop", "db"))
	if diff := cmp.Diff(map[string]string{"a": "2", "empty": ""}, reveal(got)); diff != "" {
		t.Errorf("contents after b was left out (-want +got):\n%s", diff)
	}
}

// What other people own stays, and what they changed of the driver's is made
// undone.
func checkApplyOverOthers(t *testing.T, s *secretServer) {
	ctx := t.Context()
	must[*metav1.ObjectMeta](t)(s.client.CreateSecret(ctx, secret("db", "", map[string]string{"a": "1"})))
	s.edit(t, "db", `{"metadata":{"labels":{"team":"red"},"annotations":{"class":"mine"}},"data":{"a":"eA==","c":"Yw=="}}`)
	applied := must[*metav1.ObjectMeta](t)(s.client.ApplySecret(ctx, secret("db", "", map[string]string{"a": "1"})))
	if applied.Labels["team"] != "red" || applied.Annotations["class"] != "db" {
		t.Errorf("labels %v, annotations %v", applied.Labels, applied.Annotations)
	}
	got := must[*kube.Secret](t)(s.client.Secret(ctx, "shop", "db"))
	if diff := cmp.Diff(map[string]string{"a": "1", "c": "c"}, reveal(got)); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
}

func checkApplyOvertaken(t *testing.T, s *secretServer) {
	ctx := t.Context()
	created := must[*metav1.ObjectMeta](t)(s.client.CreateSecret(ctx, secret("db", "", map[string]string{"a": "1"})))
	s.edit(t, "db", `{"metadata":{"labels":{"team":"red"}}}`)
	if _, err := s.client.ApplySecret(ctx, secret("db", created.ResourceVersion, map[string]string{"a": "2"})); !apierrors.IsConflict(err) {
		t.Errorf("apply over a later version: %v, want a conflict", err)
	}
	anew := must[*metav1.ObjectMeta](t)(s.client.ApplySecret(ctx, secret("web", created.ResourceVersion, map[string]string{"a": "2"})))
	must[*metav1.ObjectMeta](t)(s.client.ApplySecret(ctx, secret("web", anew.ResourceVersion, map[string]string{"b": "2"})))
	if diff := cmp.Diff(map[string]string{"b": "2"}, reveal(must[*kube.Secret](t)(s.client.Secret(ctx, "shop", "web")))); diff != "" {
		t.Errorf("contents of one that was gone (-want +got):\n%s", diff)
	}
}

func checkFixed(t *testing.T, s *secretServer) {
	ctx := t.Context()
	must[*metav1.ObjectMeta](t)(s.client.CreateSecret(ctx, secret("db", "", map[string]string{"a": "1"})))
	other := secret("db", "", map[string]string{"a": "1"})
	other.Type = "example.com/other"
	if _, err := s.client.ApplySecret(ctx, other); !apierrors.IsInvalid(err) {
		t.Errorf("apply of another type: %v, want invalid", err)
	}
	s.edit(t, "db", `{"immutable":true}`)
	if got := must[*kube.Secret](t)(s.client.Secret(ctx, "shop", "db")); !got.Immutable {
		t.Error("the Secret is not read as immutable")
	}
	if _, err := s.client.ApplySecret(ctx, secret("db", "", map[string]string{"a": "2"})); !apierrors.IsInvalid(err) {
		t.Errorf("apply of other data: %v, want invalid", err)
	}
	more := secret("db", "", map[string]string{"a": "1"})
	more.Metadata.Labels["more"] = "yes"
	if got := must[*metav1.ObjectMeta](t)(s.client.ApplySecret(ctx, more)); got.Labels["more"] != "yes" {
		t.Errorf("labels of an immutable Secret: %v", got.Labels)
	}
}

func checkDelete(t *testing.T, s *secretServer) {
	ctx := t.Context()
	created := must[*metav1.ObjectMeta](t)(s.client.CreateSecret(ctx, secret("db", "", map[string]string{"a": "1"})))
	s.edit(t, "db", `{"metadata":{"labels":{"team":"red"}}}`)
	if err := s.client.DeleteSecret(ctx, created); !apierrors.IsConflict(err) {
		t.Errorf("delete of a later version: %v, want a conflict", err)
	}
	seen := must[*metav1.ObjectMeta](t)(s.client.SecretMetadata(ctx, "shop", "db"))
	another := *seen
	another.UID = "00000000-0000-0000-0000-000000000000"
	if err := s.client.DeleteSecret(ctx, &another); !apierrors.IsConflict(err) {
		t.Errorf("delete of another Secret of that name: %v, want a conflict", err)
	}
	s.edit(t, "db", `{"metadata":{"finalizers":["example.com/hold"]}}`)
	seen = must[*metav1.ObjectMeta](t)(s.client.SecretMetadata(ctx, "shop", "db"))
	if err := s.client.DeleteSecret(ctx, seen); err != nil {
		t.Fatal(err)
	}
	if held := must[*metav1.ObjectMeta](t)(s.client.SecretMetadata(ctx, "shop", "db")); held.DeletionTimestamp == nil {
		t.Error("a Secret with a finalizer is not being deleted")
	}
	s.edit(t, "db", `{"metadata":{"finalizers":null}}`)
	created = must[*metav1.ObjectMeta](t)(s.client.CreateSecret(ctx, secret("web", "", nil)))
	if err := s.client.DeleteSecret(ctx, created); err != nil {
		t.Fatal(err)
	}
	if err := s.client.DeleteSecret(ctx, created); !apierrors.IsNotFound(err) {
		t.Errorf("second delete: %v, want not-found", err)
	}
}

func checkList(t *testing.T, s *secretServer) {
	ctx := t.Context()
	must[*metav1.ObjectMeta](t)(s.client.CreateSecret(ctx, secret("db", "", map[string]string{"a": "1"})))
	other := secret("web", "", nil)
	other.Metadata.Labels = nil
	must[*metav1.ObjectMeta](t)(s.client.CreateSecret(ctx, other))
	got := must[[]metav1.ObjectMeta](t)(s.client.SecretsMetadata(ctx, "shop", "managed", "true"))
	if len(got) != 1 || got[0].Name != "db" || got[0].Annotations["class"] != "db" {
		t.Errorf("got %+v, want db", got)
	}
	if got := must[[]metav1.ObjectMeta](t)(s.client.SecretsMetadata(ctx, "shop", "managed", "no")); len(got) != 0 {
		t.Errorf("got %+v, want none", got)
	}
}

// What a create owns an apply does not remove, until a patch makes it the
// apply's.
func checkOwnershipPatch(t *testing.T, s *secretServer) {
	ctx := t.Context()
	created := must[*metav1.ObjectMeta](t)(s.client.CreateSecret(ctx, secret("db", "", map[string]string{"a": "1", "b": "1"})))
	kept := must[*metav1.ObjectMeta](t)(s.client.ApplySecret(ctx, secret("db", created.ResourceVersion, map[string]string{"a": "1"})))
	if got := reveal(must[*kube.Secret](t)(s.client.Secret(ctx, "shop", "db"))); got["b"] != "1" {
		t.Errorf("b is gone at once: %v", got)
	}
	var raw []byte
	for _, entry := range created.ManagedFields {
		if entry.Manager == kube.SecretFieldManager && entry.Operation == metav1.ManagedFieldsOperationUpdate {
			raw = entry.FieldsV1.Raw
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": created.UID, "resourceVersion": kept.ResourceVersion, "managedFields": []metav1.ManagedFieldsEntry{{
			Manager: kube.SecretFieldManager, Operation: metav1.ManagedFieldsOperationApply, APIVersion: "v1",
			FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: raw},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	patched := must[*metav1.ObjectMeta](t)(s.client.PatchSecret(ctx, "shop", "db", patch))
	if _, err := s.client.PatchSecret(ctx, "shop", "db", patch); !apierrors.IsConflict(err) {
		t.Errorf("the same patch again: %v, want a conflict", err)
	}
	applied := must[*metav1.ObjectMeta](t)(s.client.ApplySecret(ctx, secret("db", patched.ResourceVersion, map[string]string{"a": "1"})))
	if diff := cmp.Diff(map[string]string{"a": "1"}, reveal(must[*kube.Secret](t)(s.client.Secret(ctx, "shop", "db")))); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
	if len(applied.ManagedFields) != 1 {
		t.Errorf("owners of fields: %+v, want one", applied.ManagedFields)
	}
}
