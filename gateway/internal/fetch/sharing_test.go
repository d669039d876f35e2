package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// A full node that starts at once asks the store once for each identity.
func TestSharing_Storm(t *testing.T) {
	t.Parallel()
	for _, accounts := range []int{1, 2, 5} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, &scripted{latency: 50 * time.Millisecond}, nil)
			started := time.Now()
			var pods sync.WaitGroup
			sources := make([]gatewayv1.Source, 110)
			for i := range sources {
				pods.Go(func() {
					req := pod(fmt.Sprint(i))
					req.Pod.ServiceAccount.Name = fmt.Sprint(i % accounts)
					g := w.fetch(t.Context(), req)
					if g.err != nil {
						t.Error(g.err)
					}
					sources[i] = g.source
				})
			}
			pods.Wait()
			w.wantCalls(t, accounts)
			if took := time.Since(started); took != 50*time.Millisecond {
				t.Errorf("it took %v, want one call's time", took)
			}
			count := map[gatewayv1.Source]int{}
			for _, source := range sources {
				count[source]++
			}
			if count[fromProvider] != accounts || count[fromProvider]+count[joined]+count[fromCache] != len(sources) {
				t.Errorf("sources: %v", count)
			}
			counts := w.Counts()
			if counts.Misses != uint64(accounts) || counts.Joins+counts.Hits != uint64(110-accounts) {
				t.Errorf("counts: %+v", counts)
			}
		})
	}
}

// How long an answer is served again, by what the class and the provider say.
func TestSharing_MaxAge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		parameters map[string]string
		change     func(*providerv1.FetchResponse)
		// want is for how long; 0 for not at all.
		want time.Duration
	}{
		{"default", nil, nil, 10 * time.Second},
		{"class: longer", map[string]string{"maxAge": "1m"}, nil, time.Minute},
		{"class: shorter", map[string]string{"maxAge": "1s"}, nil, time.Second},
		{"class: off", map[string]string{"maxAge": "0"}, nil, 0},
		{"class: empty", map[string]string{"maxAge": ""}, nil, 10 * time.Second},
		{"namespace", nil, func(r *providerv1.FetchResponse) { r.Sharing = secretv1.Sharing_SHARING_NAMESPACE }, 10 * time.Second},
		{"provider: shorter", nil, func(r *providerv1.FetchResponse) { r.FreshFor = durationpb.New(3 * time.Second) }, 3 * time.Second},
		{"provider: shorter than the class", map[string]string{"maxAge": "1m"}, func(r *providerv1.FetchResponse) { r.FreshFor = durationpb.New(3 * time.Second) }, 3 * time.Second},
		{"provider: not again", nil, func(r *providerv1.FetchResponse) { r.FreshFor = nil }, 0},
		{"provider: says nothing", nil, func(r *providerv1.FetchResponse) { r.Sharing = secretv1.Sharing_SHARING_UNSPECIFIED }, 0},
		{"provider: this pod", nil, func(r *providerv1.FetchResponse) { r.Sharing = secretv1.Sharing_SHARING_POD }, 0},
		{"provider: something newer", nil, func(r *providerv1.FetchResponse) { r.Sharing = 77 }, 0},
		{"a lease", nil, func(r *providerv1.FetchResponse) { r.Leases = []*secretv1.Lease{{ObjectId: "password"}} }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &scripted{onFetch: func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
					r := shared(fmt.Sprint(call))
					if tt.change != nil {
						tt.change(r)
					}
					return r, nil
				}}
				w := newWorld(t, p, nil)
				req := func(name string) *gatewayv1.FetchRequest {
					r := pod(name)
					for key, value := range tt.parameters {
						r.Parameters[key] = value
					}
					return r
				}
				w.want(t, req("a"), "1", fromProvider)
				calls := 1
				if tt.want > 0 {
					<-time.After(tt.want - 1)
					w.want(t, req("b"), "1", fromCache)
					<-time.After(1)
				}
				calls++
				w.want(t, req("c"), fmt.Sprint(calls), fromProvider)
				w.wantCalls(t, calls)
				for _, call := range p.requests() {
					if _, ok := call.GetParameters()["maxAge"]; ok {
						t.Error("the provider sees a parameter of the gateway")
					}
				}
			})
		})
	}
}

