package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/process"
)

// The gateway keeps a secret in memory. Nobody who dumps the process gets it: its
// own uid may not, and what root dumps has no memory in it. The same dump of a
// process that is not protected has what it holds, so the search is one that
// finds.
//
// Besides memory a dump has the threads' registers, and a thread that has nothing
// to do still has in them what it copied last, 256 bytes at most. Nothing that a
// process does keeps that from root, so this does not look there.
func TestGatewaysMemoryIsOutOfReach(t *testing.T) { //nolint:paralleltest // it raises a limit of its own process
	gcore, err := exec.LookPath("gcore")
	if err != nil {
		t.Fatal("this machine lacks gcore (make packages installs it): apt-get install -y --no-install-recommends gdb")
	}
	n, locked := startLockedNode(t)
	secret := "canary-" + rand.Text()
	namespace := tenant(t, map[string]any{"username": "bob", "password": secret})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	v := pod(t, namespace, "web-0", "app")
	canaries := map[string]string{"the secret": secret}
	addTokens(t, canaries, v.Tokens)
	n.publish(t, v)

	if locked {
		status, err := n.Gateway.Status()
		must(t, err)
		if status["VmLck"] == "0 kB" {
			t.Errorf("the gateway has locked no memory, although it may; its log:\n%s", n.Gateway.Log())
		}
	}
	if !memoryHolds(t, n.Gateway.PID(), secret) {
		t.Error("the gateway keeps no secret: the dump proves nothing")
	}
	unprotected := startUnprotected(t, secret)
	t.Run("by its own uid", func(t *testing.T) { wantNoAttach(t, gcore, n, unprotected) })
	t.Run("by root", func(t *testing.T) {
		dumped := dump(t, gcore, n.Gateway.PID())
		for what, canary := range canaries {
			if bytes.Contains(dumped, []byte(canary)) {
				t.Errorf("a core dump with %d bytes of memory holds %s", len(dumped), what)
			}
		}
		// What is left are pages of the kernel's, which every process has.
		if len(dumped) > mebibyte {
			t.Errorf("a core dump has %d bytes of memory", len(dumped))
		}
		if control := dump(t, gcore, unprotected.PID()); !bytes.Contains(control, []byte(secret)) {
			t.Errorf("the core dump of a process that is not protected, with %d bytes of memory, does not hold its secret: the search finds nothing", len(control))
		}
	})
}

// startLockedNode starts a node whose gateway may lock its memory, where this
// process may permit that.
func startLockedNode(t *testing.T) (n *node, locked bool) {
	t.Helper()
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &before))
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited); err != nil {
		t.Logf("the gateway locks no memory here: RLIMIT_MEMLOCK cannot be raised: %v", err)
		return startNode(t), false
	}
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &before)) }()
	return startNode(t), true
}

// startUnprotected starts a process of the gateway's uid that has the secret in
// its memory, as part of its environment.
func startUnprotected(t *testing.T, secret string) *process.Process {
	t.Helper()
	path, err := exec.LookPath("sleep")
	must(t, err)
	p, err := process.Start(process.Config{
		Name: "sleep", Path: path, Args: []string{"1000"}, Env: []string{"SECRET=" + secret},
		UID: harness.GatewayUID, GID: harness.GatewayUID, LogFile: filepath.Join(t.TempDir(), "log"),
	})
	must(t, err)
	t.Cleanup(p.Kill)
	return p
}

// wantNoAttach checks that the gateway's own uid cannot trace it, and so cannot
// dump it.
func wantNoAttach(t *testing.T, gcore string, n *node, unprotected *process.Process) {
	dir, err := os.MkdirTemp("", "postern-core-") // which that uid reaches
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chown(dir, harness.GatewayUID, harness.GatewayUID))
	asGateway := func(pid int) (string, error) {
		cmd := exec.CommandContext(t.Context(), gcore, "-o", filepath.Join(dir, "core"), strconv.Itoa(pid))
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: harness.GatewayUID, Gid: harness.GatewayUID}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := asGateway(n.Gateway.PID())
	if _, statErr := os.Stat(corePath(dir, n.Gateway.PID())); err == nil || !os.IsNotExist(statErr) || !strings.Contains(out, "not permitted") {
		t.Errorf("gcore as the gateway's uid: %v\n%s", err, out)
	}
	// Where processes of one uid may trace each other, this one can be.
	if scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil && strings.TrimSpace(string(scope)) != "0" {
		t.Logf("nobody but root traces anybody here (ptrace_scope is %s): that the gateway cannot be is seen by the owner of its files", bytes.TrimSpace(scope))
	} else if out, err := asGateway(unprotected.PID()); err != nil {
		t.Errorf("gcore of a process that is not protected: %v\n%s", err, out)
	}
	for pid, want := range map[int]uint32{n.Gateway.PID(): 0, unprotected.PID(): harness.GatewayUID} {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", pid))
		must(t, err)
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != want {
			t.Errorf("the memory of process %d belongs to uid %d, want %d", pid, stat.Uid, want)
		}
	}
}

func corePath(dir string, pid int) string { return filepath.Join(dir, "core."+strconv.Itoa(pid)) }

// dump returns the memory in the core dump that root makes of a process.
func dump(t *testing.T, gcore string, pid int) []byte {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), gcore, "-o", filepath.Join(dir, "core"), strconv.Itoa(pid)).CombinedOutput()
	if err != nil {
		t.Fatalf("gcore as root: %v\n%s", err, out)
	}
	core, err := elf.Open(corePath(dir, pid))
	if err != nil {
		t.Fatalf("gcore wrote no core dump: %v\n%s", err, out)
	}
	defer func() { _ = core.Close() }()
	var memory bytes.Buffer
	for _, segment := range core.Progs {
		if segment.Type == elf.PT_LOAD {
			_, err := io.Copy(&memory, segment.Open())
			must(t, err)
		}
	}
	return memory.Bytes()
}

// memoryHolds tells whether a text is in what a process can write to. Root may
// look there; a program that means to finds everything.
func memoryHolds(t *testing.T, pid int, text string) bool {
	t.Helper()
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	must(t, err)
	defer func() { _ = maps.Close() }()
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	must(t, err)
	defer func() { _ = memory.Close() }()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var start, end int64
		var access string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &access); err != nil || !strings.HasPrefix(access, "rw") {
			continue // such as [vsyscall], which is beyond an int64
		}
		contents, err := io.ReadAll(io.NewSectionReader(memory, start, end-start))
		if err != nil && !errors.Is(err, unix.EIO) { // unmapped meanwhile
			t.Fatalf("read the memory of process %d: %v", pid, err)
		}
		if bytes.Contains(contents, []byte(text)) {
			return true
		}
	}
	return false
}
