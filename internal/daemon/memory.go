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
//
// The first time it also lets go of the program itself. Starting runs through
// most of it, and those pages would stay although few are used again; the kernel
// brings back the ones that are, from its cache of files.
func TrimMemory(ctx context.Context) error {
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	for started := false; ; started = true {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			debug.FreeOSMemory()
			if !started {
				_ = dropProgram() // memory that could be saved is no reason to complain
			}
		}
	}
}