func TestSharing_BadParameters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, &scripted{}, nil)
	for _, name := range []string{"maxAge", "maxStale"} {
		for _, value := range []string{"10", "-1s", "soon", "25h", "1e9s"} {
			req := pod("a")
			req.Parameters[name] = value
			g := w.fetch(t.Context(), req)
			e := rpc.FromError(g.err)
			if e == nil || e.Reason != rpc.ReasonInvalidParameters || len(e.FieldViolations) != 1 || e.FieldViolations[0].Field != "parameters."+name {
				t.Errorf("%s: %s: got %v", name, value, g.err)
			}
		}
	}
	w.wantCalls(t, 0)
}

// Followers of a fetch whose answer is another pod's own get one of their own,
// and the next ones do not wait.
func TestSharing_FollowerNotShareable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{latency: time.Second, onFetch: func(_ int, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			r := shared("for " + req.GetPod().GetName())
			r.Sharing = secretv1.Sharing_SHARING_POD
			return r, nil
		}}
		w := newWorld(t, p, nil)
		round := func() time.Duration {
			started := time.Now()
			var pods sync.WaitGroup
			for i := range 10 {
				pods.Go(func() {
					name := fmt.Sprint(i)
					w.want(t, pod(name), "for "+name, fromProvider)
				})
			}
			pods.Wait()
			return time.Since(started)
		}
		if took := round(); took != 2*time.Second {
			t.Errorf("the first round took %v, want two calls' time", took)
		}
		w.wantCalls(t, 10)
		if took := round(); took != time.Second {
			t.Errorf("the second round took %v, want one call's time", took)
		}
		w.wantCalls(t, 20)
	})
}

// What was private may become shareable, with an upgrade of the provider.
func TestSharing_PrivateNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{onFetch: func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			r := shared(fmt.Sprint(call))
			if call == 1 {
				r.Sharing = secretv1.Sharing_SHARING_POD
			}
			return r, nil
		}}
		w := newWorld(t, p, nil)
		w.want(t, pod("a"), "1", fromProvider)
		w.want(t, pod("a"), "2", fromProvider)
		w.want(t, pod("b"), "2", fromCache)
	})
}

// A pod that was deleted takes its token with it, but not the fetch of those who
// had joined. A class that nobody may have is asked for by each pod that mounts.
func TestSharing_LoginRefused(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{rpc.ReasonLoginFailed, rpc.ReasonTokenInvalid} {
		for _, tt := range []struct {
			want        string
			onlyDeleted bool
			refresh     bool
			calls       int
		}{
			{"", true, false, 2},
			{reason, false, false, 21},
			{reason, false, true, 2},
		} {
			want, onlyDeleted := tt.want, tt.onlyDeleted
			synctest.Test(t, func(t *testing.T) {
				p := &scripted{latency: time.Second, onFetch: func(_ int, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
					if onlyDeleted && req.GetPod().GetName() != "deleted" {
						return shared("content"), nil
					}
					return nil, failure(reason)
				}}
				w := newWorld(t, p, nil)
				leader := make(chan error, 1)
				go func() { leader <- w.fetch(t.Context(), pod("deleted")).err }()
				synctest.Wait()
				var pods sync.WaitGroup
				for i := range 20 {
					pods.Go(func() {
						req := pod(fmt.Sprint(i))
						req.Refresh = tt.refresh
						if got := w.fetch(t.Context(), req); reasonOf(got.err) != want {
							t.Errorf("pod %d: %v, want %q", i, got.err, want)
						}
					})
				}
				pods.Wait()
				if err := <-leader; reasonOf(err) != reason {
					t.Errorf("the deleted pod: %v", err)
				}
				w.wantCalls(t, tt.calls)
			})
		}
	}
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return rpc.FromError(err).Reason
}

