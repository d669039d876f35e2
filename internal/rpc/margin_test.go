package rpc_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/internal/rpc"
)

func TestWithMargin(t *testing.T) {
	t.Parallel()
	tests := []struct{ timeout, want time.Duration }{
		{0, 2 * time.Minute},
		{time.Second, 900 * time.Millisecond},
		{5 * time.Second, 4500 * time.Millisecond},
		{2 * time.Minute, 119500 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.timeout.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tt.timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.timeout)
					defer cancel()
				}
				started := time.Now()
				ctx, cancel := rpc.WithMargin(ctx, 500*time.Millisecond)
				defer cancel()
				<-ctx.Done()
				if got := time.Since(started); got != tt.want {
					t.Errorf("ended after %s, want %s", got, tt.want)
				}
			})
		})
	}
}

func TestWithMargin_OfAContextThatHasEnded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Minute))
	defer cancel()
	ctx, cancel = rpc.WithMargin(ctx, 500*time.Millisecond)
	defer cancel()
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("got %v, want that its deadline has passed", ctx.Err())
	}
}
