package hardening_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/gateway/internal/hardening"
)

// asChild makes the test binary harden itself and print what came of it.
const asChild = "POSTERN_TEST_HARDEN"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

func child() int {
	if limit := os.Getenv(asChild); limit == "unlimited" {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
			print("cannot set the limit: ", err.Error())
			return 0
		}
	} else if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 4096, Max: 4096}); err != nil {
		return 1
	}
	result, err := hardening.Apply()
	if err != nil {
		return 1
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		return 1
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core.Cur != 0 || core.Max != 0 {
		return 1
	}
	if !result.MemoryLocked {
		print("not locked: ", result.MemoryReason)
		return 0
	}
	// More memory than was there when it was locked.
	grown := make([]byte, 64<<20)
	grown[len(grown)-1] = 1
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || strings.Contains(string(status), "VmLck:\t       0 kB") {
		return 1
	}
	print("locked")
	return 0
}

// It runs in another process: what it does cannot be undone.
func TestApply(t *testing.T) {
	t.Parallel()
	for limit, wants := range map[string][]string{
		"4096": {"not locked: RLIMIT_MEMLOCK is 4096 bytes and not unlimited"},
		// Where this test may not raise the limit there is nothing to see.
		"unlimited": {"locked", "cannot set the limit: operation not permitted"},
	} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), asChild+"="+limit)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, want := range wants {
				if string(out) == want {
					return
				}
			}
			t.Errorf("got %q, want one of %q", out, wants)
		})
	}
}
