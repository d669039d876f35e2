package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/postern-dev/postern/internal/logkey"
)

func newLogger(cfg Config) (*slog.Logger, error) {
	out := cfg.Stderr
	if out == nil {
		out = io.Discard
	}
	level, err := parseLevel(cfg.LogLevel)
	if err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	switch cfg.LogFormat {
	case "", "text":
		return slog.New(newTraceHandler(slog.NewTextHandler(out, options))), nil
	case "json":
		return slog.New(newTraceHandler(slog.NewJSONHandler(out, options))), nil
	default:
		return nil, fmt.Errorf("log format %q is not text or json", cfg.LogFormat)
	}
}

func parseLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("log level %q is not debug, info, warn or error", s)
	}
}

// traceHandler adds trace_id and span_id to each record whose context belongs to
// a trace.
//
// Invariants:
//  1. top has no open group, so what is added to it is at a line's top level.
//  2. nested is top with scopes applied in order; they are kept so that a record
//     can be handled with the ids below them.
type traceHandler struct {
	top    slog.Handler
	nested slog.Handler
	scopes []func(slog.Handler) slog.Handler
}

func newTraceHandler(h slog.Handler) *traceHandler { return &traceHandler{top: h, nested: h} }

// Enabled implements slog.Handler.
func (h *traceHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.nested.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *traceHandler) Handle(ctx context.Context, r slog.Record) error {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return h.nested.Handle(ctx, r)
	}
	ids := []slog.Attr{
		slog.String(logkey.TraceID, sc.TraceID().String()),
		slog.String(logkey.SpanID, sc.SpanID().String()),
	}
	if len(h.scopes) == 0 {
		r = r.Clone()
		r.AddAttrs(ids...)
		return h.nested.Handle(ctx, r)
	}
	target := h.top.WithAttrs(ids)
	for _, scope := range h.scopes {
		target = scope(target)
	}
	return target.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(h.scopes) == 0 {
		return newTraceHandler(h.top.WithAttrs(attrs))
	}
	return h.within(func(in slog.Handler) slog.Handler { return in.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *traceHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.within(func(in slog.Handler) slog.Handler { return in.WithGroup(name) })
}

func (h *traceHandler) within(scope func(slog.Handler) slog.Handler) *traceHandler {
	return &traceHandler{
		top:    h.top,
		nested: scope(h.nested),
		scopes: append(slices.Clip(h.scopes), scope),
	}
}

// promLog is where promhttp reports what it cannot collect.
type promLog struct{ logger *slog.Logger }

func (l promLog) Println(v ...any) {
	l.logger.Error("collect metrics", slog.String(logkey.Error, fmt.Sprint(v...)))
}
