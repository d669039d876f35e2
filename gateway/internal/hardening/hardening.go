// Package hardening keeps what the process holds in memory out of reach: no core
// dump, no debugger of the same uid, no swap where the node permits that.
package hardening

// Result says what was done.
type Result struct {
	// MemoryLocked is set if no page of the process can be swapped out.
	MemoryLocked bool
	// MemoryReason says why MemoryLocked is not set.
	MemoryReason string
}
