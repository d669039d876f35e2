package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/gateway/internal/cache"
	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type node struct {
	dir      string
	registry *registry.Registry
	fetcher  *fetch.Fetcher
}

func newNode(t testing.TB) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &node{dir: dir}
	if n.registry, err = registry.New(registry.Config{
		NativeDir: dir, LegacyDirs: []string{filepath.Join(dir, "legacy")}, MaxMessageBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	n.fetcher = newFetcher(t, n.registry)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.registry.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return n
}

func newFetcher(t testing.TB, providers fetch.Providers) *fetch.Fetcher {
	t.Helper()
	fetcher, err := fetch.New(config(t, providers))
	if err != nil {
		t.Fatal(err)
	}
	return fetcher
}

func config(t testing.TB, providers fetch.Providers) fetch.Config {
	t.Helper()
	tel := telemetry.Discard()
	budgets, err := budget.New(budget.Config{Meter: tel.Meter("test")})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := cache.New(cache.Config{MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return fetch.Config{
		Providers: providers, Policy: &rules{}, Budgets: budgets, Cache: kept,
		Reuse:       fetch.Reuse{MaxAge: 10 * time.Second, MaxStale: 10 * time.Minute},
		CallTimeout: 30 * time.Second, MaxResponseBytes: 1000,
		Logger: tel.Logger, Tracer: tel.Tracer("test"), Meter: tel.Meter("test"),
	}
}

func (n *node) start(t testing.TB, name, instance string, p *providertest.Native) *providertest.Server {
	t.Helper()
	server := p.Start(t, filepath.Join(n.dir, name, instance+".sock"))
	providertest.Eventually(t, "the instance is connected", func() bool { return slices.Contains(n.connected(), instance+".sock") })
	return server
}

func (n *node) connected() []string {
	var sockets []string
	for _, h := range n.registry.Connected() {
		sockets = append(sockets, filepath.Base(h.Socket))
		h.Done()
	}
	return sockets
}

// releasing is a provider that wants to be told of released volumes.
func releasing() *providertest.Native {
	return &providertest.Native{Description: &providerv1.DescribeResponse{
		Version: "1", Capabilities: []providerv1.Capability{providerv1.Capability_CAPABILITY_RELEASE},
	}}
}

func request(volume string) *gatewayv1.FetchRequest {
	req := providertest.Request("vault")
	req.VolumeId = volume
	return req
}

func TestFetch(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start(t, "vault", "a", releasing())
	before := time.Now()
	result, err := n.fetcher.Fetch(t.Context(), request("v1"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(result.Answer.Response().GetFiles()[0].GetContents()); got != "1" {
		t.Errorf("got %q", got)
	}
	if result.Source != gatewayv1.Source_SOURCE_PROVIDER || result.Answer.FetchedAt().Before(before) || result.Answer.FetchedAt().After(time.Now()) {
		t.Errorf("got source %v, fetched at %v", result.Source, result.Answer.FetchedAt())
	}
	if diff := cmp.Diff(fetch.Usage{Volumes: 1}, n.fetcher.Usage("vault")); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
}

func TestFetch_BadAnswerDoesNotGoOn(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := releasing()
	p.OnFetch = func(context.Context, *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		answer := providertest.Answer("x")
		answer.Files[0].Path = "../x"
		return answer, nil
	}
	n.start(t, "vault", "a", p)
	result, err := n.fetcher.Fetch(t.Context(), request("v1"))
	if result.Answer != nil || rpc.FromError(err).Reason != rpc.ReasonInvalidResponse {
		t.Errorf("got %v, %v", result, err)
	}
	if n.fetcher.Usage("vault").Volumes != 1 {
		t.Error("the volume was forgotten, though the provider may keep something for it")
	}
}

func TestFetch_CountsCallsUnderWay(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	entered, finish := make(chan struct{}), make(chan struct{})
	p := releasing()
	p.OnFetch = func(context.Context, *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		close(entered)
		<-finish
		return providertest.Answer("1"), nil
	}
	n.start(t, "vault", "a", p)
	done := make(chan error, 1)
	go func() {
		_, err := n.fetcher.Fetch(t.Context(), request("v1"))
		done <- err
	}()
	<-entered
	if got := n.fetcher.Usage("vault").InFlight; got != 1 {
		t.Errorf("%d calls are under way, want 1", got)
	}
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := n.fetcher.Usage("vault").InFlight; got != 0 {
		t.Errorf("%d calls are under way, want none", got)
	}
}

// The provider's failure reaches the driver before the driver's deadline does.
func TestFetch_SlowProvider(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := releasing()
	p.OnFetch = func(ctx context.Context, _ *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	n.start(t, "vault", "a", p)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	_, err := n.fetcher.Fetch(ctx, request("v1"))
	if ctx.Err() != nil || rpc.FromError(err).Reason != rpc.ReasonDeadlineExceeded {
		t.Errorf("got %v after the deadline: %t", err, ctx.Err() != nil)
	}
}

func TestFetch_Cancelled(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	entered := make(chan struct{})
	ended := make(chan struct{})
	p := releasing()
	p.OnFetch = func(ctx context.Context, _ *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		close(entered)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}
	n.start(t, "vault", "a", p)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := n.fetcher.Fetch(ctx, request("v1")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	<-ended // the provider was told
}

// Calls go on without a failure while instances are upgraded: the new one is
// started, and when it serves the old one ends.
func TestFetch_Upgrades(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	slow := func() *providertest.Native {
		p := releasing()
		p.OnFetch = func(ctx context.Context, _ *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
			}
			return providertest.Answer("1"), nil
		}
		return p
	}
	server := n.start(t, "vault", "0", slow())
	calls, stop := n.keepCalling(t, func(error) bool { return false })
	for i := range 20 {
		before := calls.Load()
		providertest.Eventually(t, "calls go on", func() bool { return calls.Load() > before+50 })
		next := n.start(t, "vault", fmt.Sprint(i+1), slow())
		server.Stop()
		providertest.Eventually(t, "the old instance is forgotten", func() bool { return len(n.connected()) == 1 })
		server = next
	}
	stop()
}

// keepCalling fetches all the time until stop is called. An error that is not
// tolerated fails the test.
func (n *node) keepCalling(t *testing.T, tolerated func(error) bool) (calls *atomic.Int64, stop func()) {
	t.Helper()
	calls = new(atomic.Int64)
	var stopped atomic.Bool
	var callers sync.WaitGroup
	for i := range 4 {
		callers.Go(func() {
			for !stopped.Load() {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				_, err := n.fetcher.Fetch(ctx, request(fmt.Sprint(i)))
				cancel()
				if err != nil && !tolerated(err) && t.Context().Err() == nil {
					t.Error(err)
				}
				calls.Add(1)
			}
		})
	}
	stop = func() {
		stopped.Store(true)
		callers.Wait()
	}
	t.Cleanup(stop)
	return calls, stop
}

// Instances crash and come back all the time; only a call that was in one of
// them when it crashed fails.
func TestFetch_InstancesCrash(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	server := n.start(t, "vault", "0", releasing())
	calls, stop := n.keepCalling(t, func(err error) bool {
		return strings.HasPrefix(err.Error(), "the connection broke during the call")
	})
	for i := range 20 {
		before := calls.Load()
		providertest.Eventually(t, "calls go on", func() bool { return calls.Load() > before+20 })
		server.Crash()
		server = releasing().Start(t, filepath.Join(n.dir, "vault", fmt.Sprint(i+1)+".sock"))
	}
	stop()
}

func TestRelease(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	old, fresh, other := releasing(), releasing(), releasing()
	n.start(t, "vault", "old", old)
	n.start(t, "other", "other", other)
	fetchAll := func(volumes ...string) {
		t.Helper()
		for _, v := range volumes {
			if _, err := n.fetcher.Fetch(t.Context(), request(v)); err != nil {
				t.Fatal(err)
			}
		}
	}
	fetchAll("before", "both")
	n.start(t, "vault", "fresh", fresh)
	fetchAll("both", "after")
	for _, v := range []string{"before", "both", "after", "never"} {
		n.fetcher.Release(t.Context(), v)
	}
	for name, want := range map[*providertest.Native][]string{
		old:   {"before", "both", "never"},
		fresh: {"both", "after", "never"},
		// Nothing is known of this one, so whoever is there is told.
		other: {"never"},
	} {
		if diff := cmp.Diff(want, name.Released()); diff != "" {
			t.Errorf("released (-want +got):\n%s", diff)
		}
	}
	if got := n.fetcher.Usage("vault").Volumes; got != 0 {
		t.Errorf("%d volumes are left", got)
	}
}

func TestRelease_AfterTheProvidersRestart(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	server := n.start(t, "vault", "a", releasing())
	if _, err := n.fetcher.Fetch(t.Context(), request("v1")); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	providertest.Eventually(t, "the old process is forgotten", func() bool { return len(n.connected()) == 0 })
	restarted := releasing()
	n.start(t, "vault", "b", restarted)
	n.fetcher.Release(t.Context(), "v1")
	if diff := cmp.Diff([]string{"v1"}, restarted.Released()); diff != "" {
		t.Errorf("released (-want +got):\n%s", diff)
	}
	// And once more, with nobody there: it must neither fail nor hang.
	n.fetcher.Release(t.Context(), "v1")
}

func TestNew_Validates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mutate func(*fetch.Config)
		want   string
	}{
		{func(c *fetch.Config) { c.Providers = nil }, "fetch: no providers are given"},
		{func(c *fetch.Config) { c.Policy = nil }, "fetch: policy, budgets and cache are required"},
		{func(c *fetch.Config) { c.Budgets = nil }, "fetch: policy, budgets and cache are required"},
		{func(c *fetch.Config) { c.Cache = nil }, "fetch: policy, budgets and cache are required"},
		{func(c *fetch.Config) { c.Reuse.MaxAge = -1 }, "fetch: how old an answer may be is negative"},
		{func(c *fetch.Config) { c.Reuse.MaxStale = -1 }, "fetch: how old an answer may be is negative"},
		{func(c *fetch.Config) { c.CallTimeout = 0 }, "fetch: the time for a call must be more than 0"},
		{func(c *fetch.Config) { c.MaxResponseBytes = 0 }, "fetch: the maximum answer must be more than 0 bytes"},
		{func(c *fetch.Config) { c.Tracer = nil }, "fetch: logger, tracer and meter are required"},
	}
	for _, tt := range tests {
		cfg := config(t, &instances{})
		tt.mutate(&cfg)
		if _, err := fetch.New(cfg); err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

// No instance is there, and then the time is over.
func TestFetch_NoProvider(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := n.fetcher.Fetch(ctx, request("v1"))
	if rpc.FromError(err).Reason != rpc.ReasonProviderUnavailable || status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	if got := n.fetcher.Usage("vault"); got != (fetch.Usage{}) {
		t.Errorf("usage is %v, want none", got)
	}
}
