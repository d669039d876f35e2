package rpc

import (
	"context"
	"time"
)

const (
	// longestDeadline is that of a caller who sets none: kubelet's own for a
	// mount.
	longestDeadline = 2 * time.Minute
	// marginShare is the part that is kept back of a short deadline.
	marginShare = 10
)

// WithMargin returns a context that ends a little before ctx does, by margin or
// by a tenth of the time that is left where that is less: so that why a call
// failed reaches the caller, and the pod's event, instead of a bare "deadline
// exceeded" that gRPC makes up over there.
func WithMargin(ctx context.Context, margin time.Duration) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, longestDeadline)
	}
	return context.WithDeadline(ctx, end.Add(-min(margin, time.Until(end)/marginShare)))
}
