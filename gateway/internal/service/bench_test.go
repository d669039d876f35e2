package service_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/gateway/internal/service"
	"github.com/postern-dev/postern/internal/telemetry"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// BenchmarkFetch is one fetch of five files of 1 KiB through the service, with
// a provider of this process behind a real socket.
func BenchmarkFetch(b *testing.B) {
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	tel := telemetry.Discard()
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
	fetcher, err := fetch.New(fetch.Config{
		Providers: providers, MaxResponseBytes: 4 << 20, Logger: tel.Logger, Tracer: tel.Tracer("b"), Meter: tel.Meter("b"),
	})
	if err != nil {
		b.Fatal(err)
	}
	svc, err := service.New(service.Config{Fetcher: fetcher, Providers: providers})
	if err != nil {
		b.Fatal(err)
	}
	answer := providertest.Answer("1")
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		answer.Files = append(answer.Files, &secretv1.File{Path: name, Mode: 0o644, Contents: make([]byte, 1<<10)})
	}
	p := &providertest.Native{OnFetch: func(context.Context, *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		return answer, nil
	}}
	p.Start(b, filepath.Join(dir, "vault", "a.sock"))
	req := providertest.Request("vault")
	if _, err := svc.Fetch(ctx, req); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if _, err := svc.Fetch(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
}
