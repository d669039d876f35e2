package otlp

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Span is one timed operation of one process.
type Span struct {
	TraceID, SpanID, ParentID string
	// Service is the process that made it (service.name).
	Service string
	Name    string
	// Kind is "internal", "server", "client", "producer" or "consumer".
	Kind       string
	Start, End time.Time
	Attributes map[string]string
	// Failed and Message are the span's status.
	Failed  bool
	Message string
	Events  []Event
}

// Event is something that happened during a span.
type Event struct {
	Name       string
	Attributes map[string]string
}

// Text returns everything that a person could read in the span, for a search
// for what must not be there.
func (s Span) Text() string {
	return fmt.Sprintf("%+v", s)
}

// Trace is the spans of one trace, in order of their start.
type Trace struct {
	ID    string
	Spans []Span
}

// Complete tells whether the trace has its one root and no span's parent is
// missing.
func (t Trace) Complete() bool {
	ids := map[string]bool{}
	for _, span := range t.Spans {
		ids[span.SpanID] = true
	}
	roots := 0
	for _, span := range t.Spans {
		switch {
		case span.ParentID == "":
			roots++
		case !ids[span.ParentID]:
			return false
		}
	}
	return roots == 1
}

// Find returns the first span of that name.
func (t Trace) Find(name string) (Span, bool) {
	index := slices.IndexFunc(t.Spans, func(s Span) bool { return s.Name == name })
	if index < 0 {
		return Span{}, false
	}
	return t.Spans[index], true
}

// Has tells whether there is a span of that name.
func (t Trace) Has(name string) bool {
	_, ok := t.Find(name)
	return ok
}

// Ancestors returns the names of a span's parents, the nearest first.
func (t Trace) Ancestors(s Span) []string {
	byID := map[string]Span{}
	for _, span := range t.Spans {
		byID[span.SpanID] = span
	}
	var names []string
	for parent, ok := byID[s.ParentID]; ok; parent, ok = byID[parent.ParentID] {
		names = append(names, parent.Name)
	}
	return names
}

// Tree draws the trace: a line per span with its process, when it began and
// how long it took.
func (t Trace) Tree() string {
	if len(t.Spans) == 0 {
		return ""
	}
	children := map[string][]Span{}
	ids := map[string]bool{}
	for _, span := range t.Spans {
		ids[span.SpanID] = true
	}
	for _, span := range t.Spans {
		parent := span.ParentID
		if !ids[parent] {
			parent = ""
		}
		children[parent] = append(children[parent], span)
	}
	var rows []row
	var walk func(parent, indent string)
	walk = func(parent, indent string) {
		spans := children[parent]
		for i, span := range spans {
			branch, below := "├─ ", "│  "
			if i == len(spans)-1 {
				branch, below = "└─ ", "   "
			}
			if parent == "" {
				branch, below = "", ""
			}
			rows = append(rows, row{label: indent + branch + span.Name, span: span})
			walk(span.SpanID, indent+below)
		}
	}
	walk("", "")
	return "trace " + t.ID + "\n" + format(rows, t.Spans[0].Start)
}

type row struct {
	label string
	span  Span
}

// format aligns the columns: name, process, offset and duration, notes.
func format(rows []row, start time.Time) string {
	labels, services := 0, 0
	for _, row := range rows {
		labels = max(labels, len([]rune(row.label)))
		services = max(services, len(row.span.Service))
	}
	var b strings.Builder
	for _, row := range rows {
		padding := strings.Repeat(" ", labels-len([]rune(row.label)))
		_, _ = fmt.Fprintf(&b, "  %s%s  %-*s  %9s  %9s%s\n", row.label, padding, services, row.span.Service,
			"+"+milliseconds(row.span.Start.Sub(start)), milliseconds(row.span.End.Sub(row.span.Start)), notes(row.span))
	}
	return b.String()
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 2, 64) + " ms"
}

// noted are the attributes worth a place in the tree: what a fetch was of and
// what came of it, and the address and outcome of HTTP calls.
func noted() []string {
	return []string{
		"postern.provider", "postern.secret_provider_class", "postern.source", "postern.not_modified", "postern.objects",
		"postern.files", "postern.reason", "postern.cache", "url.path", "url.full", "http.response.status_code",
	}
}

func notes(s Span) string {
	var notes []string
	for _, key := range slices.Sorted(maps.Keys(s.Attributes)) {
		if slices.Contains(noted(), key) {
			notes = append(notes, strings.TrimPrefix(key, "postern.")+"="+s.Attributes[key])
		}
	}
	if s.Failed {
		notes = append(notes, "FAILED "+s.Message)
	}
	if len(notes) == 0 {
		return ""
	}
	return "  " + strings.Join(notes, " ")
}

func newSpan(service string, s *tracev1.Span) Span {
	span := Span{
		TraceID: hex.EncodeToString(s.GetTraceId()), SpanID: hex.EncodeToString(s.GetSpanId()),
		ParentID: hex.EncodeToString(s.GetParentSpanId()), Service: service, Name: s.GetName(),
		Kind:  strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_")),
		Start: unixNano(s.GetStartTimeUnixNano()), End: unixNano(s.GetEndTimeUnixNano()),
		Attributes: attributes(s.GetAttributes()),
		Failed:     s.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR, Message: s.GetStatus().GetMessage(),
	}
	for _, event := range s.GetEvents() {
		span.Events = append(span.Events, Event{Name: event.GetName(), Attributes: attributes(event.GetAttributes())})
	}
	return span
}

func unixNano(n uint64) time.Time {
	return time.Unix(0, int64(min(n, math.MaxInt64)))
}

func attributes(list []*commonv1.KeyValue) map[string]string {
	m := make(map[string]string, len(list))
	for _, attribute := range list {
		m[attribute.GetKey()] = value(attribute.GetValue())
	}
	return m
}

func value(v *commonv1.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonv1.AnyValue_StringValue:
		return v.StringValue
	case *commonv1.AnyValue_IntValue:
		return strconv.FormatInt(v.IntValue, 10)
	case *commonv1.AnyValue_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	case *commonv1.AnyValue_DoubleValue:
		return strconv.FormatFloat(v.DoubleValue, 'g', -1, 64)
	case *commonv1.AnyValue_ArrayValue:
		var elements []string
		for _, element := range v.ArrayValue.GetValues() {
			elements = append(elements, value(element))
		}
		return strings.Join(elements, ",")
	}
	return v.String()
}

// compareSpans orders by start, then so that the order never changes.
func compareSpans(a, b Span) int {
	if c := a.Start.Compare(b.Start); c != 0 {
		return c
	}
	return strings.Compare(a.SpanID, b.SpanID)
}
