//go:build !linux

package hardening

// Apply does nothing: this system has no such means.
func Apply() (Result, error) {
	return Result{MemoryReason: "this system has no means for it"}, nil
}
