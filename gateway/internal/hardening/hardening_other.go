//go:build !linux

package hardening

// Apply does nothing: this system has no such means.
func Apply() (Result, error) {
	const reason = "this system has no means for it"
	return Result{MemoryReason: reason, DumpReason: reason}, nil
}
