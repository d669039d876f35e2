package daemon

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestTrimMemory(t *testing.T) { //nolint:paralleltest // it looks at the whole process's memory
	burst := make([]byte, 64<<20)
	for i := range burst {
		burst[i] = 1
	}
	runtime.KeepAlive(burst)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	burst = nil
	_ = burst
	trimOnce(t)
	runtime.ReadMemStats(&after)
	inUse := func(m runtime.MemStats) uint64 { return m.HeapSys - m.HeapReleased }
	if inUse(before)-inUse(after) < 48<<20 {
		t.Errorf("%d MiB in use before, %d after", inUse(before)>>20, inUse(after)>>20)
	}
}

// trimOnce runs TrimMemory until it has trimmed once.
func trimOnce(t *testing.T) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), trimInterval+time.Second)
		defer cancel()
		if err := TrimMemory(ctx); err != nil {
			t.Error(err)
		}
	})
}
