package secretsync_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
	"github.com/postern-dev/postern/driver/internal/secretdata"
	"github.com/postern-dev/postern/driver/internal/secretsync"
	"github.com/postern-dev/postern/internal/redact"
	"github.com/postern-dev/postern/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secretPath = "/api/v1/namespaces/shop/secrets"

// bed is a cluster with nodes that keep its Secrets.
type bed struct {
	*testing.T
	cluster *kubetest.Cluster
	log     strings.Builder
}

func newBed(t *testing.T) *bed {
	t.Helper()
	return &bed{T: t, cluster: kubetest.New()}
}

// node returns the syncer of one node more.
func (b *bed) node() *secretsync.Syncer { return b.nodeWith(telemetry.Discard(), "shop") }

func (b *bed) nodeWith(tel *telemetry.Telemetry, namespaces ...string) *secretsync.Syncer {
	b.Helper()
	logger := slog.New(slog.NewTextHandler(&b.log, nil))
	client, err := kube.New(kube.Config{RESTConfig: b.cluster.RESTConfig(), Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	syncer, err := secretsync.New(secretsync.Config{
		Secrets: client, Pods: client, Namespaces: namespaces, Node: "n1",
		Meter: tel.Meter("test"), Tracer: tel.Tracer("test"), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	return syncer
}

// class asks for Secret db with the key password, and more.
func class(more ...*apiv1.SecretObject) *apiv1.SecretProviderClass {
	db := &apiv1.SecretObject{
		SecretName: "db", Labels: map[string]string{"team": "blue"}, Annotations: map[string]string{"note": "n"},
		Data: []*apiv1.SecretObjectData{{ObjectName: "db-password", Key: "password"}},
	}
	return &apiv1.SecretProviderClass{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "app", UID: "class-1", Generation: 1},
		Spec:       apiv1.SecretProviderClassSpec{Provider: "vault", SecretObjects: append([]*apiv1.SecretObject{db}, more...)},
	}
}

func object(name, file string) *apiv1.SecretObject {
	return &apiv1.SecretObject{SecretName: name, Data: []*apiv1.SecretObjectData{{ObjectName: file, Key: "k"}}}
}

// edited is the next state of the class.
func edited(c *apiv1.SecretProviderClass, edit func(*apiv1.SecretProviderClass)) *apiv1.SecretProviderClass {
	next := c.DeepCopy()
	next.Generation++
	edit(next)
	return next
}

// pod creates a pod of a ReplicaSet; "" is no ReplicaSet.
func (b *bed) pod(name, replicaSet string) secretsync.Pod {
	b.Helper()
	meta := metav1.ObjectMeta{Name: name, UID: types.UID("uid-of-" + name)}
	if replicaSet != "" {
		yes := true
		meta.OwnerReferences = []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: replicaSet, UID: types.UID("uid-of-" + replicaSet), Controller: &yes},
		}
	}
	b.put("pods", map[string]any{"metadata": meta})
	return secretsync.Pod{Namespace: "shop", Name: name, UID: string(meta.UID)}
}

func (b *bed) put(resource string, object any) {
	b.Helper()
	if err := b.cluster.Put(resource, "shop", object); err != nil {
		b.Fatal(err)
	}
}

// volume is a pod's, with these contents of its files, just fetched.
func volume(pod secretsync.Pod, class *apiv1.SecretProviderClass, password string) secretsync.Volume {
	return secretsync.Volume{
		Pod: pod, VolumeID: "volume-of-" + pod.Name, Class: class, Provider: "vault", Objects: []string{"b", "a"},
		FetchedAt: time.Now(), Changed: true,
		Files: func() ([]secretdata.File, error) {
			return []secretdata.File{
				{Path: "db-password", Contents: redact.NewBytes([]byte(password))},
				{Path: "other", Contents: redact.NewBytes([]byte("other"))},
			}, nil
		},
	}
}

// unchanged is the volume's next refresh.
func unchanged(v secretsync.Volume) secretsync.Volume {
	v.Changed, v.FetchedAt = false, time.Now()
	return v
}

func (b *bed) sync(s *secretsync.Syncer, v secretsync.Volume) secretsync.Result {
	b.Helper()
	result, err := s.Sync(b.Context(), v)
	if err != nil {
		b.Fatalf("Sync of %s: %v", v.VolumeID, err)
	}
	return result
}

// wireSecret is a Secret as the cluster has it.
type wireSecret struct {
	Metadata  metav1.ObjectMeta `json:"metadata"`
	Type      string            `json:"type"`
	Immutable bool              `json:"immutable,omitempty"`
	Data      map[string][]byte `json:"data"`
}

func (b *bed) get(name string) (secret wireSecret, found bool) {
	b.Helper()
	found, err := b.cluster.Get("secrets", "shop", name, &secret)
	if err != nil {
		b.Fatal(err)
	}
	return secret, found
}

func (b *bed) mustGet(name string) wireSecret {
	b.Helper()
	secret, found := b.get(name)
	if !found {
		b.Fatalf("there is no Secret %s", name)
	}
	return secret
}

func (b *bed) password() string {
	b.Helper()
	return string(b.mustGet("db").Data["password"])
}

// owners are in no order.
func owners(s wireSecret) []string {
	var names []string
	for _, owner := range s.Metadata.OwnerReferences {
		names = append(names, fmt.Sprintf("%s %s %s", owner.Kind, owner.Name, owner.UID))
	}
	slices.Sort(names)
	return names
}

// as is a call of somebody else.
func (b *bed) as(manager, method, path, contentType, body string) {
	b.Helper()
	request := httptest.NewRequest(method, secretPath+path+"?fieldManager="+manager, strings.NewReader(body))
	request.Header.Set("Content-Type", contentType)
	answer := httptest.NewRecorder()
	b.cluster.ServeHTTP(answer, request)
	if answer.Code >= http.StatusMultipleChoices {
		b.Fatalf("%s %s: %d %s", method, path, answer.Code, answer.Body)
	}
}

func (b *bed) edit(name, patch string) {
	b.Helper()
	b.as("kubectl-edit", http.MethodPatch, "/"+name, "application/merge-patch+json", patch)
}

// create creates a Secret as somebody else would.
func (b *bed) create(manager string, secret wireSecret) {
	b.Helper()
	encoded, err := json.Marshal(secret)
	if err != nil {
		b.Fatal(err)
	}
	b.as(manager, http.MethodPost, "", "application/json", string(encoded))
}

// calls counts the calls on Secrets since the last ResetCalls, by method.
func (b *bed) calls() map[string]int {
	b.Helper()
	counts := map[string]int{}
	for _, call := range b.cluster.Calls() {
		if method, path, _ := strings.Cut(call, " "); strings.HasPrefix(path, secretPath) {
			counts[method]++
		}
	}
	return counts
}

func (b *bed) writes() int {
	b.Helper()
	calls := b.calls()
	return calls[http.MethodPost] + calls[http.MethodPatch] + calls[http.MethodDelete]
}

// delay makes each call of the cluster take so long, so that calls overlap.
func (b *bed) delay(d time.Duration) {
	b.cluster.Intercept(func(*http.Request) *metav1.Status {
		<-time.After(d)
		return nil
	})
}

// contains fails the test unless the error holds each text.
func contains(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error = %v, want %q in it", err, text)
		}
	}
}

func wantTemporary(t *testing.T, err error, want bool) {
	t.Helper()
	if err == nil || secretsync.Temporary(err) != want {
		t.Errorf("error = %v, want one with Temporary = %t", err, want)
	}
}

// metrics returns the lines of /metrics that start so.
func metrics(t *testing.T, tel *telemetry.Telemetry, prefix string) string {
	t.Helper()
	answer := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
