package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// brokenExporter fails while err is set.
type brokenExporter struct{ err error }

func (e *brokenExporter) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return e.err }

func (e *brokenExporter) Shutdown(context.Context) error { return nil }

func TestQuietExporter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		broken := &brokenExporter{err: errors.New("no route to host")}
		e := newQuietExporter(broken, slog.New(slog.NewTextHandler(&out, nil)))
		export := func(spans int) {
			t.Helper()
			if err := e.ExportSpans(t.Context(), make([]sdktrace.ReadOnlySpan, spans)); err != nil {
				t.Errorf("ExportSpans: %v", err)
			}
		}
		lines := func() []string {
			defer out.Reset()
			return strings.Split(strings.TrimSpace(out.String()), "\n")
		}
		export(3)
		export(4)
		if got := lines(); len(got) != 1 || !strings.Contains(got[0], `count=3 error="no route to host"`) {
			t.Errorf("at first: %q", got)
		}
		<-time.After(exportLogInterval) // by the bubble's clock
		export(5)
		if got := lines(); len(got) != 1 || !strings.Contains(got[0], "count=9") {
			t.Errorf("after a while: %q", got)
		}
		<-time.After(exportLogInterval)
		broken.err = nil
		export(6)
		if out.Len() != 0 {
			t.Errorf("when it works again: %s", &out)
		}
	})
}
