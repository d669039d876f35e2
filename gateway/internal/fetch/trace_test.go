package fetch_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// recorder is a tracer that keeps what it is told.
type recorder struct {
	noop.Tracer
	mu    sync.Mutex
	spans []*span
}

type span struct {
	noop.Span
	name, parent string
	attributes   map[attribute.Key]string
	status       otelcodes.Code
	ended        bool
}

func (r *recorder) Start(ctx context.Context, name string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	s := &span{name: name, attributes: map[attribute.Key]string{}}
	if parent, ok := trace.SpanFromContext(ctx).(*span); ok {
		s.parent = parent.name
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = append(r.spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

func (*span) IsRecording() bool { return true }

func (s *span) SetAttributes(attributes ...attribute.KeyValue) {
	for _, a := range attributes {
		if a.Value.Type() != attribute.FLOAT64 { // a time
			s.attributes[a.Key] = a.Value.String()
		}
	}
}

func (s *span) SetStatus(code otelcodes.Code, _ string) { s.status = code }

func (s *span) End(...trace.SpanEndOption) { s.ended = true }

func TestFetch_Traces(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	rec := &recorder{}
	cfg := config(t, n.registry)
	cfg.Tracer = rec
	fetcher, err := fetch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// The first waits for its provider, the second is refused by the answer's rules.
	done := make(chan error, 1)
	go func() {
		_, err := fetcher.Fetch(t.Context(), request("v1"))
		done <- err
	}()
	providertest.Eventually(t, "it waits", func() bool {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		return len(rec.spans) == 2
	})
	p := releasing()
	n.start(t, "vault", "a", p)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	n.start(t, "empty", "a", &providertest.Native{OnFetch: func(context.Context, *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		return &providerv1.FetchResponse{}, nil
	}})
	providertest.Eventually(t, "the other provider serves", func() bool {
		handle, ok := n.registry.TryAcquire("empty")
		if ok {
			handle.Done()
		}
		return ok
	})
	bad := request("v2")
	bad.Provider, bad.Refresh = "empty", true
	if _, err := fetcher.Fetch(t.Context(), bad); err == nil {
		t.Fatal("an empty answer passed")
	}
	attributes := func(provider string, more ...string) map[attribute.Key]string {
		m := map[attribute.Key]string{
			"postern.provider": provider, "postern.secret_provider_class": "db", "k8s.pod.name": "web-0", "k8s.namespace.name": "shop", "postern.store": "default",
			"postern.instance": filepath.Join(n.dir, provider, "a.sock"),
		}
		for i := 0; i < len(more); i += 2 {
			m[attribute.Key(more[i])] = more[i+1]
		}
		return m
	}
	want := []span{
		{name: "gateway.Fetch", attributes: attributes("vault", "postern.refresh", "false", "postern.source", "provider"), ended: true},
		{name: "gateway.AcquireProvider", parent: "gateway.Fetch", attributes: map[attribute.Key]string{}, ended: true},
		{name: "gateway.Fetch", attributes: attributes("empty", "postern.refresh", "true", "postern.reason", "INVALID_RESPONSE"), status: otelcodes.Error, ended: true},
	}
	got := make([]span, 0, len(rec.spans))
	for _, s := range rec.spans {
		got = append(got, *s)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(span{}), cmp.Comparer(func(noop.Span, noop.Span) bool { return true })); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}
