package fetch_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// refreshOf is a pod's request for what was fetched less than age ago.
func refreshOf(name string, age time.Duration) *gatewayv1.FetchRequest {
	req := pod(name)
	req.Refresh = true
	req.FetchedAfter = timestamppb.New(time.Now().Add(-age))
	req.RefreshInterval = durationpb.New(interval)
	return req
}

// How old an answer a refresh is served, by what it asks for and what the class
// and the provider say.
func TestRefresh_Kept(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		parameters map[string]string
		interval   time.Duration
		freshFor   time.Duration
		// demand is how new the answer has to be.
		demand time.Duration
		// want is how old it gets; 0 for no kept answer.
		want time.Duration
	}{
		{name: "by what it asks for", interval: interval, freshFor: time.Hour, demand: time.Minute, want: time.Minute},
		{name: "longer than maxAge and maxStale", interval: time.Hour, freshFor: 2 * time.Hour, demand: 50 * time.Minute, want: 50 * time.Minute},
		{name: "no longer than the interval", parameters: map[string]string{"maxStale": "0"}, interval: interval, freshFor: time.Hour, demand: time.Hour, want: interval},
		{name: "no longer than the provider says", parameters: map[string]string{"maxStale": "0"}, interval: interval, freshFor: 30 * time.Second, demand: time.Hour, want: 30 * time.Second},
		{name: "no interval", parameters: map[string]string{"maxStale": "0"}, freshFor: time.Hour, demand: time.Hour, want: 10 * time.Second},
		{name: "a day at most", interval: 1000 * time.Hour, freshFor: 1000 * time.Hour, demand: 1000 * time.Hour, want: 24 * time.Hour},
		{name: "no reuse", parameters: map[string]string{"maxAge": "0"}, interval: interval, freshFor: time.Hour, demand: time.Hour},
		{name: "no reuse but of stale ones", parameters: map[string]string{"maxAge": "0", "maxStale": "1h"}, interval: interval, freshFor: time.Hour, demand: time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, &scripted{onFetch: func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
					response := shared(fmt.Sprint(call))
					response.FreshFor = durationpb.New(tt.freshFor)
					return response, nil
				}}, nil)
				defer w.runCache(t)()
				ask := func(req *gatewayv1.FetchRequest, content string, source gatewayv1.Source) {
					t.Helper()
					for key, value := range tt.parameters {
						req.Parameters[key] = value
					}
					req.RefreshInterval = durationpb.New(tt.interval)
					w.want(t, req, content, source)
				}
				ask(pod("a"), "1", fromProvider)
				if tt.want > 0 {
					<-time.After(tt.want - 1)
					ask(refreshOf("b", tt.demand), "1", fromCache)
					<-time.After(1)
				} else {
					<-time.After(time.Second)
				}
				// What is of no use to anybody is not there any more.
				if tt.parameters["maxStale"] == "0" || tt.parameters["maxAge"] == "0" && tt.parameters["maxStale"] == "" {
					synctest.Wait()
					if n := w.cache.Stats().Entries; n != 0 {
						t.Errorf("%d answers are kept", n)
					}
				}
				ask(refreshOf("c", tt.demand), "2", fromProvider)
			})
		})
	}
}

// A mount is not served what is kept for refreshes only.
func TestRefresh_KeptIsNotForMounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, fail := failing()
		w := newWorld(t, p, nil)
		req := pod("a")
		req.RefreshInterval = durationpb.New(time.Hour)
		w.want(t, req, "1", fromProvider)
		<-time.After(11 * time.Minute)
		fail(rpc.ReasonStoreUnavailable)
		w.wantError(t, pod("b"), rpc.ReasonStoreUnavailable)
		w.want(t, refreshOf("c", time.Hour), "1", fromCache)
		fail("")
		w.want(t, pod("b"), "3", fromProvider)
	})
}

// While the store is down a fetch gets nothing older than it asks for, whether
// it is a refresh or not.
func TestRefresh_NoStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, fail := failing()
		w := newWorld(t, p, nil)
		w.want(t, pod("a"), "1", fromProvider)
		<-time.After(time.Minute)
		fail(rpc.ReasonStoreUnavailable)
		w.wantError(t, refreshOf("b", time.Minute), rpc.ReasonStoreUnavailable)
		mount := refreshOf("b", time.Minute)
		mount.Refresh = false
		w.wantError(t, mount, rpc.ReasonStoreUnavailable)
		w.want(t, pod("b"), "1", stale)
	})
}

