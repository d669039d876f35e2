package publish_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/publish"
	"github.com/postern-dev/postern/driver/internal/spc"
	"github.com/postern-dev/postern/internal/rpc"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPublish_MountsWhatTheGatewayGives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cluster.annotations = map[string]string{annotation: "arn:role", "other": "not asked for"}
	w.cluster.labels = map[string]string{"topology.kubernetes.io/region": "eu-west-1"}
	w.gateway.description = &providerv1.DescribeResponse{
		ServiceAccountAnnotations: []string{annotation},
		NodeLabels:                []string{"topology.kubernetes.io/region"},
	}
	if err := w.publisher(t).Publish(t.Context(), request(t, nil)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"password": "-rw-r----- " + canary}, w.volumes.at(target)); diff != "" {
		t.Errorf("mounted (-want +got):\n%s", diff)
	}
	fetched := w.gateway.fetches()[0]
	if got := fetched.GetPod().GetServiceAccount(); got.GetName() != "web-sa" || len(got.GetAnnotations()) != 1 || got.GetAnnotations()[annotation] != "arn:role" {
		t.Errorf("service account: %v", got)
	}
	if got := fetched.GetNode(); got.GetName() != "node-1" || got.GetLabels()["topology.kubernetes.io/region"] != "eu-west-1" {
		t.Errorf("node: %v", got)
	}
	if got := fetched.GetTokens(); len(got) != 1 || got[0].GetAudience() != "vault" || got[0].GetToken() != canary {
		t.Errorf("tokens: %v", got)
	}
	want := []podstatus.Status{{
		Pod:                 podstatus.Pod{Namespace: "shop", Name: "web", UID: "uid-1"},
		SecretProviderClass: "database", VolumeID: "csi-1", TargetPath: target,
		Objects:     []podstatus.Object{{ID: "password", Version: "1"}},
		LastRefresh: w.recorder.statuses[0].LastRefresh,
	}}
	if since := time.Since(w.recorder.statuses[0].LastRefresh); since < 0 || since > time.Hour {
		t.Errorf("last refresh was %v ago", since)
	}
	if diff := cmp.Diff(want, w.recorder.statuses); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestPublish_IsIdempotent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.publisher(t)
	for range 2 {
		if err := p.Publish(t.Context(), request(t, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(w.gateway.fetches()); got != 1 {
		t.Errorf("a mounted volume was fetched again: %d fetches", got)
	}
}

func TestPublish_Failures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		change  func(*world)
		code    codes.Code
		reason  string
		message string
	}{
		{
			name:    "no such class",
			change:  func(w *world) { w.classes.remove() },
			code:    codes.NotFound,
			reason:  rpc.ReasonSecretProviderClassNotFound,
			message: "failed to get secretproviderclass shop/database: no such SecretProviderClass: create it in the pod's namespace",
		},
		{
			name:    "class may not be read",
			change:  func(w *world) { w.config.SecretProviderClasses = failingClasses{spc.ErrForbidden} },
			code:    codes.PermissionDenied,
			message: "failed to get secretproviderclass shop/database: the driver may not read SecretProviderClasses",
		},
		{
			name:    "API server away",
			change:  func(w *world) { w.config.SecretProviderClasses = failingClasses{spc.ErrUnavailable} },
			code:    codes.Unavailable,
			message: "failed to get secretproviderclass shop/database: the source of SecretProviderClasses is not available",
		},
		{
			name:    "class without provider",
			change:  func(w *world) { w.classes.change(func(class *apiv1.SecretProviderClass) { class.Spec.Provider = "" }) },
			code:    codes.InvalidArgument,
			reason:  rpc.ReasonInvalidParameters,
			message: "secretproviderclass shop/database: provider is not set: name the provider, such as vault",
		},
		{
			name: "class without parameters",
			change: func(w *world) {
				w.classes.change(func(class *apiv1.SecretProviderClass) { class.Spec.Parameters = nil })
			},
			code:    codes.InvalidArgument,
			reason:  rpc.ReasonInvalidParameters,
			message: "secretproviderclass shop/database: parameters are not set: the provider needs to know what to fetch",
		},
		{
			name: "provider refuses",
			change: func(w *world) {
				w.gateway.err = &rpc.Error{Reason: rpc.ReasonAccessDenied, Code: codes.PermissionDenied, Message: `provider "vault": denied`}
			},
			code:    codes.PermissionDenied,
			reason:  rpc.ReasonAccessDenied,
			message: `failed to mount secrets store objects for pod shop/web, secretproviderclass database: provider "vault": denied`,
		},
		{
			name:    "volume cannot be written",
			change:  func(w *world) { w.volumes.err = errors.New("no space left") },
			code:    codes.Internal,
			reason:  rpc.ReasonMountFailed,
			message: "failed to put the volume at " + target + ": no space left",
		},
		{
			name: "service account cannot be read",
			change: func(w *world) {
				w.gateway.description = &providerv1.DescribeResponse{ServiceAccountAnnotations: []string{annotation}}
				w.cluster.err = errors.New("connection refused")
			},
			code:    codes.Unavailable,
			message: "failed to read the annotations of the pod's service account: connection refused",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			test.change(w)
			err := w.publisher(t).Publish(t.Context(), request(t, nil))
			if got := status.Code(err); got != test.code {
				t.Errorf("code %v, want %v", got, test.code)
			}
			failure := rpc.FromError(err)
			if failure == nil {
				t.Fatal("no failure")
			}
			if failure.Reason != test.reason || failure.Message != test.message {
				t.Errorf("got  %s %q\nwant %s %q", failure.Reason, failure.Message, test.reason, test.message)
			}
			if w.volumes.at(target) != nil {
				t.Error("something is mounted")
			}
			events := w.recorder.warnings()
			if len(events) != 1 || events[0].Reason != podstatus.ReasonMountFailed || events[0].Message != test.message {
				t.Errorf("events: %+v", events)
			}
		})
	}
}