// Whoever asked first may go: the others get the answer all the same.
func TestSharing_LeaderCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{latency: time.Second}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var pods sync.WaitGroup
		pods.Go(func() {
			if g := w.fetch(ctx, pod("leader")); !errors.Is(g.err, context.Canceled) {
				t.Errorf("the leader got %+v", g)
			}
		})
		synctest.Wait()
		pods.Go(func() { w.want(t, pod("follower"), "1", joined) })
		synctest.Wait()
		cancel()
		pods.Wait()
		w.wantCalls(t, 1)
		if p := w.provider.cancellations(); p != 0 {
			t.Errorf("%d calls were cancelled", p)
		}
	})
}

// A follower that goes changes nothing for the others.
func TestSharing_CancelOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{latency: time.Second}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var pods sync.WaitGroup
		pods.Go(func() { w.want(t, pod("leader"), "1", fromProvider) })
		synctest.Wait()
		pods.Go(func() {
			started := time.Now()
			if g := w.fetch(ctx, pod("follower")); !errors.Is(g.err, context.Canceled) || time.Since(started) != 0 {
				t.Errorf("the follower got %+v after %v", g, time.Since(started))
			}
		})
		synctest.Wait()
		cancel()
		pods.Wait()
		w.wantCalls(t, 1)
	})
}

// When the last one has gone the call is cancelled, and the next one begins anew.
func TestSharing_CancelLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{latency: time.Second}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var pods sync.WaitGroup
		for i := range 3 {
			pods.Go(func() {
				if g := w.fetch(ctx, pod(fmt.Sprint(i))); !errors.Is(g.err, context.Canceled) {
					t.Errorf("got %+v", g)
				}
			})
		}
		synctest.Wait()
		if got := len(w.Flights()); got != 1 || w.Flights()[0].Waiters != 3 {
			t.Errorf("flights: %+v", w.Flights())
		}
		cancel()
		pods.Wait()
		w.want(t, pod("next"), "2", fromProvider)
		w.Wait()
		if p := w.provider.cancellations(); p != 1 {
			t.Errorf("%d calls were cancelled, want 1", p)
		}
		if got := w.Flights(); len(got) != 0 {
			t.Errorf("flights: %+v", got)
		}
	})
}

// A follower with more time than the one who asked first asks again.
func TestSharing_LeaderOutOfTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{latency: 20 * time.Second}, nil)
		var pods sync.WaitGroup
		pods.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if g := w.fetch(ctx, pod("leader")); rpc.FromError(g.err).Reason != rpc.ReasonDeadlineExceeded {
				t.Errorf("the leader got %+v", g)
			}
		})
		synctest.Wait()
		pods.Go(func() { w.want(t, pod("follower"), "2", fromProvider) })
		pods.Wait()
	})
}

// The provider's process ends under the call, and another one answers.
func TestSharing_ProviderReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		next := &scripted{description: &providerv1.DescribeResponse{}}
		var w *world
		old := &scripted{latency: time.Second, onFetch: func(int, *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			w.instances.set("vault", &registry.Handle{Provider: next, Description: next.description, ID: 2, ProviderName: "vault"})
			return nil, notSent()
		}}
		w = newWorld(t, old, nil)
		var pods sync.WaitGroup
		for i := range 5 {
			pods.Go(func() {
				if g := w.fetch(t.Context(), pod(fmt.Sprint(i))); g.err != nil || g.content != "1" {
					t.Errorf("got %+v", g)
				}
			})
		}
		pods.Wait()
		if got := len(next.requests()); got != 1 {
			t.Errorf("the new instance was called %d times, want once", got)
		}
	})
}

