package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-dev/postern/internal/telemetry"
)

func TestLogger(t *testing.T) {
	t.Parallel()
	const ids = `"trace_id":"01020300000000000000000000000000","span_id":"0400000000000000"`
	for name, tt := range map[string]struct {
		log  func(ctx context.Context, l *slog.Logger)
		want string
	}{
		"outside of a trace": {
			func(_ context.Context, l *slog.Logger) { l.Info("m", "a", 1) },
			`{"level":"INFO","msg":"m","a":1}`,
		},
		"in a trace": {
			func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "m", "a", 1) },
			`{"level":"INFO","msg":"m","a":1,` + ids + `}`,
		},
		"with attributes": {
			func(ctx context.Context, l *slog.Logger) { l.With("w", 1).InfoContext(ctx, "m", "a", 1) },
			`{"level":"INFO","msg":"m","w":1,"a":1,` + ids + `}`,
		},
		"in groups": {
			func(ctx context.Context, l *slog.Logger) {
				l.With("w", 1).WithGroup("g").With("x", 2).WithGroup("h").InfoContext(ctx, "m", "a", 1)
			},
			`{"level":"INFO","msg":"m","w":1,` + ids + `,"g":{"x":2,"h":{"a":1}}}`,
		},
		"in groups outside of a trace": {
			func(_ context.Context, l *slog.Logger) { l.WithGroup("").WithGroup("g").Info("m", "a", 1) },
			`{"level":"INFO","msg":"m","g":{"a":1}}`,
		},
		"below the level": {
			func(ctx context.Context, l *slog.Logger) { l.DebugContext(ctx, "m") },
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "postern-test", LogFormat: "json", Stderr: &out})
			if err != nil {
				t.Fatal(err)
			}
			tt.log(remote(t.Context()), tel.Logger)
			got := regexp.MustCompile(`"time":"[^"]*",`).ReplaceAllString(strings.TrimSpace(out.String()), "")
			if got != tt.want {
				t.Errorf("line\n got %s\nwant %s", got, tt.want)
			}
			if got != "" && !json.Valid([]byte(got)) {
				t.Error("the line is not JSON")
			}
		})
	}
}

func TestLogger_Levels(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]string{"debug": "DIWE", "": "IWE", "info": "IWE", "warn": "WE", "error": "E"} {
		var out bytes.Buffer
		tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "postern-test", LogLevel: level, Stderr: &out})
		if err != nil {
			t.Fatal(err)
		}
		tel.Logger.Debug("D")
		tel.Logger.Info("I")
		tel.Logger.Warn("W")
		tel.Logger.Error("E")
		got := ""
		for _, m := range regexp.MustCompile(`msg=(\w)`).FindAllStringSubmatch(out.String(), -1) {
			got += m[1]
		}
		if got != want {
			t.Errorf("level %q logs %q, want %q", level, got, want)
		}
	}
}
