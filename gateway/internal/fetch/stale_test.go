package fetch_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// failing is a provider that answers until it is told to fail.
func failing() (p *scripted, fail func(reason string)) {
	reason := ""
	p = &scripted{onFetch: func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
		if reason != "" {
			return nil, failure(reason)
		}
		return shared(fmt.Sprint(call)), nil
	}}
	return p, func(r string) { reason = r }
}

// For which failures a new mount gets the last good answer, and which ones drop
// it.
func TestStale_ByReason(t *testing.T) {
	t.Parallel()
	tests := []struct {
		reason         string
		stale, dropped bool
	}{
		{rpc.ReasonStoreUnavailable, true, false},
		{rpc.ReasonProviderUnavailable, true, false},
		{rpc.ReasonDeadlineExceeded, true, false},
		{rpc.ReasonRateLimited, true, false},
		{rpc.ReasonBudgetExhausted, true, false},
		{rpc.ReasonAccessDenied, false, true},
		{rpc.ReasonObjectNotFound, false, true},
		{rpc.ReasonLoginFailed, false, true},
		{rpc.ReasonInvalidParameters, false, false},
		{rpc.ReasonInvalidResponse, false, false},
		{rpc.ReasonInternal, false, false},
		{"SOMETHING_NEW", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, fail := failing()
				w := newWorld(t, p, nil)
				w.want(t, pod("a"), "1", fromProvider)
				<-time.After(time.Minute)
				fail(tt.reason)
				if tt.stale {
					w.want(t, pod("b"), "1", stale)
				} else {
					w.wantError(t, pod("b"), tt.reason)
				}
				// Is anything left when the store is down after that?
				<-time.After(time.Minute)
				fail(rpc.ReasonStoreUnavailable)
				if tt.dropped {
					w.wantError(t, pod("c"), rpc.ReasonStoreUnavailable)
				} else {
					w.want(t, pod("c"), "1", stale)
				}
				// A volume that is mounted has an answer already.
				refresh := pod("a")
				refresh.Refresh = true
				w.wantError(t, refresh, rpc.ReasonStoreUnavailable)
			})
		})
	}
}

func TestStale_Age(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		parameters map[string]string
		// want is how old the answer gets; 0 for no stale answer at all.
		want time.Duration
	}{
		{"default", nil, 10 * time.Minute},
		{"class", map[string]string{"maxStale": "1h"}, time.Hour},
		{"class: shorter", map[string]string{"maxStale": "1m"}, time.Minute},
		{"class: off", map[string]string{"maxStale": "0s"}, 0},
		{"no reuse at all", map[string]string{"maxAge": "0"}, 0},
		{"only when the store is down", map[string]string{"maxAge": "0", "maxStale": "5m"}, 5 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, fail := failing()
				w := newWorld(t, p, nil)
				req := func(name string) *gatewayv1.FetchRequest {
					r := pod(name)
					for key, value := range tt.parameters {
						r.Parameters[key] = value
					}
					return r
				}
				w.want(t, req("a"), "1", fromProvider)
				fail(rpc.ReasonStoreUnavailable)
				if tt.want > 0 {
					<-time.After(tt.want - 1)
					w.want(t, req("b"), "1", stale)
					<-time.After(1)
				} else {
					<-time.After(11 * time.Second)
				}
				w.wantError(t, req("c"), rpc.ReasonStoreUnavailable)
			})
		})
	}
}

// A class that is changed goes by what it says now, whatever it said when the
// answer came.
func TestStale_ClassIsChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, fail := failing()
		w := newWorld(t, p, nil)
		patient, strict := pod("a"), pod("b")
		patient.Parameters["maxStale"] = "1h"
		strict.Parameters["maxStale"] = "1m"
		w.want(t, patient, "1", fromProvider)
		fail(rpc.ReasonStoreUnavailable)
		<-time.After(30 * time.Second)
		w.want(t, strict, "1", stale)
		<-time.After(30 * time.Second)
		w.wantError(t, strict, rpc.ReasonStoreUnavailable)
		w.want(t, patient, "1", stale)
	})
}

