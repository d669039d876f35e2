// Package otlp is an OpenTelemetry collector for tests: it takes traces over
// OTLP/gRPC, keeps them in memory, lets a test wait until one is complete and
// draws it as a tree of spans with their durations.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// Receiver keeps every span that it is sent.
//
//  1. A span is kept once: a batch that an exporter sends again changes nothing.
//  2. Every waiter looks again after each batch, so nothing is polled.
type Receiver struct {
	collectorv1.UnimplementedTraceServiceServer

	address string
	server  *grpc.Server
	stopped chan struct{}

	mu      sync.Mutex
	spans   map[spanKey]Span
	arrived map[string]time.Time // of each trace's last span
	changed chan struct{}        // closed and replaced whenever spans changes
}

type spanKey struct{ trace, span string }

// Listen starts to receive on a free port of 127.0.0.1, until Close: daemons
// send their last spans as they end, after what started them was told to.
func Listen(ctx context.Context) (*Receiver, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for traces: %w", err)
	}
	return New(listener), nil
}

// New receives on a listener, which may be in another network namespace, until
// Close.
func New(listener net.Listener) *Receiver {
	r := &Receiver{
		address: listener.Addr().String(), changed: make(chan struct{}),
		spans: map[spanKey]Span{}, arrived: map[string]time.Time{},
	}
	r.server, r.stopped = grpc.NewServer(), make(chan struct{})
	collectorv1.RegisterTraceServiceServer(r.server, r)
	go func() {
		defer close(r.stopped)
		_ = r.server.Serve(listener) // ends by Stop alone
	}()
	return r
}

// Close stops receiving.
func (r *Receiver) Close() {
	r.server.Stop()
	<-r.stopped
}

// Environment returns the OTEL_* variables that make a process send its traces
// here, soon after they end instead of every five seconds.
func (r *Receiver) Environment() []string {
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + r.address,
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_TRACES_SAMPLER=always_on",
		"OTEL_BSP_SCHEDULE_DELAY=50",
	}
}

// Export implements the collector's service.
func (r *Receiver) Export(_ context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range req.GetResourceSpans() {
		service := attributes(resource.GetResource().GetAttributes())["service.name"]
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				s := newSpan(service, span)
				r.spans[spanKey{s.TraceID, s.SpanID}] = s
				r.arrived[s.TraceID] = time.Now()
			}
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// Spans returns every span that came so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	spans := make([]Span, 0, len(r.spans))
	for _, span := range r.spans {
		spans = append(spans, span)
	}
	return spans
}

// Traces returns every trace that came so far, the oldest first.
func (r *Receiver) Traces() []Trace {
	byID := map[string]Trace{}
	for _, span := range r.Spans() {
		trace := byID[span.TraceID]
		trace.ID = span.TraceID
		trace.Spans = append(trace.Spans, span)
		byID[span.TraceID] = trace
	}
	traces := make([]Trace, 0, len(byID))
	for _, trace := range byID {
		slices.SortFunc(trace.Spans, compareSpans)
		traces = append(traces, trace)
	}
	slices.SortFunc(traces, func(a, b Trace) int { return compareSpans(a.Spans[0], b.Spans[0]) })
	return traces
}

// TakeSettled returns and forgets the traces to which nothing was added for so
// long.
func (r *Receiver) TakeSettled(quiet time.Duration) []Trace {
	var settled []Trace
	for _, trace := range r.Traces() {
		if r.forget(trace, quiet) {
			settled = append(settled, trace)
		}
	}
	return settled
}

func (r *Receiver) forget(trace Trace, quiet time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.arrived[trace.ID]) < quiet {
		return false
	}
	for _, span := range trace.Spans {
		delete(r.spans, spanKey{span.TraceID, span.SpanID})
	}
	delete(r.arrived, trace.ID)
	return true
}

// ErrNoTrace is in the error of Wait when ctx ended first.
var ErrNoTrace = errors.New("no such trace came")

// Wait waits for a complete trace that satisfies want, and returns the newest
// one. Its error draws what came instead.
func (r *Receiver) Wait(ctx context.Context, want func(Trace) bool) (Trace, error) {
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		traces := r.Traces()
		for _, trace := range slices.Backward(traces) {
			if trace.Complete() && want(trace) {
				return trace, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			seen := ""
			for _, trace := range traces {
				seen += trace.Tree()
			}
			return Trace{}, fmt.Errorf("%w: %w; %d came:\n%s", ErrNoTrace, ctx.Err(), len(traces), seen)
		}
	}
}
