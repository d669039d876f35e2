package apiserver_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/build"
)

func TestServer(t *testing.T) {
	t.Parallel()
	server := start(t)
	t.Run("tokens are the pod's, one per audience", func(t *testing.T) {
		t.Parallel()
		if err := server.EnsureServiceAccount(t.Context(), "tokens", "web"); err != nil {
			t.Fatal(err)
		}
		pod, err := server.CreatePod(t.Context(), apiserver.Pod{
			Namespace: "tokens", Name: "web-0", ServiceAccount: "web", Volume: "secrets", SecretProviderClass: "app",
		})
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := server.Tokens(t.Context(), pod, "vault", "sts.amazonaws.com")
		if err != nil {
			t.Fatal(err)
		}
		var tokens map[string]struct{ Token, ExpirationTimestamp string }
		if err := json.Unmarshal([]byte(encoded), &tokens); err != nil {
			t.Fatal(err)
		}
		for _, audience := range []string{"vault", "sts.amazonaws.com"} {
			got := claims(t, tokens[audience].Token)
			want := map[string]any{
				"aud": []any{audience}, "iss": apiserver.Issuer, "sub": "system:serviceaccount:tokens:web", "pod": string(pod.UID),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("claims of %s (-want +got):\n%s", audience, diff)
			}
			if tokens[audience].ExpirationTimestamp == "" {
				t.Errorf("no expirationTimestamp for %s", audience)
			}
		}
	})
	t.Run("the driver may not list what is not its own", func(t *testing.T) {
		t.Parallel()
		path, err := server.DriverKubeconfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		config, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("list Secrets: %v, want forbidden", err)
		}
		if _, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("list pods: %v, want forbidden", err)
		}
		typed, err := dynamic.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.ApplyCRDs(t.Context(), "../../driver/api/crds"); err != nil {
			t.Fatal(err)
		}
		classes := typed.Resource(schema.GroupVersionResource{
			Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasses",
		})
		if _, err := classes.Namespace("default").Get(t.Context(), "app", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("get a SecretProviderClass: %v, want not found", err)
		}
	})
	t.Run("a manifest without a kind says so", func(t *testing.T) {
		t.Parallel()
		if err := server.Apply(t.Context(), "apiVersion: v1\nmetadata: {name: x}"); err == nil {
			t.Error("Apply() = nil, want an error")
		}
	})
}

func start(t *testing.T) *apiserver.Server {
	t.Helper()
	builder, err := build.Here(os.Getenv, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	kube, err := builder.Server(t.Context(), build.Kube())
	if err != nil {
		t.Fatal(err)
	}
	server, err := apiserver.Start(t.Context(), apiserver.Config{Kube: kube, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// claims returns the claims of a token that matter, unverified.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Aud        []any  `json:"aud"`
		Iss        string `json:"iss"`
		Sub        string `json:"sub"`
		Kubernetes struct {
			Pod struct {
				UID string `json:"uid"`
			} `json:"pod"`
		} `json:"kubernetes.io"`
	}
	if err := json.Unmarshal(payload, &all); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"aud": all.Aud, "iss": all.Iss, "sub": all.Sub, "pod": all.Kubernetes.Pod.UID}
}
