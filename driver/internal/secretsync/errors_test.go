package secretsync_test

import (
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
	"github.com/postern-dev/postern/driver/internal/secretsync"
	"github.com/postern-dev/postern/internal/telemetry"
)

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

func TestSyncer_Metrics(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "test"})
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t)
	node := b.nodeWith(tel, "shop")
	pod := b.pod("web-0", "web")
	v := volume(pod, class(object("extra", "other")), "s3cret")
	b.sync(node, v)
	b.sync(node, unchanged(v))
	b.sync(node, volume(pod, edited(class(), func(*apiv1.SecretProviderClass) {}), "changed"))
	for outcome, count := range map[string]string{"created": "2", "unchanged": "2", "updated": "1", "deleted": "1"} {
		lines := metrics(t, tel, `postern_driver_secret_syncs_total{`)
		if !hasLine(lines, `outcome="`+outcome+`"`, `reason="OK"`, "} "+count+"\n") {
			t.Errorf("not %s %s:\n%s", count, outcome, lines)
		}
	}
	if lines := metrics(t, tel, "sync_k8s_secret_total{"); !hasLine(lines, `os_type="`+runtime.GOOS+`"`, `provider="vault"`, "} 3\n") {
		t.Errorf("not 3 written:\n%s", lines)
	}
	lines := metrics(t, tel, "k8s_secret_duration_sec")
	if !hasLine(lines, "_count{", "} 3\n") || !hasLine(lines, `_bucket{`, `le="120"`) {
		t.Errorf("not 3 durations, in buckets of up to two minutes:\n%s", lines)
	}
}

func hasLine(lines string, texts ...string) bool {
	for line := range strings.Lines(lines) {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			return true
		}
	}
	return false
}
