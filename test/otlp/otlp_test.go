package otlp_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/postern-dev/postern/test/otlp"
)

func TestTraceFromSeveralProcesses(t *testing.T) {
	t.Parallel()
	receiver, export := listen(t)
	got := make(chan otlp.Trace, 1)
	go func() {
		trace, err := receiver.Wait(t.Context(), func(tr otlp.Trace) bool { return tr.Has("fetch") })
		if err != nil {
			t.Errorf("Wait() = %v", err)
		}
		got <- trace
	}()
	// The child comes before its parent, as between processes it may.
	fetch := span(2, 1, "fetch", 3, 8)
	fetch.Attributes = []*commonv1.KeyValue{{
		Key: "postern.cache", Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: "miss"}},
	}}
	get := span(3, 2, "GET", 4, 6)
	get.Status = &tracev1.Status{Code: tracev1.Status_STATUS_CODE_ERROR, Message: "403"}
	export("gateway", fetch, get)
	export("driver", span(1, 0, "publish", 0, 10))
	trace := <-got
	want := strings.Join([]string{
		"trace 09000000000000000000000000000000",
		"  publish    driver    +0.00 ms   10.00 ms",
		"  └─ fetch   gateway   +3.00 ms    5.00 ms  cache=miss",
		"     └─ GET  gateway   +4.00 ms    2.00 ms  FAILED 403",
		"",
	}, "\n")
	if diff := cmp.Diff(want, trace.Tree()); diff != "" {
		t.Errorf("Tree() (-want +got):\n%s", diff)
	}
	leaf, _ := trace.Find("GET")
	if diff := cmp.Diff([]string{"fetch", "publish"}, trace.Ancestors(leaf)); diff != "" {
		t.Errorf("Ancestors() (-want +got):\n%s", diff)
	}
}

func TestBatchSentTwiceIsKeptOnce(t *testing.T) {
	t.Parallel()
	receiver, export := listen(t)
	for range 2 {
		export("driver", span(1, 0, "publish", 0, 10))
	}
	if got := len(receiver.Spans()); got != 1 {
		t.Errorf("%d spans, want 1", got)
	}
}

func TestTakeSettled(t *testing.T) {
	t.Parallel()
	receiver, export := listen(t)
	export("driver", span(1, 0, "publish", 0, 10), span(2, 1, "fetch", 3, 8))
	if got := receiver.TakeSettled(time.Hour); len(got) != 0 {
		t.Errorf("a trace that has just come was taken: %v", got)
	}
	got := receiver.TakeSettled(0)
	if len(got) != 1 || len(got[0].Spans) != 2 || got[0].Spans[0].Name != "publish" {
		t.Errorf("TakeSettled(0) = %v", got)
	}
	if left := receiver.Traces(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestComplete(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spans []otlp.Span
		want  bool
	}{
		"nothing":        {want: false},
		"root":           {spans: []otlp.Span{{SpanID: "1"}}, want: true},
		"root and child": {spans: []otlp.Span{{SpanID: "1"}, {SpanID: "2", ParentID: "1"}}, want: true},
		"no root":        {spans: []otlp.Span{{SpanID: "2", ParentID: "1"}}, want: false},
		"missing middle": {spans: []otlp.Span{{SpanID: "1"}, {SpanID: "3", ParentID: "2"}}, want: false},
		"two roots":      {spans: []otlp.Span{{SpanID: "1"}, {SpanID: "2"}}, want: false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := (otlp.Trace{Spans: test.spans}).Complete(); got != test.want {
				t.Errorf("Complete() = %t, want %t", got, test.want)
			}
		})
	}
}

func TestWaitShowsWhatCameInstead(t *testing.T) {
	t.Parallel()
	receiver, export := listen(t)
	export("driver", span(1, 0, "publish", 0, 10))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := receiver.Wait(ctx, func(otlp.Trace) bool { return false })
	if !errors.Is(err, otlp.ErrNoTrace) || !strings.Contains(err.Error(), "publish") {
		t.Errorf("Wait() = %v, want ErrNoTrace and the trace that came", err)
	}
}

func listen(t *testing.T) (*otlp.Receiver, func(service string, spans ...*tracev1.Span)) {
	t.Helper()
	receiver, err := otlp.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(receiver.Close)
	_, address, _ := strings.Cut(receiver.Environment()[0], "http://")
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return receiver, func(service string, spans ...*tracev1.Span) {
		t.Helper()
		_, err := collectorv1.NewTraceServiceClient(conn).Export(t.Context(), &collectorv1.ExportTraceServiceRequest{
			ResourceSpans: []*tracev1.ResourceSpans{{
				Resource: &resourcev1.Resource{Attributes: []*commonv1.KeyValue{{
					Key: "service.name", Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: service}},
				}}},
				ScopeSpans: []*tracev1.ScopeSpans{{Spans: spans}},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// span makes a span of trace 9 whose times are in milliseconds.
func span(id, parent byte, name string, start, end uint64) *tracev1.Span {
	const ms = uint64(time.Millisecond)
	s := &tracev1.Span{
		TraceId: append([]byte{9}, make([]byte, 15)...), SpanId: []byte{id, 0, 0, 0, 0, 0, 0, 0}, Name: name,
		StartTimeUnixNano: start * ms, EndTimeUnixNano: end * ms,
	}
	if parent != 0 {
		s.ParentSpanId = []byte{parent, 0, 0, 0, 0, 0, 0, 0}
	}
	return s
}