func TestPublish_AttributesOverrideOnlyWhereAllowed(t *testing.T) {
	t.Parallel()
	for _, allowed := range []bool{false, true} {
		w := newWorld(t)
		w.config.AllowParameterOverrides = allowed
		r := request(t, func(volumeContext, _ map[string]string) { volumeContext["roleName"] = "admin" })
		if err := w.publisher(t).Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		want, warnings := "shop", 1
		if allowed {
			want, warnings = "admin", 0
		}
		if got := w.gateway.fetches()[0].GetParameters()["roleName"]; got != want {
			t.Errorf("allowed %v: roleName %q, want %q", allowed, got, want)
		}
		if got := w.classes.byName["shop/database"].Spec.Parameters["roleName"]; got != "shop" {
			t.Errorf("the class itself was changed: %q", got)
		}
		events := w.recorder.warnings()
		if len(events) != warnings {
			t.Errorf("allowed %v: events %+v", allowed, events)
		}
		if warnings == 1 && (events[0].Reason != podstatus.ReasonAttributesIgnored || !strings.Contains(events[0].Message, `["roleName"]`)) {
			t.Errorf("event: %+v", events[0])
		}
	}
}

func TestPublish_WaitIsToldAndEndsInTime(t *testing.T) {
	t.Parallel()
	for _, connected := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.gateway.connected, w.gateway.block = connected, make(chan struct{})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			started := time.Now()
			err := w.publisher(t).Publish(ctx, request(t, nil))
			if took := time.Since(started); took != 2*time.Minute-time.Second {
				t.Errorf("answered after %v, want a second before the deadline", took)
			}
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("error: %v", err)
			}
			want := podstatus.ReasonWaitingForGateway
			if connected {
				want = podstatus.ReasonWaitingForProvider
			}
			if events := w.recorder.warnings(); len(events) != 2 || events[0].Reason != want {
				t.Errorf("events: %+v", events)
			}
		})
	}
}

func TestPublish_ShortWaitIsNotTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.gateway.block = make(chan struct{})
		time.AfterFunc(4*time.Second, func() { close(w.gateway.block) })
		if err := w.publisher(t).Publish(t.Context(), request(t, nil)); err != nil {
			t.Fatal(err)
		}
		if events := w.recorder.warnings(); len(events) != 0 {
			t.Errorf("events: %+v", events)
		}
	})
}

func TestPublish_GivesUpWhenThePodIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.gateway.block, w.cluster.podGone = make(chan struct{}), true
		started := time.Now()
		err := w.publisher(t).Publish(t.Context(), request(t, nil))
		if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "pod shop/web is gone") {
			t.Errorf("error: %v", err)
		}
		if took := time.Since(started); took != 15*time.Second {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestUnpublish_ReleasesAtTheGateway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		// The gateway is away for the first two attempts.
		w.gateway.releaseErrs = []error{errors.New("away"), errors.New("away")}
		p := w.publisher(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = p.Run(ctx) }()
		if err := p.Publish(ctx, request(t, nil)); err != nil {
			t.Fatal(err)
		}
		if err := p.Unpublish(ctx, "csi-1", target); err != nil {
			t.Fatal(err)
		}
		if w.volumes.at(target) != nil {
			t.Error("still mounted")
		}
		<-time.After(time.Minute)
		if got := w.gateway.releases(); len(got) != 3 {
			t.Errorf("released %v, want three attempts", got)
		}
		if diff := cmp.Diff([]string{"csi-1"}, w.recorder.forgot); diff != "" {
			t.Error(diff)
		}
	})
}

func TestUnpublish_ThenPublishAgainIsNotReleased(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.publisher(t)
		if err := p.Unpublish(t.Context(), "csi-1", target); err != nil {
			t.Fatal(err)
		}
		if err := p.Publish(t.Context(), request(t, nil)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := w.gateway.releases(); len(got) != 0 {
			t.Errorf("a volume in use was released: %v", got)
		}
	})
}

func TestUnpublish_Failure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.volumes.err = errors.New("target is busy")
	err := w.publisher(t).Unpublish(t.Context(), "csi-1", target)
	if status.Code(err) != codes.Internal || err.Error() != "failed to clean and unmount target path "+target+": target is busy" {
		t.Errorf("error: %v", err)
	}
}

func TestPublish_OneCallPerTarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.gateway.block = make(chan struct{})
		p := w.publisher(t)
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- p.Publish(t.Context(), request(t, nil)) }()
		}
		synctest.Wait()
		if got := len(w.gateway.fetches()); got != 1 {
			t.Fatalf("%d fetches at once", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Unpublish(ctx, "csi-1", target); status.Code(err) != codes.Aborted {
			t.Errorf("unpublish during a publish: %v", err)
		}
		close(w.gateway.block)
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if got := len(w.gateway.fetches()); got != 1 {
			t.Errorf("%d fetches, want the second call to find the volume", got)
		}
	})
}

func TestNew_SaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := publish.New(publish.Config{}); err == nil || err.Error() != "publisher needs a source of SecretProviderClasses" {
		t.Errorf("error: %v", err)
	}
}
