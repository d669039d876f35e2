// Package hardening keeps what the process holds in memory out of reach: no core
// dump, none that root makes either, no debugger of the same uid, no swap where
// the node permits that.
package hardening

// Result says what was done, beyond what Apply insists on.
type Result struct {
	// MemoryLocked is set if no page of the process can be swapped out.
	MemoryLocked bool
	// MemoryReason says why MemoryLocked is not set.
	MemoryReason string
	// DumpEmpty is set if a core dump has no memory in it, even one that root
	// makes of the running process. The threads' registers are in it, with what
	// they copied last; and root can read the memory itself.
	DumpEmpty bool
	// DumpReason says why DumpEmpty is not set.
	DumpReason string
}
