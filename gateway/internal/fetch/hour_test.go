package fetch_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

const (
	storeLatency = 50 * time.Millisecond
	// settled is when all volumes are mounted and have been refreshed at least
	// once.
	settled = 10*time.Minute + 2*interval
)

// rotated is a store whose secret changes, and that counts its calls.
type rotated struct {
	mu      sync.Mutex
	version int
	calls   map[string]int // by service account
	answer  func(version string) *providerv1.FetchResponse
}

func (s *rotated) fetch(_ int, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[req.GetPod().GetServiceAccount().GetName()]++
	version := fmt.Sprint(s.version)
	response := s.answer(version)
	response.Objects[0].Version = version
	return response, nil
}

// rotate changes the secret.
func (s *rotated) rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
}

// take returns the calls since it was last called.
func (s *rotated) take() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = map[string]int{}
	return calls
}

func total(calls map[string]int) int {
	n := 0
	for _, of := range calls {
		n += of
	}
	return n
}

// A full node's refreshes ask the store once per interval and identity, where
// answers may be shared, and once per interval and volume where they may not.
func TestRefresh_Hour(t *testing.T) {
	t.Parallel()
	const volumes, identities, each = 110, 5, int(time.Hour / interval)
	tests := map[string]struct {
		protocol registry.Protocol
		// callers is how many the store sees, and perAccount how many of them are
		// of one account.
		callers, perAccount int
	}{
		"shared": {registry.Native, identities, 1},
		"legacy": {registry.Legacy, volumes, volumes / identities},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &rotated{answer: shared, calls: map[string]int{}}
				p := &scripted{latency: storeLatency, onFetch: s.fetch}
				r := newRefreshing(t, p)
				r.instances.set("vault", &registry.Handle{Provider: p, Description: p.description, ProviderName: "vault", Protocol: tt.protocol})
				ctx, cancel := context.WithCancel(t.Context())
				r.mount(ctx, volumes, identities, 10*time.Minute)
				<-time.After(settled)
				s.take()
				<-time.After(time.Hour)
				calls := s.take()
				oldest, failed := r.figures()
				t.Logf("%d calls, by account: %v; the oldest content was %v old", total(calls), calls, oldest)
				for account, n := range calls {
					if n < (each-1)*tt.perAccount || n > (each+1)*tt.perAccount {
						t.Errorf("account %s: %d calls, want about %d", account, n, each*tt.perAccount)
					}
				}
				if n := total(calls); len(calls) != identities || n < (each-1)*tt.callers || n > (each+1)*tt.callers {
					t.Errorf("%d calls, want about %d", n, each*tt.callers)
				}
				// A second for jitter, one for those that wait for others.
				if oldest > interval+2*time.Second || failed > 0 {
					t.Errorf("the oldest content was %v old, %d fetches failed", oldest, failed)
				}
				cancel()
				r.lives.Wait()
			})
		})
	}
}

// A changed secret is in all volumes within an interval, and costs no call more.
func TestRefresh_Rotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &rotated{answer: shared, calls: map[string]int{}}
		r := newRefreshing(t, &scripted{latency: storeLatency, onFetch: s.fetch})
		ctx, cancel := context.WithCancel(t.Context())
		r.mount(ctx, 110, 5, 10*time.Minute)
		<-time.After(settled)
		for round := range 5 {
			<-time.After(97 * time.Second)
			s.take()
			s.rotate()
			rotatedAt := time.Now()
			<-time.After(interval + time.Second + 2*storeLatency + 3*onTheWay)
			r.mu.Lock()
			for _, m := range r.volumes {
				if m.content != fmt.Sprint(round+1) || m.changedAt.Before(rotatedAt) {
					t.Errorf("round %d: %s holds %s since %v", round, m.req.GetVolumeId(), m.content, m.changedAt)
				}
			}
			r.mu.Unlock()
			if n := total(s.take()); n < 5 || n > 2*5 {
				t.Errorf("round %d: %d calls, want one or two of each identity", round, n)
			}
		}
		cancel()
		r.lives.Wait()
	})
}

