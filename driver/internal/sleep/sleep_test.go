package sleep_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/driver/internal/sleep"
)

func TestFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		started := time.Now()
		if !sleep.For(ctx, time.Second) || time.Since(started) != time.Second {
			t.Errorf("it ended after %v", time.Since(started))
		}
		if sleep.For(ctx, time.Hour) || time.Since(started) != time.Minute {
			t.Errorf("with its context it ended after %v", time.Since(started))
		}
	})
}
