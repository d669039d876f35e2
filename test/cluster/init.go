package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-dev/postern/test/cluster/node"
)

// initName is the program that is process 1 of the node.
const initName = "postern-node"

// killTimeout is how long the kernel may take to end a node's processes.
const killTimeout = time.Minute

// errNotRunning is returned when a cluster's process 1 is not there.
var errNotRunning = errors.New("the cluster is not running")

// startInit starts process 1 in namespaces of its own. It lives until the
// returned lifeline is closed, or longer if node.Stay is written to it.
func startInit(ctx context.Context, l layout) (lifeline *os.File, err error) {
	input, lifeline, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the node: %w", err)
	}
	defer func() { _ = input.Close() }()
	log, err := os.OpenFile(filepath.Join(node.LogDir(string(l)), "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		_ = lifeline.Close()
		return nil, fmt.Errorf("start the node: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(l.program(initName), node.SpecFile(string(l))) //nolint:noctx // it outlives the call; see kill
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = input, log, log, "/"
	cmd.Env = []string{"PATH=" + systemPath + string(filepath.ListSeparator) + os.Getenv("PATH"), "HOME=/root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS,
		Setsid:     true, // a Ctrl-C is for whoever started it
	}
	if err := cmd.Start(); err != nil {
		_ = lifeline.Close()
		return nil, fmt.Errorf("start the node in new namespaces: %w", err)
	}
	pid := cmd.Process.Pid
	go func() { _ = cmd.Wait() }() // how it ended is in its log
	// Where the program has to be read from disk first, the kernel has no command line
	// of the process for some time, by which findInit knows it.
	err = poll(ctx, "the node's process 1 runs its program", func(context.Context) error {
		if !isInit(l, pid) && alive(pid) {
			return fmt.Errorf("process %d does not yet", pid)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, lifeline.Close())
	}
	return lifeline, nil
}

// findInit returns the host's process id of the cluster's process 1. No file
// could be trusted to know it: ids are used again.
func findInit(l layout) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("look for the cluster's process 1: %w", err)
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && isInit(l, pid) {
			return pid, nil
		}
	}
	return 0, errNotRunning
}

func isInit(l layout, pid int) bool {
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && string(cmdline) == l.program(initName)+"\x00"+node.SpecFile(string(l))+"\x00"
}

// killInit ends process 1, and with it every process, mount and interface of the
// node, and returns when they are gone.
func killInit(ctx context.Context, l layout) error {
	pid, err := findInit(l)
	if errors.Is(err, errNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("end the node: %w", err)
	}
	defer func() { _ = process.Release() }()
	if !isInit(l, pid) {
		return nil // it has just ended
	}
	if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the node: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return poll(ctx, "the kernel ends the node's processes", func(context.Context) error {
		if alive(pid) {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

// alive tells whether a process has not ended. A zombie has; whether its parent
// takes notice is not our concern.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
