package hardening_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/gateway/internal/hardening"
)

// asChild makes the test binary harden itself and print what came of it.
const asChild = "POSTERN_TEST_HARDEN"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		result, err := child(os.Getenv(asChild))
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Print(result)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The ways in which a child is started.
const (
	limited   = "limited"
	unlimited = "unlimited"
	// rootsFiles is a process that may not write into its own /proc/self.
	rootsFiles = "root's files"
)

func child(way string) (string, error) {
	limit := uint64(4096)
	if way == unlimited {
		limit = unix.RLIM_INFINITY
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Sprint("cannot set the limit: ", err), nil
	}
	// The gateway is not root.
	if os.Getuid() == 0 {
		if err := errors.Join(syscall.Setgid(65001), syscall.Setuid(65001)); err != nil {
			return "", err
		}
		// To change the uid made the process not dumpable; to start a program, which
		// is how a container begins, makes it dumpable.
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			return "", err
		}
	}
	if way == rootsFiles {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			return "", err
		}
	}
	result, err := hardening.Apply()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%+v", result), errors.Join(wantNoDump(), wantLocked(result), wantEmptyDump(result))
}

func wantNoDump() error {
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		return fmt.Errorf("dumpable is %d (%w)", dumpable, err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core.Cur != 0 || core.Max != 0 {
		return fmt.Errorf("the limit of core dumps is %+v (%w)", core, err)
	}
	return nil
}

func wantLocked(result hardening.Result) error {
	// More memory than was there when it was locked.
	grown := make([]byte, 64<<20)
	grown[len(grown)-1] = 1
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	if locked := !strings.Contains(string(status), "VmLck:\t       0 kB"); locked != result.MemoryLocked {
		return fmt.Errorf("memory is locked: %t", locked)
	}
	return nil
}

func wantEmptyDump(result hardening.Result) error {
	filter, err := os.ReadFile("/proc/self/coredump_filter")
	if err != nil {
		return err
	}
	if empty := strings.Trim(string(filter), "0\n") == ""; empty != result.DumpEmpty {
		return fmt.Errorf("the filter of core dumps is %s", filter)
	}
	return nil
}

// It runs in another process: what it does cannot be undone.
func TestApply(t *testing.T) {
	t.Parallel()
	for way, wants := range map[string][]string{
		limited: {"{MemoryLocked:false MemoryReason:RLIMIT_MEMLOCK is 4096 bytes and not unlimited DumpEmpty:true DumpReason:}"},
		// Where this test may not raise the limit there is nothing to see.
		unlimited: {
			"{MemoryLocked:true MemoryReason: DumpEmpty:true DumpReason:}",
			"cannot set the limit: operation not permitted",
		},
		rootsFiles: {"{MemoryLocked:false MemoryReason:RLIMIT_MEMLOCK is 4096 bytes and not unlimited " +
			"DumpEmpty:false DumpReason:open /proc/self/coredump_filter: permission denied}"},
	} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), asChild+"="+way)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if !slices.Contains(wants, string(out)) {
				t.Errorf("got %q, want one of %q", out, wants)
			}
		})
	}
}
