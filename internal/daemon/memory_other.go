//go:build !linux

package daemon

// dropProgram does nothing: other systems decide themselves what of a program
// stays in memory.
func dropProgram() error { return nil }
