// Package process runs a program as a child that cannot outlive its parent:
// the kernel kills it when the parent dies, however that happens. Its output
// goes to a file, so that a failed test can show it and a redaction test can
// search it.
package process

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
)

// Config says what to run, as whom and with what.
type Config struct {
	// Name is for messages. Required.
	Name string
	// Path of the program. Required.
	Path string
	// Args without the program's name.
	Args []string
	// Env is the whole environment: nothing is inherited but PATH.
	Env []string
	// Dir is the working directory; "" is the root directory.
	Dir string
	// UID and GID of the child; 0 keeps the parent's.
	UID, GID uint32
	// LogFile gets stdout and stderr, appended. Required.
	LogFile string
}

// Process is a running child.
type Process struct {
	cfg  Config
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; read after done is closed
}

// Start starts the child in a process group of its own, so that a Ctrl-C at the
// terminal reaches the parent alone, which then stops its children in order.
func Start(cfg Config) (*Process, error) {
	if err := os.MkdirAll(filepath.Dir(cfg.LogFile), 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	log, err := os.OpenFile(cfg.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	defer func() { _ = log.Close() }()         // the child has its own descriptor
	cmd := exec.Command(cfg.Path, cfg.Args...) //nolint:noctx // the caller stops it; see Stop
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, cfg.Env...)
	cmd.Dir = cfg.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if cfg.UID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: cfg.UID, Gid: cfg.GID}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	p := &Process{cfg: cfg, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// PID returns the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Name returns the name it was started with.
func (p *Process) Name() string { return p.cfg.Name }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the child ended: nil for exit code 0. It waits for the end.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Kill ends the child at once, with SIGKILL, and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // an ended process is what is wanted
	<-p.done
}

// Signal sends a signal without waiting.
func (p *Process) Signal(signal os.Signal) error { return p.cmd.Process.Signal(signal) }

// ErrKilled is in the error of Stop when the child had to be killed.
var ErrKilled = errors.New("did not end after SIGTERM and was killed")

// Stop asks the child to end with SIGTERM and kills it after grace. Its error is
// the child's exit code, or ErrKilled.
func (p *Process) Stop(grace time.Duration) error {
	_ = p.Signal(syscall.SIGTERM) // fails if it has ended, which Err tells
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("stop %s: %w after %s", p.cfg.Name, ErrKilled, grace)
	}
	if p.err != nil {
		return fmt.Errorf("stop %s: %w", p.cfg.Name, p.err)
	}
	return nil
}

// Log returns what the child, and those before it with the same log file, wrote.
func (p *Process) Log() string {
	contents, err := os.ReadFile(p.cfg.LogFile)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	return string(contents)
}

// logTail is how much of a log an error shows.
const logTail = 4000

// WaitFor calls ready until it succeeds. It ends early, with the end of the
// log, when the child dies or ctx ends.
func (p *Process) WaitFor(ctx context.Context, ready func(context.Context) error) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		if last = ready(ctx); last == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended (%w) before it was ready; the end of its log:\n%s", p.cfg.Name, p.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; the last try: %w; the end of its log:\n%s", p.cfg.Name, ctx.Err(), last, p.tail())
		case <-ticker.C:
		}
	}
}

func (p *Process) tail() string {
	log := p.Log()
	if len(log) > logTail {
		log = "…" + log[len(log)-logTail:]
	}
	return log
}

// Status is what /proc/<pid>/status says.
type Status map[string]string

// Status reads /proc/<pid>/status of the child.
func (p *Process) Status() (Status, error) {
	path := filepath.Join("/proc", strconv.Itoa(p.PID()), "status")
	contents, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the status of %s: %w", p.cfg.Name, err)
	}
	status := Status{}
	for line := range strings.Lines(string(contents)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			status[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	return status, nil
}

// RSS returns the child's resident memory in bytes.
func (p *Process) RSS() (int64, error) {
	status, err := p.Status()
	if err != nil {
		return 0, err
	}
	number, ok := strings.CutSuffix(status["VmRSS"], " kB")
	if !ok {
		return 0, fmt.Errorf("VmRSS of %s is %q, not a number of kB", p.cfg.Name, status["VmRSS"])
	}
	kib, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("VmRSS of %s: %w", p.cfg.Name, err)
	}
	return kib * 1024, nil
}
