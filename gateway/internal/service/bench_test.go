package service_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/gateway/internal/cache"
	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/policy"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/gateway/internal/service"
	"github.com/postern-dev/postern/internal/telemetry"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// BenchmarkFetch is one fetch of five files of 1 KiB through the service, with
// a token to check, and with a provider of this process behind a real socket.
func BenchmarkFetch(b *testing.B) {
	b.Run("Provider", func(b *testing.B) { benchmarkFetch(b, 0, nil) })
	b.Run("Kept", func(b *testing.B) { benchmarkFetch(b, time.Hour, nil) })
	// A refresh of a volume that holds what is kept.
	b.Run("Refresh", func(b *testing.B) {
		benchmarkFetch(b, time.Hour, func(req *gatewayv1.FetchRequest, got *gatewayv1.FetchResponse) {
			req.Refresh, req.CurrentObjects = true, got.GetObjects()
			req.FetchedAfter, req.RefreshInterval = timestamppb.New(time.Now().Add(-time.Hour)), durationpb.New(time.Hour)
		})
	})
}

// benchmarkFetch fetches once, and then what change makes of the request again
// and again.
func benchmarkFetch(b *testing.B, maxAge time.Duration, change func(*gatewayv1.FetchRequest, *gatewayv1.FetchResponse)) {
	b.Helper()
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	providers, err := registry.New(registry.Config{NativeDir: dir, MaxMessageBytes: 5 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- providers.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	answer := providertest.Answer("1")
	answer.Sharing, answer.FreshFor = secretv1.Sharing_SHARING_SERVICE_ACCOUNT, durationpb.New(24*time.Hour)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		answer.Files = append(answer.Files, &secretv1.File{Path: name, Mode: 0o644, Contents: make([]byte, 1<<10)})
	}
	p := &providertest.Native{
		Description: &providerv1.DescribeResponse{
			Audiences:  []*providerv1.Audience{{Source: &providerv1.Audience_Value{Value: "vault"}}},
			Parameters: []*providerv1.Parameter{{Name: "vaultAddress", LocatesStore: true}, {Name: "roleName"}},
		},
		OnFetch: func(context.Context, *providerv1.FetchRequest) (*providerv1.FetchResponse, error) { return answer, nil },
	}
	p.Start(b, filepath.Join(dir, "vault", "a.sock"))
	svc := newService(b, providers, maxAge)
	req := providertest.Request("vault")
	req.Tokens = []*secretv1.Token{providertest.Token(req, "vault")}
	got, err := svc.Fetch(ctx, req)
	if err != nil {
		b.Fatal(err)
	}
	if change != nil {
		change(req, got)
	}
	times := make([]time.Duration, 0, 1<<16)
	b.ReportAllocs()
	for b.Loop() {
		started := time.Now()
		if _, err := svc.Fetch(ctx, req); err != nil {
			b.Fatal(err)
		}
		if len(times) < cap(times) {
			times = append(times, time.Since(started))
		}
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-us")
}

func newService(b *testing.B, providers *registry.Registry, maxAge time.Duration) *service.Service {
	b.Helper()
	tel := telemetry.Discard()
	rules, err := policy.Open(policy.Config{Logger: tel.Logger, Meter: tel.Meter("b")})
	if err != nil {
		b.Fatal(err)
	}
	budgets, err := budget.New(budget.Config{Meter: tel.Meter("b")})
	if err != nil {
		b.Fatal(err)
	}
	kept, err := cache.New(cache.Config{MaxBytes: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	fetcher, err := fetch.New(fetch.Config{
		Providers: providers, Policy: rules, Budgets: budgets, Cache: kept, Reuse: fetch.Reuse{MaxAge: maxAge},
		CallTimeout: time.Minute, MaxResponseBytes: 4 << 20, Logger: tel.Logger, Tracer: tel.Tracer("b"), Meter: tel.Meter("b"),
	})
	if err != nil {
		b.Fatal(err)
	}
	svc, err := service.New(service.Config{Fetcher: fetcher, Providers: providers, Budgets: budgets, Cache: kept, Policy: rules})
	if err != nil {
		b.Fatal(err)
	}
	return svc
}