// A refresh may find that its interval was made longer: what is kept is, from
// then on, kept longer too.
func TestRefresh_LongerInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{}, func(cfg *fetch.Config) { cfg.Reuse.MaxStale = 0 })
		w.want(t, refreshOf("a", time.Hour), "1", fromProvider)
		<-time.After(interval - 1)
		longer := refreshOf("b", time.Hour)
		longer.RefreshInterval = durationpb.New(time.Hour)
		w.want(t, longer, "1", fromCache)
		<-time.After(30 * time.Minute)
		w.want(t, refreshOf("a", time.Hour), "1", fromCache)
	})
}

// After a restart of the driver nothing is known of what volumes hold: they are
// served what is kept, with its contents, and the store is not asked again.
func TestRefresh_DriverRestarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{}, nil)
		w.want(t, refreshOf("a", interval), "1", fromProvider)
		<-time.After(interval / 2)
		for _, name := range []string{"a", "b", "c"} {
			w.want(t, refreshOf(name, interval), "1", fromCache)
			wantNotModified(t, w, refreshOf(name, interval), false)
		}
		w.wantCalls(t, 1)
	})
}

// A volume that holds what is kept is told so, and at what time.
func TestRefresh_NotModified(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{onFetch: func(int, *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			response := shared("1")
			response.Objects = append(response.Objects, &secretv1.ObjectVersion{Id: "user", Version: "7"})
			return response, nil
		}}, nil)
		w.want(t, pod("a"), "1", fromProvider)
		<-time.After(time.Minute)
		for _, current := range [][]*secretv1.ObjectVersion{
			{{Id: "password", Version: "1"}, {Id: "user", Version: "7"}},
			{{Id: "user", Version: "7"}, {Id: "password", Version: "1"}},
		} {
			req := refreshOf("b", interval)
			req.CurrentObjects = current
			wantNotModified(t, w, req, true)
		}
		for _, current := range [][]*secretv1.ObjectVersion{
			nil,
			{{Id: "password", Version: "1"}},
			{{Id: "password", Version: "1"}, {Id: "user", Version: "8"}},
			{{Id: "password", Version: "1"}, {Id: "other", Version: "7"}},
		} {
			req := refreshOf("b", interval)
			req.CurrentObjects = current
			wantNotModified(t, w, req, false)
		}
		w.wantCalls(t, 1)
	})
}

// An answer is as old as the call that brought it, not as its arrival.
func TestFetchedAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		confirms := false
		p := &scripted{latency: 3 * time.Second, onFetch: func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			response := shared(fmt.Sprint(call))
			if confirms {
				response.NotModified, response.Files, response.Objects = true, nil, nil
			}
			return response, nil
		}}
		w := newWorld(t, p, nil)
		w.instances.set("vault", nil)
		fetchedAt := func(name string) time.Duration {
			t.Helper()
			result, err := w.Fetch(t.Context(), refreshOf(name, 0))
			if err != nil {
				t.Fatal(err)
			}
			defer result.Answer.Release()
			return time.Since(result.Answer.FetchedAt())
		}
		time.AfterFunc(time.Minute, w.serve) // nothing is asked before
		if age := fetchedAt("a"); age != 3*time.Second {
			t.Errorf("a new answer is %v old, want a call's time", age)
		}
		confirms = true
		if age := fetchedAt("b"); age != 3*time.Second {
			t.Errorf("a confirmed answer is %v old, want a call's time", age)
		}
		w.wantCalls(t, 2)
	})
}

// Who joins a call that was made too early for it asks again, once for all of
// them. The others have what they came for.
func TestRefresh_JoinedTooOld(t *testing.T) {
	t.Parallel()
	for name, maxAge := range map[string]string{"reuse": "", "no reuse": "0"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, &scripted{latency: 10 * time.Second}, nil)
				var pods sync.WaitGroup
				var mu sync.Mutex
				count := map[string]int{}
				ask := func(req *gatewayv1.FetchRequest) {
					req.Parameters["maxAge"] = maxAge
					pods.Go(func() {
						g := w.fetch(t.Context(), req)
						mu.Lock()
						defer mu.Unlock()
						count[fmt.Sprint(req.GetRefresh(), g.content, g.source, g.err)]++
					})
				}
				ask(pod("leader"))
				<-time.After(5 * time.Second)
				for i := range 20 {
					ask(pod(fmt.Sprint("mount", i)))
					ask(refreshOf(fmt.Sprint("old enough", i), 6*time.Second))
					late := refreshOf(fmt.Sprint("too old", i), 4*time.Second)
					late.Refresh = false // to tell them apart
					ask(late)
				}
				pods.Wait()
				w.wantCalls(t, 2)
				want := map[string]int{
					fmt.Sprint(false, "1", fromProvider, nil): 1, fmt.Sprint(false, "1", joined, nil): 20, fmt.Sprint(true, "1", joined, nil): 20,
					fmt.Sprint(false, "2", fromProvider, nil): 1, fmt.Sprint(false, "2", joined, nil): 19,
				}
				for what, n := range want {
					if count[what] != n {
						t.Errorf("%q: %d times, want %d", what, count[what], n)
					}
				}
				if t.Failed() {
					t.Log(count)
				}
			})
		})
	}
}

