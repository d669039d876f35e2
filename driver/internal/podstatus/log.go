package podstatus

import (
	"context"
	"errors"
	"log/slog"

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
	if s.Failure != nil {
		r.logger.Warn("volume keeps its last good content", append(attrs, logkey.Reason, s.Failure.Reason, logkey.Error, cut(s.Failure.Message, maxMessage))...)
		return
	}
	r.logger.Info("volume is in place", attrs...)
}

// Forget does nothing: nothing is kept.
func (*LogRecorder) Forget(string) {}

// Warn logs a warning on a pod.
func (r *LogRecorder) Warn(e Event) {
	attrs := []any{logkey.Namespace, e.Pod.Namespace, logkey.Pod, e.Pod.Name, logkey.Reason, string(e.Reason), logkey.Error, cut(e.Message, maxMessage)}
	if e.TraceID != "" {
		attrs = append(attrs, logkey.TraceID, e.TraceID)
	}
	r.logger.Warn("warning for a pod", attrs...)
}