// Somebody wants a class's volumes refreshed at once: one call does for all,
// and from then on they are due together.
func TestRefresh_Trigger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &rotated{answer: shared, calls: map[string]int{}}
		r := newRefreshing(t, &scripted{latency: storeLatency, onFetch: s.fetch})
		r.mount(stopped(t), 22, 1, time.Second)
		r.lives.Wait()
		for i, m := range r.volumes { // mounted at various times
			<-time.After(time.Duration(i) * time.Second)
			if err := r.refresh(m, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		s.take()
		s.rotate()
		triggered := time.Now()
		var refreshes sync.WaitGroup
		for _, m := range r.volumes {
			refreshes.Go(func() {
				if err := r.refresh(m, triggered); err != nil || m.content != "1" || !m.fetchedAt.After(triggered) {
					t.Errorf("%s holds %s of %v: %v", m.req.GetVolumeId(), m.content, m.fetchedAt, err)
				}
			})
		}
		refreshes.Wait()
		if n := total(s.take()); n != 1 {
			t.Errorf("%d calls, want one", n)
		}
	})
}

// stopped is a context that has ended: volumes are mounted and not refreshed.
func stopped(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// A store that asks to slow down is asked when it said, by nobody before, and
// goes back to its usual calls when it lets them.
func TestRefresh_ThrottledHour(t *testing.T) {
	t.Parallel()
	const pause = 30 * time.Second
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var refusedAt, tooEarly []time.Time
		throttles := false
		set := func(to bool) {
			mu.Lock()
			defer mu.Unlock()
			throttles = to
		}
		p := &scripted{latency: storeLatency}
		p.onFetch = func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			began := time.Now().Add(-storeLatency)
			for _, at := range refusedAt {
				if began.After(at) && began.Before(at.Add(pause)) {
					tooEarly = append(tooEarly, began)
				}
			}
			if throttles {
				refusedAt = append(refusedAt, time.Now())
				return nil, &rpc.Error{Reason: rpc.ReasonRateLimited, Message: "429", RetryAfter: pause}
			}
			return shared(fmt.Sprint(call)), nil
		}
		r := newRefreshing(t, p)
		ctx, cancel := context.WithCancel(t.Context())
		r.mount(ctx, 110, 5, 10*time.Minute)
		<-time.After(settled)
		set(true)
		<-time.After(10 * time.Minute)
		set(false)
		mu.Lock()
		refusals := len(refusedAt)
		mu.Unlock()
		<-time.After(2 * interval)
		oldest, failed := r.figures()
		t.Logf("%d calls were answered 429 in 10 minutes, %d refreshes failed, the oldest content was %v old", refusals, failed, oldest)
		// One for each pause and a few that are under way together at first.
		if refusals < 3 || refusals > int(10*time.Minute/pause)+5 {
			t.Errorf("%d calls were answered 429", refusals)
		}
		if len(tooEarly) > 0 {
			t.Errorf("calls within a pause of the store: %v", tooEarly)
		}
		r.mu.Lock()
		for _, m := range r.volumes {
			if time.Since(m.fetchedAt) > interval+2*time.Second {
				t.Errorf("%s is %v old", m.req.GetVolumeId(), time.Since(m.fetchedAt))
			}
		}
		r.mu.Unlock()
		cancel()
		r.lives.Wait()
	})
}

// A provider that wants its answer to be fetched again sooner than the interval
// is asked that often, or without an interval, for all who share it.
func TestRefresh_ProvidersInterval(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ interval, refreshAfter, want time.Duration }{
		{time.Hour, 40 * time.Minute, 40 * time.Minute},
		{20 * time.Minute, 40 * time.Minute, 20 * time.Minute},
		{0, 40 * time.Minute, 40 * time.Minute},
		{20 * time.Minute, 0, 20 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, &scripted{onFetch: func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
				response := shared(fmt.Sprint(call))
				response.RefreshAfter = durationpb.New(tt.refreshAfter)
				return response, nil
			}}, nil)
			ask := func(name string) *gatewayv1.FetchRequest {
				req := refreshOf(name, 10*time.Hour)
				req.RefreshInterval = durationpb.New(tt.interval)
				return req
			}
			w.want(t, ask("a"), "1", fromProvider)
			<-time.After(tt.want - 1)
			w.want(t, ask("b"), "1", fromCache)
			<-time.After(1)
			w.want(t, ask("b"), "2", fromProvider)
		})
	}
}