// Nothing is shared of a provider that cannot say what may be, and nobody waits
// for another's call, unless the operator says so.
func TestSharing_Legacy(t *testing.T) {
	t.Parallel()
	for name, calls := range map[string]int{"other": 20, "vault": 1} {
		synctest.Test(t, func(t *testing.T) {
			p := &scripted{latency: time.Second, onFetch: func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
				return providertest.Answer(fmt.Sprint(call)), nil
			}}
			w := newWorld(t, p, func(cfg *fetch.Config) { cfg.LegacySharing = []string{"another", name} })
			w.instances.set("vault", &registry.Handle{Provider: p, ProviderName: "vault", Protocol: registry.Legacy})
			started := time.Now()
			var pods sync.WaitGroup
			for i := range 20 {
				req := pod(fmt.Sprint(i))
				req.SecretProviderClass = "db"
				pods.Go(func() {
					if g := w.fetch(t.Context(), req); g.err != nil {
						t.Error(g.err)
					}
				})
			}
			pods.Wait()
			w.wantCalls(t, calls)
			// A store takes 12 calls at a time, so 20 take two rounds.
			if took := time.Since(started); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// Whoever looks at what is kept just before an answer comes, and at the flights
// just after it, does not ask again.
func TestSharing_NoGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, &scripted{}, nil)
	const rounds, callers = 300, 16
	for round := range rounds {
		var pods sync.WaitGroup
		for i := range callers {
			req := pod(fmt.Sprint(i))
			req.SecretProviderClass = fmt.Sprint(round)
			pods.Go(func() {
				if g := w.fetch(t.Context(), req); g.err != nil {
					t.Error(g.err)
				}
			})
		}
		pods.Wait()
	}
	w.wantCalls(t, rounds)
}

// What was served from memory is not a provider's to release.
func TestSharing_Release(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{}, nil)
		w.want(t, pod("a"), "1", fromProvider)
		w.want(t, pod("b"), "1", fromCache)
		w.Release(t.Context(), "csi-b")
		if got := w.provider.released; len(got) != 0 {
			t.Errorf("the provider was told of %v", got)
		}
		w.Release(t.Context(), "csi-a")
		if got := w.provider.released; len(got) != 1 || got[0] != "csi-a" {
			t.Errorf("the provider was told of %v", got)
		}
	})
}

// Random pods that ask at random get what their own identity and class say, and
// nothing that was fetched for another.
func TestSharing_Property(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{latency: time.Second, onFetch: func(call int, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			r := shared(identity(req))
			if call%7 == 0 {
				r.Sharing = secretv1.Sharing_SHARING_POD
			}
			return r, nil
		}}
		w := newWorld(t, p, nil)
		random := rand.New(rand.NewPCG(3, 4))
		pick := func() string { return []string{"a", "ab"}[random.IntN(2)] }
		var pods sync.WaitGroup
		served := map[gatewayv1.Source]int{}
		var mu sync.Mutex
		for i := range 3000 {
			req := pod(fmt.Sprint(i))
			req.Pod.Namespace, req.Pod.ServiceAccount.Name, req.SecretProviderClass = pick(), pick(), pick()
			req.Parameters = map[string]string{"role": pick(), "x": pick()}
			req.Secrets = map[string]string{"id": pick()}
			pods.Go(func() {
				g := w.fetch(t.Context(), req)
				if g.err != nil || g.content != identity(req) {
					t.Errorf("%q got %q, %v", identity(req), g.content, g.err)
				}
				mu.Lock()
				defer mu.Unlock()
				served[g.source]++
			})
			if i%50 == 0 {
				<-time.After(time.Duration(random.IntN(3)) * 500 * time.Millisecond)
			}
		}
		pods.Wait()
		if served[joined] < 100 || served[fromCache] < 100 || served[fromProvider] < 100 {
			t.Errorf("sources: %v: too few of one kind to find anything", served)
		}
	})
}

// identity is all that an answer may depend on.
func identity(req *gatewayv1.FetchRequest) string {
	return fmt.Sprintf("%q %q %q %q %q", req.GetPod().GetNamespace(), req.GetPod().GetServiceAccount().GetName(),
		req.GetSecretProviderClass(), req.GetParameters(), req.GetSecrets())
}
