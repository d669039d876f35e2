package kube_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
	"github.com/postern-dev/postern/driver/internal/spc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T, cluster *kubetest.Cluster) *kube.Client {
	t.Helper()
	client, err := kube.New(kube.Config{RESTConfig: cluster.RESTConfig(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return client
}

func put(t *testing.T, cluster *kubetest.Cluster, resource, namespace string, object any) {
	t.Helper()
	if err := cluster.Put(resource, namespace, object); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

func class(name string) *apiv1.SecretProviderClass {
	return &apiv1.SecretProviderClass{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiv1.GroupVersion().String(), Kind: apiv1.KindSecretProviderClass},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       apiv1.SecretProviderClassSpec{Provider: "vault", Parameters: map[string]string{"roleName": "app"}},
	}
}

func TestClient_SecretProviderClass(t *testing.T) {
	t.Parallel()
	cluster := kubetest.New()
	put(t, cluster, apiv1.ResourceSecretProviderClasses, "shop", class("db"))
	client := newClient(t, cluster)

	got, err := client.SecretProviderClass(t.Context(), "shop", "db")
	if err != nil {
		t.Fatalf("SecretProviderClass: %v", err)
	}
	if diff := cmp.Diff(class("db").Spec, got.Spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	if got.Namespace != "shop" || got.Name != "db" {
		t.Errorf("got %s/%s, want shop/db", got.Namespace, got.Name)
	}
}

func TestClient_SecretProviderClass_Errors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		status *metav1.Status
		want   error
		text   string
	}{
		{name: "not there", want: spc.ErrNotFound, text: "no such SecretProviderClass in the cluster"},
		{
			name:   "CRD not there",
			status: kubetest.Status(404, metav1.StatusReasonNotFound, "the server could not find the requested resource"),
			want:   spc.ErrUnavailable,
			text:   "install the CRDs",
		},
		{
			name:   "forbidden",
			status: kubetest.Status(403, metav1.StatusReasonForbidden, `User "x" cannot get resource`),
			want:   spc.ErrForbidden,
			text:   "check the driver's ClusterRole and its binding",
		},
		{
			name:   "credentials refused",
			status: kubetest.Status(401, metav1.StatusReasonUnauthorized, "Unauthorized"),
			want:   spc.ErrForbidden,
			text:   "check its service account token",
		},
		{
			name:   "defect of the server",
			status: kubetest.Status(500, metav1.StatusReasonInternalError, "etcd is not there"),
			want:   spc.ErrUnavailable,
			text:   "etcd is not there",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cluster := kubetest.New()
			cluster.Intercept(func(*http.Request) *metav1.Status { return test.status })
			_, err := newClient(t, cluster).SecretProviderClass(t.Context(), "shop", "db")
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %q, want %q in it", err, test.text)
			}
		})
	}
}

func TestClient_SecretProviderClass_Unreachable(t *testing.T) {
	t.Parallel()
	config := kubetest.New().RESTConfig()
	config.Transport = roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") })
	client, err := kube.New(kube.Config{RESTConfig: config, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	_, err = client.SecretProviderClass(t.Context(), "shop", "db")
	if !errors.Is(err, spc.ErrUnavailable) || !strings.Contains(err.Error(), "check that this node can reach it") {
		t.Errorf("got %v, want ErrUnavailable which says what to check", err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestClient_SecretProviderClass_HungServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := kubetest.New()
		cluster.Intercept(func(r *http.Request) *metav1.Status {
			<-r.Context().Done()
			return kubetest.Status(504, metav1.StatusReasonTimeout, "")
		})
		started := time.Now()
		_, err := newClient(t, cluster).SecretProviderClass(t.Context(), "shop", "db")
		if !errors.Is(err, spc.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
		if took := time.Since(started); took != 15*time.Second {
			t.Errorf("gave up after %v, want 15s", took)
		}
	})
}

func TestClient_SecretProviderClass_CoalescesConcurrentSafe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := kubetest.New()
		put(t, cluster, apiv1.ResourceSecretProviderClasses, "shop", class("db"))
		release := make(chan struct{})
		cluster.Intercept(func(*http.Request) *metav1.Status {
			<-release
			return nil
		})
		client := newClient(t, cluster)
		const callers = 50
		got := make([]*apiv1.SecretProviderClass, callers)
		var calls sync.WaitGroup
		for i := range callers {
			calls.Go(func() {
				answer, err := client.SecretProviderClass(t.Context(), "shop", "db")
				if err != nil {
					t.Errorf("SecretProviderClass: %v", err)
				}
				got[i] = answer
			})
		}
		synctest.Wait()
		close(release)
		calls.Wait()
		if n := len(cluster.Calls()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
		got[0].Spec.Parameters["roleName"] = "changed"
		if got[1].Spec.Parameters["roleName"] != "app" {
			t.Error("two callers share one object")
		}
		if _, err := client.SecretProviderClass(t.Context(), "shop", "db"); err != nil {
			t.Fatalf("SecretProviderClass: %v", err)
		}
		if n := len(cluster.Calls()); n != 2 {
			t.Errorf("%d requests after a later call, want 2", n)
		}
	})
}

func TestClient_NotThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := kubetest.New()
		put(t, cluster, apiv1.ResourceSecretProviderClasses, "shop", class("db"))
		client := newClient(t, cluster)
		started := time.Now()
		for range 500 {
			if _, err := client.SecretProviderClass(t.Context(), "shop", "db"); err != nil {
				t.Fatalf("SecretProviderClass: %v", err)
			}
		}
		if took := time.Since(started); took != 0 {
			t.Errorf("500 calls were held back for %v", took)
		}
	})
}

