package hardening

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Apply hardens the process for the rest of its life. It fails only if core
// dumps cannot be turned off.
func Apply() (Result, error) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return Result{}, fmt.Errorf("make the process not dumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return Result{}, fmt.Errorf("set the core dump limit to 0: %w", err)
	}
	return lockMemory(), nil
}

// lockMemory locks all memory, now and to come, once it is touched. It does so
// only where there is no limit: with one, an allocation beyond it would end the
// process some time later.
func lockMemory() Result {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return Result{MemoryReason: "RLIMIT_MEMLOCK cannot be read: " + err.Error()}
	}
	if limit.Cur != unix.RLIM_INFINITY {
		return Result{MemoryReason: fmt.Sprintf("RLIMIT_MEMLOCK is %d bytes and not unlimited", limit.Cur)}
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return Result{MemoryReason: "mlockall: " + err.Error()}
	}
	return Result{MemoryLocked: true}
}