// What a provider lets nobody have again is not kept for bad times either.
func TestStale_Private(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*providerv1.FetchResponse){
		"pod":       func(r *providerv1.FetchResponse) { r.Sharing = secretv1.Sharing_SHARING_POD },
		"not again": func(r *providerv1.FetchResponse) { r.FreshFor = nil },
		"lease": func(r *providerv1.FetchResponse) {
			r.Leases = []*secretv1.Lease{{ObjectId: "password", Duration: durationpb.New(time.Hour)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &scripted{onFetch: func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
					if call > 1 {
						return nil, failure(rpc.ReasonStoreUnavailable)
					}
					r := shared("1")
					change(r)
					return r, nil
				}}
				w := newWorld(t, p, nil)
				w.want(t, pod("a"), "1", fromProvider)
				w.wantError(t, pod("a"), rpc.ReasonStoreUnavailable)
				if got := w.cache.Stats().Entries; got != 0 {
					t.Errorf("%d answers are kept", got)
				}
			})
		})
	}
}

// A provider that is away is waited for only so long where there is something
// to fall back to.
func TestStale_ProviderAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{}, nil)
		w.want(t, pod("a"), "1", fromProvider)
		w.instances.set("vault", nil)
		<-time.After(5 * time.Second)
		w.want(t, pod("b"), "1", fromCache)
		<-time.After(time.Minute)
		started := time.Now()
		w.want(t, pod("c"), "1", stale)
		if took := time.Since(started); took > 30*time.Second {
			t.Errorf("it took %v", took)
		}
		// Another class has nothing: it waits for as long as it can.
		other := pod("d")
		other.SecretProviderClass = "other"
		started = time.Now()
		w.wantError(t, other, rpc.ReasonProviderUnavailable)
		if took := time.Since(started); took < 115*time.Second {
			t.Errorf("it gave up after %v", took)
		}
	})
}

// A store that hangs costs a call's time at first, and nothing once it is known.
func TestStale_StoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{}
		w := newWorld(t, p, nil)
		w.want(t, pod("a"), "1", fromProvider)
		p.latency = time.Hour
		<-time.After(time.Minute)
		for i := range 5 {
			started := time.Now()
			w.want(t, pod(fmt.Sprint(i)), "1", stale)
			if took := time.Since(started); took != 30*time.Second {
				t.Errorf("mount %d took %v, want a call's time", i, took)
			}
		}
		started := time.Now()
		w.want(t, pod("b"), "1", stale)
		if took := time.Since(started); took != 0 {
			t.Errorf("with the breaker open it took %v", took)
		}
	})
}

// A provider is asked whether what is kept is still current, and says so without
// its content.
func TestNotModified(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		version, confirmed := "1", 0
		p := &scripted{onFetch: func(_ int, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			if current := req.GetCurrentObjects(); len(current) == 1 && current[0].GetVersion() == version {
				confirmed++
				return &providerv1.FetchResponse{
					NotModified: true, Sharing: secretv1.Sharing_SHARING_SERVICE_ACCOUNT, FreshFor: durationpb.New(time.Hour),
				}, nil
			}
			return shared(version), nil
		}}
		w := newWorld(t, p, nil)
		w.want(t, pod("a"), "1", fromProvider)
		for range 3 { // each confirms the one before
			<-time.After(time.Minute)
			w.want(t, pod("new"), "1", fromProvider)
			w.want(t, pod("newer"), "1", fromCache)
		}
		w.wantCalls(t, 4)
		if confirmed != 3 {
			t.Errorf("%d answers were confirmed, want 3", confirmed)
		}

		refresh := pod("a")
		refresh.Refresh, refresh.CurrentObjects = true, []*secretv1.ObjectVersion{{Id: "password", Version: "1"}}
		wantNotModified(t, w, refresh, true)
		version = "2"
		<-time.After(time.Minute)
		wantNotModified(t, w, refresh, false)
		w.want(t, pod("b"), "2", fromCache)
	})
}

func wantNotModified(t *testing.T, w *world, req *gatewayv1.FetchRequest, want bool) {
	t.Helper()
	result, err := w.Fetch(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer result.Answer.Release()
	if result.NotModified != want {
		t.Errorf("not modified: %t, want %t", result.NotModified, want)
	}
}
