package kube_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
)

const taintKey = "secrets-store.csi.k8s.io/agent-not-ready"

// node is one with these taints, as the API server shows it.
func node(taints ...any) map[string]any {
	return map[string]any{
		"metadata": map[string]any{"name": "n1"},
		"spec":     map[string]any{"podCIDR": "10.0.0.0/24", "taints": taints},
	}
}

func taint(key string) map[string]any {
	return map[string]any{"key": key, "effect": "NoSchedule", "unknown": "kept"}
}

func TestClient_RemoveNodeTaint(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		taints, want []any
		patches      int
	}{
		"among others": {[]any{taint("a"), taint(taintKey), taint("b")}, []any{taint("a"), taint("b")}, 1},
		"twice":        {[]any{taint(taintKey), taint(taintKey)}, []any{}, 1},
		"not there":    {[]any{taint("a")}, []any{taint("a")}, 0},
		"none at all":  {nil, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := kubetest.New()
			put(t, cluster, "nodes", "", node(test.taints...))
			client := newClient(t, cluster)
			has, err := client.HasNodeTaint(t.Context(), "n1", taintKey)
			if err != nil || has != (test.patches > 0) {
				t.Errorf("HasNodeTaint = %t, %v", has, err)
			}
			if err := client.RemoveNodeTaint(t.Context(), "n1", taintKey); err != nil {
				t.Fatal(err)
			}
			var got struct {
				Spec struct {
					PodCIDR string
					Taints  []any
				}
			}
			if ok, err := cluster.Get("nodes", "", "n1", &got); err != nil || !ok {
				t.Fatal(ok, err)
			}
			if diff := cmp.Diff(test.want, got.Spec.Taints); diff != "" {
				t.Errorf("taints (-want +got):\n%s", diff)
			}
			if got.Spec.PodCIDR == "" {
				t.Error("the rest of the node is gone")
			}
			if patches := strings.Count(strings.Join(cluster.Calls(), "\n"), "PATCH "); patches != test.patches {
				t.Errorf("%d patches, want %d", patches, test.patches)
			}
		})
	}
}

// Somebody else writes between the read and the patch: theirs must not be lost.
func TestClient_RemoveNodeTaint_Conflict(t *testing.T) {
	t.Parallel()
	cluster := kubetest.New()
	put(t, cluster, "nodes", "", node(taint(taintKey)))
	client := newClient(t, cluster)
	cluster.Intercept(func(r *http.Request) *metav1.Status {
		if r.Method == http.MethodPatch {
			put(t, cluster, "nodes", "", node(taint(taintKey), taint("theirs")))
		}
		return nil
	})
	if err := client.RemoveNodeTaint(t.Context(), "n1", taintKey); !apierrors.IsConflict(err) {
		t.Errorf("error = %v, want a conflict", err)
	}
	cluster.Intercept(nil)
	if has, err := client.HasNodeTaint(t.Context(), "n1", "theirs"); err != nil || !has {
		t.Errorf("the other's taint is there: %t, %v", has, err)
	}
}

func TestClient_NodeTaint_Fails(t *testing.T) {
	t.Parallel()
	cluster := kubetest.New()
	client := newClient(t, cluster)
	if _, err := client.HasNodeTaint(t.Context(), "gone", taintKey); !apierrors.IsNotFound(err) {
		t.Errorf("error = %v, want not-found", err)
	}
	put(t, cluster, "nodes", "", node(taint(taintKey)))
	cluster.Intercept(func(r *http.Request) *metav1.Status {
		if r.Method == http.MethodPatch {
			return kubetest.Status(http.StatusForbidden, metav1.StatusReasonForbidden, "no")
		}
		return nil
	})
	err := client.RemoveNodeTaint(t.Context(), "n1", taintKey)
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "patch node n1: the API server refuses it; check the driver's ClusterRole") {
		t.Errorf("error = %v, want what to check", err)
	}
}
