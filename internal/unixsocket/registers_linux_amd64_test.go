package unixsocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// asCopier makes the test binary copy a text and then wait; the value says for
// what.
const asCopier = "UNIXSOCKET_TEST_COPIER"

// canary is what the child copies: as much as eight registers hold. It is put
// together there, so that only the copy brings it into registers.
func canary() []byte { return bytes.Repeat([]byte("canary-in-a-reg!"), 8) }

// A thread that waits has in its registers what it copied last, unless a
// connection of ours was read or written since.
func TestForgetful(t *testing.T) {
	t.Parallel()
	if way := os.Getenv(asCopier); way != "" {
		copyAndWait(way)
		return
	}
	for way, want := range map[string]bool{
		"bare read": true, "bare write": true, "forgetful read": false, "forgetful write": false,
	} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			found := false
			for range tries {
				if found = bytes.Contains(registersOfCopier(t, way), []byte("canary")); found {
					break
				}
			}
			if found != want {
				t.Errorf("the thread's registers hold what it copied: %t, want %t", found, want)
			}
		})
	}
}

// tries is how often a child is looked at: now and then the scheduler itself
// overwrites the registers before the thread waits.
const tries = 5

// copyAndWait is the child. It ends with its parent, or when that closes its
// stdin.
func copyAndWait(way string) {
	runtime.LockOSThread()
	pipe, other := net.Pipe()
	conn := net.Conn(takesAll{pipe})
	end := make(chan struct{})
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		_ = other.Close()
		close(end)
	}()
	if strings.HasPrefix(way, "forgetful") {
		conn = forgetful{conn}
	}
	from, to := canary(), make([]byte, len(canary()))
	one := make([]byte, 1)
	fmt.Printf("thread %d\n", unix.Gettid())
	if strings.HasSuffix(way, "read") {
		duplicate(to, from)
		_, _ = conn.Read(one)
		return
	}
	duplicate(to, from)
	_, _ = conn.Write(one)
	<-end
}

// takesAll is a connection that never makes its writer wait.
type takesAll struct{ net.Conn }

// Write implements net.Conn.
func (takesAll) Write(b []byte) (int, error) { return len(b), nil }

// registersOfCopier starts a child and returns the registers of the thread that
// copied, once it waits.
func registersOfCopier(t *testing.T, way string) []byte {
	t.Helper()
	runtime.LockOSThread() // the kernel lets only the thread that attached ask
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestForgetful$")
	cmd.Env = append(os.Environ(), asCopier+"="+way, "GORACE=atexit_sleep_ms=0")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(stdin.Close(), cmd.Wait()) }()
	var thread int
	if _, err := fmt.Fscanf(stdout, "thread %d\n", &thread); err != nil {
		t.Fatal(err)
	}
	awaitSleep(t, cmd.Process.Pid, thread)
	if err := unix.PtraceAttach(thread); err != nil {
		t.Fatalf("attach to the child (a container may forbid ptrace): %v", err)
	}
	defer func() { _ = unix.PtraceDetach(thread) }()
	var status unix.WaitStatus
	if _, err := unix.Wait4(thread, &status, unix.WALL, nil); err != nil || !status.Stopped() {
		t.Fatalf("the child is %v (%v)", status, err)
	}
	const fpregset = 2 // NT_PRFPREG: the registers as FXSAVE has them
	registers := make([]byte, 512)
	vector := unix.Iovec{Base: &registers[0]}
	vector.SetLen(len(registers))
	if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GETREGSET, uintptr(thread), fpregset,
		uintptr(unsafe.Pointer(&vector)), 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	return registers
}

// awaitSleep waits until a thread waits in futex(2), as the runtime's threads do
// whose goroutine waits.
func awaitSleep(t *testing.T, pid, thread int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		call, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, thread))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(call), fmt.Sprintf("%d ", syscall.SYS_FUTEX)) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the child's thread does not wait, it is in %s", call)
		case <-ticker.C:
		}
	}
}
