package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// asTrimmed makes the test binary let go of its own program, in a state that
// the value names.
const asTrimmed = "DAEMON_TEST_TRIMMED"

// What the child prints.
const (
	itFell    = "the program left memory"
	noLocking = "memory cannot be locked here"
	staysLock = "this kernel keeps what is locked"
)

// TestTrimMemory_DropsProgram runs in another process: what it measures belongs to the whole
// of it.
func TestTrimMemory_DropsProgram(t *testing.T) {
	t.Parallel()
	if state := os.Getenv(asTrimmed); state != "" {
		printTrimmed(t, state)
		return
	}
	for state, wants := range map[string][]string{
		"as it is":     {itFell},
		"not dumpable": {itFell},
		"locked":       {itFell, noLocking, staysLock},
	} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTrimMemory_DropsProgram$", "-test.v")
			cmd.Env = append(os.Environ(), asTrimmed+"="+state)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range wants {
				if strings.Contains(string(out), want) {
					return
				}
			}
			t.Errorf("the child says none of %q:\n%s", wants, out)
		})
	}
}

// printTrimmed is the child.
func printTrimmed(t *testing.T, state string) {
	t.Helper()
	program := programInMemory(t)
	patched := patchedCopy(t)
	switch state {
	case "not dumpable":
		// As a daemon: with a uid of its own, after which root owns /proc/self.
		if os.Getuid() == 0 {
			if err := errors.Join(syscall.Setgid(65001), syscall.Setuid(65001)); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	case "locked":
		if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
			fmt.Println(noLocking, err)
			return
		}
	}
	before := rssFile(t)
	trimOnce(t)
	after := rssFile(t)
	if string(patched[:len(patch)]) != patch {
		t.Errorf("a page that differs from the file was dropped: it begins with %q", patched[:len(patch)])
	}
	switch {
	case before-after >= program/2:
		fmt.Println(itFell)
	case state == "locked" && errors.Is(unix.Madvise(patched, unix.MADV_DONTNEED_LOCKED), unix.EINVAL):
		fmt.Println(staysLock)
	default:
		t.Errorf("%d KiB of files in memory before, %d after, of which the program is %d", before>>10, after>>10, program>>10)
	}
}

// programInMemory brings all of the program into memory, and returns its size.
func programInMemory(t *testing.T) (size int) {
	t.Helper()
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	mappings, err := readMappings(smaps)
	if err := errors.Join(err, smaps.Close()); err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Close() }()
	for _, m := range mappings {
		if m.path != path || !m.droppable() {
			continue
		}
		contents := make([]byte, m.end-m.start)
		// What is behind the end of the file cannot be read.
		if n, err := memory.ReadAt(contents, int64(m.start)); n == 0 {
			t.Fatal(err)
		}
		size += len(contents)
	}
	if size == 0 {
		t.Fatalf("%s is not in memory", path)
	}
	return size
}

// patch is what patchedCopy writes.
const patch = "not what the file has"

// patchedCopy maps a part of the program and changes it before it becomes
// read-only, as a linker does.
func patchedCopy(t *testing.T) []byte {
	t.Helper()
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	page, err := unix.Mmap(int(program.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	copy(page, patch)
	if err := unix.Mprotect(page, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	return page
}

// rssFile returns how much of files is in the process' memory, in bytes.
func rssFile(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nRssFile:")
	var kib int
	if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
		t.Fatalf("RssFile: %v", err)
	}
	return kib << 10
}

func TestReadMappings(t *testing.T) {
	t.Parallel()
	const smaps = `00400000-00401000 r-xp 00000000 fe:00 12                       /a path/with spaces
Size:                  4 kB
Anonymous:             0 kB
Swap:                  0 kB
SwapPss:               8 kB
VmFlags: rd ex mr mw me sd
c000000000-c000400000 rw-p 00000000 00:00 0 
Size:               4096 kB
Anonymous:            32 kB
Swap:                  4 kB
7ffc0000-7ffc1000 r--p 00000000 fe:00 0                        [vvar]
`
	got, err := readMappings(strings.NewReader(smaps))
	if err != nil {
		t.Fatal(err)
	}
	want := []mapping{
		{start: 0x400000, end: 0x401000, access: "r-xp", path: "/a path/with spaces", counted: true},
		{start: 0xc000000000, end: 0xc000400000, access: "rw-p", own: 36, counted: true},
		{start: 0x7ffc0000, end: 0x7ffc1000, access: "r--p", path: "[vvar]"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mapping{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, text := range map[string]string{
		"no range":     "heap rw-p 00000000 00:00 0\n",
		"backwards":    "2000-1000 rw-p 00000000 00:00 0\n",
		"cut off":      "1000-2000 rw-p\n",
		"no mapping":   "Anonymous: 0 kB\n",
		"no number":    "1000-2000 rw-p 00000000 00:00 0\nSwap: many kB\n",
		"endless line": strings.Repeat("x", 1<<17),
	} {
		if got, err := readMappings(strings.NewReader(text)); err == nil {
			t.Errorf("%s: %v, want an error", name, got)
		}
	}
}

func TestMapping_Droppable(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		mapping mapping
		want    bool
	}{
		"text":          {mapping: mapping{access: "r-xp", counted: true}, want: true},
		"constants":     {mapping: mapping{access: "r--p", counted: true}, want: true},
		"variables":     {mapping: mapping{access: "rw-p", counted: true}},
		"patched":       {mapping: mapping{access: "r--p", counted: true, own: 4}},
		"nobody counts": {mapping: mapping{access: "r-xp"}},
	} {
		if got := tt.mapping.droppable(); got != tt.want {
			t.Errorf("%s: droppable = %t", name, got)
		}
	}
}