// Requests that speak of the future, as after the clock was set back, cost a
// call for those that come together, and not one for each nor an endless loop.
func TestRefresh_Future(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{latency: time.Second}, nil)
		for round := range 3 {
			var pods sync.WaitGroup
			for i := range 50 {
				pods.Go(func() {
					<-time.After(time.Duration(i) * time.Microsecond)
					if g := w.fetch(t.Context(), refreshOf(fmt.Sprint(i), -time.Hour)); g.err != nil {
						t.Error(g.err)
					}
				})
			}
			pods.Wait()
			// One for the first, one for those that came while that was under way.
			w.wantCalls(t, 2*(round+1))
		}
	})
}

// No fetch is served what was asked for at or before the time that it names,
// whatever others ask for at the same time.
func TestRefresh_Property(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const latency = 800 * time.Millisecond
		start := time.Now()
		p := &scripted{latency: latency, onFetch: func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			if call%11 == 0 {
				return nil, failure(rpc.ReasonInternal)
			}
			askedAt := time.Since(start) - latency
			response := shared(strconv.FormatInt(int64(askedAt), 10))
			response.FreshFor = durationpb.New(5 * time.Second)
			if call%7 == 0 {
				response.Sharing = secretv1.Sharing_SHARING_POD
			}
			return response, nil
		}}
		w := newWorld(t, p, func(cfg *fetch.Config) { cfg.Reuse.MaxAge = time.Second })
		random := rand.New(rand.NewPCG(7, 8))
		var pods sync.WaitGroup
		var mu sync.Mutex
		served := map[gatewayv1.Source]int{}
		for i := range 2000 {
			age := time.Duration(1 + random.Int64N(int64(6*time.Second)))
			req := refreshOf(fmt.Sprint(i), age)
			req.Pod.ServiceAccount.Name = fmt.Sprint(random.IntN(2))
			after := time.Since(start) - age
			if random.IntN(5) == 0 {
				req.Refresh, req.FetchedAfter = false, nil
				after = -time.Hour
			}
			pods.Go(func() {
				g := w.fetch(t.Context(), req)
				if g.err != nil {
					return
				}
				askedAt, err := strconv.ParseInt(g.content, 10, 64)
				if err != nil || time.Duration(askedAt) <= after {
					t.Errorf("what was asked for at %v was served, want after %v: %v", time.Duration(askedAt), after, err)
				}
				mu.Lock()
				defer mu.Unlock()
				served[g.source]++
			})
			<-time.After(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
		}
		pods.Wait()
		t.Log(served)
		if served[joined] < 100 || served[fromCache] < 100 || served[fromProvider] < 100 {
			t.Errorf("sources: %v: too few of one kind to find anything", served)
		}
	})
}

// runCache has the cache drop what is due until the returned function is called.
func (w *world) runCache(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.cache.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A store that takes longer than a mount may wait for new answers, and whose
// answers are not served stale: they are kept for refreshes all the same.
func TestRefresh_SlowStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{latency: 3 * time.Second}, func(cfg *fetch.Config) {
			cfg.Reuse = fetch.Reuse{MaxAge: time.Second}
		})
		w.want(t, refreshOf("a", interval), "1", fromProvider)
		w.want(t, refreshOf("b", interval), "1", fromCache)
	})
}

// What only refreshes have a use for goes with the last volume that is
// refreshed. What new mounts have a use for stays.
func TestRefresh_LastVolumeGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{}, nil)
		defer w.runCache(t)()
		hourly := func(name, key string) *gatewayv1.FetchRequest {
			req := refreshOf(name, time.Hour)
			req.RefreshInterval = durationpb.New(time.Hour)
			req.Parameters["key"] = key
			return req
		}
		kept := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if got := w.cache.Stats().Entries; got != want {
				t.Errorf("%s: %d answers are kept, want %d", when, got, want)
			}
		}
		w.want(t, hourly("a", "one"), "1", fromProvider)
		w.want(t, hourly("b", "one"), "1", fromCache)
		<-time.After(15 * time.Minute)
		w.want(t, hourly("b", "one"), "1", fromCache)
		w.Release(t.Context(), "csi-a")
		kept("the other volume is there", 1)
		w.want(t, hourly("b", "two"), "2", fromProvider)
		kept("its class was edited", 1)
		<-time.After(5 * time.Minute)
		w.Release(t.Context(), "csi-b")
		<-time.After(5*time.Minute - 1)
		kept("a pod may be replaced", 1)
		<-time.After(1)
		kept("10 minutes are over", 0)
	})
}
