package kube

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"

	"github.com/postern-dev/postern/internal/logkey"
)

// RouteLibraryLogs sends what the Kubernetes libraries log to logger. They log
// through one logger of the whole process, so this is for main to call, once
// and before anything else of them is used.
func RouteLibraryLogs(logger *slog.Logger) {
	klog.SetSlogLogger(logger.With(slog.String(logkey.Component, "kubernetes")))
}

// warnings logs the warnings that the API server adds to its answers, such as
// of a deprecated version.
type warnings struct{ logger *slog.Logger }

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (w warnings) HandleWarningHeaderWithContext(ctx context.Context, code int, _, text string) {
	const miscellaneousPersistent = 299 // the only code that API servers send
	if code != miscellaneousPersistent || text == "" {
		return
	}
	w.logger.LogAttrs(ctx, slog.LevelWarn, "the API server warns", slog.String(logkey.Reason, text))
}
