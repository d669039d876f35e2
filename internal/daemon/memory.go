package daemon

import (
	"context"
	"runtime/debug"
	"time"
)

// trimInterval is how often TrimMemory trims.
const trimInterval = 30 * time.Second

// TrimMemory is for Group. A node agent works in bursts, when many pods start
// at once, and memory counts on every node of a cluster: twice a minute what
// the last burst needed is given back to the system, which the runtime would do
// minutes later. On a heap of few MiB that takes a millisecond.
func TrimMemory(ctx context.Context) error {
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			debug.FreeOSMemory()
		}
	}
}
