package hardening

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dumpFilter says what kinds of memory a core dump holds (core(5)).
const dumpFilter = "/proc/self/coredump_filter"

// Apply hardens the process for the rest of its life. It fails only if core
// dumps cannot be turned off.
func Apply() (Result, error) {
	var result Result
	// First, because the files of a process that is not dumpable are root's.
	if err := os.WriteFile(dumpFilter, []byte("0"), 0); err != nil {
		result.DumpReason = err.Error()
	} else {
		result.DumpEmpty = true
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return Result{}, fmt.Errorf("make the process not dumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return Result{}, fmt.Errorf("set the core dump limit to 0: %w", err)
	}
	if err := lockMemory(); err != nil {
		result.MemoryReason = err.Error()
	} else {
		result.MemoryLocked = true
	}
	return result, nil
}

// lockMemory locks all memory, now and to come, once it is touched. It does so
// only where there is no limit: with one, an allocation beyond it would end the
// process some time later.
func lockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("RLIMIT_MEMLOCK cannot be read: %w", err)
	}
	if limit.Cur != unix.RLIM_INFINITY {
		return fmt.Errorf("RLIMIT_MEMLOCK is %d bytes and not unlimited", limit.Cur)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("mlockall: %w", err)
	}
	return nil
}
