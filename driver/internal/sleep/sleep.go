// Package sleep waits for time to pass, and no longer than a context.
package sleep

import (
	"context"
	"time"
)

// For waits for d, and reports whether ctx goes on.
func For(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
