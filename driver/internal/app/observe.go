//go:build !faultinjection || !linux

package app

import "log/slog"

// newObserver observes nothing: only drivers built for tests do.
func newObserver(*slog.Logger) func(step string) { return nil }
