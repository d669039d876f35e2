package podstatus

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/postern-dev/postern/internal/logkey"
)

// LogRecorder stands in for a Recorder where there is no Kubernetes API: what
// would be an event is a line in the log.
type LogRecorder struct{ logger *slog.Logger }

// NewLogRecorder returns a LogRecorder.
func NewLogRecorder(logger *slog.Logger) (*LogRecorder, error) {
	if logger == nil {
		return nil, errors.New("log recorder needs a logger")
	}
	return &LogRecorder{logger: logger}, nil
}

// Run waits for the end of ctx.
func (*LogRecorder) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Mounted logs how a volume is.
func (r *LogRecorder) Mounted(s Status) {
	attrs := []any{
		logkey.Namespace, s.Pod.Namespace, logkey.Pod, s.Pod.Name, logkey.SecretProviderClass, s.SecretProviderClass,
		logkey.VolumeID, s.VolumeID, logkey.Count, len(s.Objects),
	}
	if s.Stale == nil && s.Unsynced == nil {
		r.logger.Info("volume is in place", attrs...)
	}
	if s.Stale != nil {
		r.logger.Warn("volume keeps its last good content", failedAttrs(attrs, s.Stale)...)
	}
	if s.Unsynced != nil {
		r.logger.Warn("volume is in place, its Kubernetes Secrets are not", failedAttrs(attrs, s.Unsynced)...)
	}
}

func failedAttrs(attrs []any, failure *Failure) []any {
	return append(slices.Clip(attrs), logkey.Reason, failure.Reason, logkey.Error, cut(failure.Message, maxMessage))
}

// Forget does nothing: nothing is kept.
func (*LogRecorder) Forget(string) {}

// Tell logs what happened to a pod's volume.
func (r *LogRecorder) Tell(e Event) {
	attrs := []any{logkey.Namespace, e.Pod.Namespace, logkey.Pod, e.Pod.Name, logkey.Reason, string(e.Reason)}
	if e.TraceID != "" {
		attrs = append(attrs, logkey.TraceID, e.TraceID)
	}
	e.TraceID = "" // it has its own place
	message := eventMessage("", e)
	if e.Normal {
		r.logger.Info("event for a pod", append(attrs, logkey.Message, message)...)
		return
	}
	r.logger.Warn("warning for a pod", append(attrs, logkey.Error, message)...)
}
