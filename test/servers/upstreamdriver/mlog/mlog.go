// Package mlog stands in for monis.app/mlog, which module proxies do not serve:
// the names that the Secrets Store CSI driver uses of it, over klog.
package mlog

import (
	"context"

	"k8s.io/klog/v2"
)

// LogFormat is how lines look. The stand-in has one format.
type LogFormat string

// The formats by name.
const (
	FormatText LogFormat = "text"
	FormatJSON LogFormat = "json"
)

// Setup returns what writes the lines that are left.
func Setup() func() { return klog.Flush }

// ValidateAndSetKlogLevelAndFormatGlobally leaves klog as its flags say.
func ValidateAndSetKlogLevelAndFormatGlobally(context.Context, klog.Level, LogFormat) error {
	return nil
}

// Error logs a failure.
func Error(message string, err error, keysAndValues ...any) {
	klog.ErrorS(err, message, keysAndValues...)
}

// Fatal logs a failure and ends the process.
func Fatal(err error) { klog.Fatal(err) }
