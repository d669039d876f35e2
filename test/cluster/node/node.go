// Package node is process 1 of the test cluster's node: it turns the namespaces
// that it was started in into a machine, runs the machine's processes, starts
// them again when they end, and takes in what they leave behind.
//
// The machine sees the host's files, but writes to places of its own: /etc and
// /var/lib are overlays, /run is in memory, and /var/lib/kubelet,
// /var/lib/containerd and /var/log are directories of its disk. So whatever its
// pods and daemons do, the host's files stay as they were, and starting it again
// on the same disk is a reboot.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Spec is the machine.
type Spec struct {
	// Dir holds all that belongs to it; see the functions that name its parts.
	Dir string
	// Hostname of the machine.
	Hostname string
	// Addresses on the loopback interface, as "10.0.0.1/32". It has no others,
	// and no route to the host or beyond.
	Addresses []string
	// Routes of the machine, as arguments of "ip route add".
	Routes []string
	// Cgroup below which its pods run, relative to each hierarchy's root.
	Cgroup string
	// Processes that it runs.
	Processes []Process
}

// Process is one of the machine's daemons.
type Process struct {
	// Name of the process and, with ".log", of its log.
	Name string
	// Command is the program and its arguments.
	Command []string
	// After is a URL that has to answer with 200 before it is started; "" starts
	// it at once.
	After string
}

// SpecFile is the file in dir that holds the Spec. Process 1 gets it as its only
// argument, by which it is found again.
func SpecFile(dir string) string { return filepath.Join(dir, "node.json") }

// StatusFile is the file in dir that says how the processes are.
func StatusFile(dir string) string { return filepath.Join(dir, "status.json") }

// LogDir is the directory of dir with a log per process, and process 1's own,
// node.log.
func LogDir(dir string) string { return filepath.Join(dir, "log") }

// DiskDir is the part of dir that survives a reboot.
func DiskDir(dir string) string { return filepath.Join(dir, "disk") }

// Stay is what a parent writes to process 1's standard input to let it outlive
// the parent. If the input ends without it, the parent has died: process 1 then
// ends too, and takes away all that it had.
const Stay = "stay\n"

// ErrAbandoned is why Run has ended when its parent died.
var ErrAbandoned = errors.New("the process that started this node has died")

// ReadSpec reads the Spec of dir.
func ReadSpec(dir string) (Spec, error) {
	contents, err := os.ReadFile(SpecFile(dir))
	if err != nil {
		return Spec{}, fmt.Errorf("read what the node is: %w", err)
	}
	var spec Spec
	if err := json.Unmarshal(contents, &spec); err != nil {
		return Spec{}, fmt.Errorf("read what the node is: %s: %w", SpecFile(dir), err)
	}
	return spec, nil
}

// Write writes the Spec where ReadSpec finds it.
func (s Spec) Write() error {
	contents, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write what the node is: %w", err)
	}
	if err := os.WriteFile(SpecFile(s.Dir), contents, 0o600); err != nil {
		return fmt.Errorf("write what the node is: %w", err)
	}
	return nil
}

// Run is process 1: it prepares the machine and runs it until ctx or the
// lifeline ends. It has to be called in new mount, pid, network and uts
// namespaces; it ends every other process there, and changes mounts and the
// hostname.
func Run(ctx context.Context, spec Spec, lifeline io.Reader, log io.Writer) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("this is process %d, not process 1 of a pid namespace: use postern-cluster up", os.Getpid())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go watch(lifeline, cancel)
	if err := prepare(ctx, spec); err != nil {
		return err
	}
	s, err := newSupervisor(spec, log)
	if err != nil {
		return err
	}
	s.run(ctx)
	if !errors.Is(context.Cause(ctx), ErrAbandoned) {
		return nil // the kernel ends the rest with process 1
	}
	_, _ = fmt.Fprintln(log, ErrAbandoned)
	if err := killAll(); err != nil {
		return errors.Join(ErrAbandoned, err)
	}
	detach()
	return errors.Join(ErrAbandoned, RemoveCgroups(context.WithoutCancel(ctx), spec.Cgroup), os.RemoveAll(spec.Dir))
}

// watch reads the lifeline and cancels when it ends before Stay was read.
func watch(lifeline io.Reader, cancel context.CancelCauseFunc) {
	word := make([]byte, len(Stay))
	if n, _ := io.ReadFull(lifeline, word); string(word[:n]) != Stay {
		cancel(ErrAbandoned)
	}
}
