package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/postern-dev/postern/internal/logkey"
)

// exportLogInterval is the least time between two lines about failed exports: a
// collector that is away must not fill the log.
const exportLogInterval = time.Minute

// quietExporter reports failed exports to the process's logger. The SDK would
// report each to a global handler that writes to stderr.
//
// Invariants:
//  1. At most one line is logged in exportLogInterval.
//  2. dropped is the number of spans lost since the last line.
type quietExporter struct {
	sdktrace.SpanExporter
	logger *slog.Logger

	mu      sync.Mutex
	logged  time.Time
	dropped int
}

func newQuietExporter(e sdktrace.SpanExporter, logger *slog.Logger) *quietExporter {
	return &quietExporter{SpanExporter: e, logger: logger}
}

// ExportSpans implements sdktrace.SpanExporter. It never fails.
func (e *quietExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.report(ctx, err, len(spans))
	}
	return nil
}

func (e *quietExporter) report(ctx context.Context, err error, spans int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropped += spans
	now := time.Now()
	if !e.logged.IsZero() && now.Sub(e.logged) < exportLogInterval {
		return
	}
	e.logger.LogAttrs(ctx, slog.LevelWarn, "spans could not be exported",
		slog.Int(logkey.Count, e.dropped), slog.String(logkey.Error, err.Error()))
	e.logged, e.dropped = now, 0
}
