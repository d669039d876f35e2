package fetch_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// A refresh does not wait while its store asks to slow down: it is told for how
// long.
func TestRefresh_Throttled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{onFetch: throttling(1)}, nil)
		for i, want := range []time.Duration{10 * time.Second, 10 * time.Second, 6 * time.Second} {
			if i == 2 {
				<-time.After(4 * time.Second)
			}
			started := time.Now()
			w.wantError(t, refreshOf("a", interval), rpc.ReasonRateLimited)
			if took := time.Since(started); took != 0 {
				t.Fatalf("attempt %d: it took %v", i, took)
			}
			g := w.fetch(t.Context(), refreshOf("a", interval))
			if e := rpc.FromError(g.err); e == nil || e.RetryAfter != want {
				t.Errorf("attempt %d: got %+v, want to be told to come again in %v", i, g, want)
			}
		}
		w.wantCalls(t, 1)
		<-time.After(6 * time.Second)
		w.want(t, refreshOf("a", interval), "2", fromProvider)
	})
}

// throttling is a store that refuses the first calls.
func throttling(refused int) func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
	return func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
		if call <= refused {
			return nil, &rpc.Error{Reason: rpc.ReasonRateLimited, Message: "429", RetryAfter: 10 * time.Second}
		}
		return shared(fmt.Sprint(call)), nil
	}
}

// A mount has its patience, whoever began the call that it joins.
func TestRefresh_ThrottledMount(t *testing.T) {
	t.Parallel()
	for name, mountFirst := range map[string]bool{"joins": false, "is joined": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, &scripted{latency: time.Second, onFetch: throttling(1)}, nil)
				var pods sync.WaitGroup
				mounts := func() {
					for i := range 5 {
						pods.Go(func() {
							if g := w.fetch(t.Context(), pod(fmt.Sprint(i))); g.err != nil || g.content != "2" {
								t.Errorf("a mount got %+v", g)
							}
						})
					}
					synctest.Wait()
				}
				refreshes := func() {
					pods.Go(func() {
						g := w.fetch(t.Context(), refreshOf("refresh", interval))
						if mountFirst == (g.err != nil) {
							t.Errorf("the refresh got %+v", g)
						}
					})
					synctest.Wait()
				}
				started := time.Now()
				if mountFirst {
					mounts()
					refreshes()
				} else {
					refreshes()
					mounts()
				}
				pods.Wait()
				w.wantCalls(t, 2)
				if took := time.Since(started); took != 12*time.Second {
					t.Errorf("it took %v, want two calls and the store's pause", took)
				}
			})
		})
	}
}

// The same where the refresh waits for its turn as another call is told to slow
// down.
func TestRefresh_ThrottledMountInQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{latency: time.Second, onFetch: throttling(1)}, func(cfg *fetch.Config) {
			var err error
			if cfg.Budgets, err = budget.New(budget.Config{Default: budget.Limits{Calls: 4, StoreCalls: 1}, Meter: cfg.Meter}); err != nil {
				t.Fatal(err)
			}
		})
		var pods sync.WaitGroup
		for _, account := range []string{"other", "web"} {
			pods.Go(func() {
				req := refreshOf(account, interval)
				req.Pod.ServiceAccount.Name = account
				w.wantError(t, req, rpc.ReasonRateLimited)
			})
			synctest.Wait()
		}
		mount := pod("mount")
		mount.Pod.ServiceAccount.Name = "web"
		pods.Go(func() { w.want(t, mount, "2", fromProvider) })
		pods.Wait()
		w.wantCalls(t, 2)
	})
}