func TestClient_ServiceAccountAnnotations(t *testing.T) {
	t.Parallel()
	cluster := kubetest.New()
	account := func(name string) metav1.PartialObjectMetadata {
		return metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: name, Annotations: map[string]string{"eks.amazonaws.com/role-arn": "arn:" + name, "private": "x"},
		}}
	}
	put(t, cluster, "serviceaccounts", "shop", account("app"))
	put(t, cluster, "serviceaccounts", "shop", account("default"))
	client := newClient(t, cluster)

	tests := []struct {
		name, account string
		keys          []string
		want          map[string]string
	}{
		{name: "only what is asked for", account: "app", keys: []string{"eks.amazonaws.com/role-arn", "other"}, want: map[string]string{"eks.amazonaws.com/role-arn": "arn:app"}},
		{name: "no name is the default account", keys: []string{"eks.amazonaws.com/role-arn"}, want: map[string]string{"eks.amazonaws.com/role-arn": "arn:default"}},
		{name: "nothing asked for", account: "no-such", want: map[string]string{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := client.ServiceAccountAnnotations(t.Context(), "shop", test.account, test.keys)
			if err != nil {
				t.Fatalf("ServiceAccountAnnotations: %v", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
		})
	}
	_, err := client.ServiceAccountAnnotations(t.Context(), "shop", "gone", []string{"a"})
	if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "get service account shop/gone: ") {
		t.Errorf("got %v, want a not-found that names the account", err)
	}
}

func TestClient_NodeLabels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const region, zone = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"
		cluster := kubetest.New()
		node := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{region: "eu"}}}
		put(t, cluster, "nodes", "", node)
		client := newClient(t, cluster)
		check := func(want map[string]string, calls int, keys ...string) {
			t.Helper()
			got, err := client.NodeLabels(t.Context(), "n1", keys)
			if err != nil {
				t.Fatalf("NodeLabels: %v", err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			if n := len(cluster.Calls()); n != calls {
				t.Errorf("%d requests, want %d", n, calls)
			}
		}
		check(map[string]string{}, 0)
		check(map[string]string{region: "eu"}, 1, region)
		check(map[string]string{region: "eu"}, 1, region)
		check(map[string]string{}, 1, zone)
		node.Labels[zone] = "eu-1"
		put(t, cluster, "nodes", "", node)
		<-time.After(5 * time.Second) // a label that is not there is looked for again
		check(map[string]string{region: "eu"}, 1, region)
		check(map[string]string{zone: "eu-1"}, 2, zone)
		<-time.After(10 * time.Minute)
		check(map[string]string{region: "eu"}, 3, region)
	})
}

func TestClient_PodExists(t *testing.T) {
	t.Parallel()
	cluster := kubetest.New()
	put(t, cluster, "pods", "shop", metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "u1"}})
	put(t, cluster, "pods", "shop", metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: "static", UID: "mirror", Annotations: map[string]string{"kubernetes.io/config.mirror": "hash"},
	}})
	client := newClient(t, cluster)
	tests := []struct {
		name, pod, uid string
		want           bool
	}{
		{name: "there", pod: "web", uid: "u1", want: true},
		{name: "another of the same name", pod: "web", uid: "u0"},
		{name: "gone", pod: "old", uid: "u1"},
		{name: "static pod", pod: "static", uid: "hash", want: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := client.PodExists(t.Context(), "shop", test.pod, test.uid)
			if err != nil || got != test.want {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
		})
	}
}

func TestClient_PodExists_UnknownIsAnError(t *testing.T) {
	t.Parallel()
	cluster := kubetest.New()
	cluster.Intercept(func(*http.Request) *metav1.Status {
		return kubetest.Status(403, metav1.StatusReasonForbidden, "no")
	})
	if exists, err := newClient(t, cluster).PodExists(t.Context(), "shop", "web", "u1"); !apierrors.IsForbidden(err) || exists {
		t.Errorf("got %v, %v, want a forbidden error", exists, err)
	}
}

func TestNew_Errors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	tests := []struct {
		name   string
		config kube.Config
		want   string
	}{
		{name: "no logger", want: "kube client needs a logger"},
		{name: "no such kubeconfig", config: kube.Config{Kubeconfig: filepath.Join(dir, "none"), Logger: logger}, want: "read kubeconfig " + filepath.Join(dir, "none")},
		{name: "broken kubeconfig", config: kube.Config{Kubeconfig: broken, Logger: logger}, want: "read kubeconfig " + broken},
		{name: "not in a cluster", config: kube.Config{Logger: logger}, want: "outside of one, name a kubeconfig file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := kube.New(test.config)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestClient_CallerLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := kubetest.New()
		cancelled := make(chan struct{})
		cluster.Intercept(func(r *http.Request) *metav1.Status {
			<-r.Context().Done()
			close(cancelled)
			return kubetest.Status(504, metav1.StatusReasonTimeout, "")
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := newClient(t, cluster).SecretProviderClass(ctx, "shop", "db")
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, spc.ErrUnavailable) {
			t.Errorf("got %v, want deadline exceeded and ErrUnavailable", err)
		}
		<-cancelled // else the test would not end
	})
}
