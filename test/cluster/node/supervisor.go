package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// restartDelay is how long an ended process stays ended.
	restartDelay = time.Second
	// afterPoll is how often the URL of Process.After is tried, and answerTimeout
	// how long a try may take.
	afterPoll     = 50 * time.Millisecond
	answerTimeout = 2 * time.Second
)

// Status is how a process is.
type Status struct {
	Name string
	// PID in the node's namespace; 0 if it does not run now.
	PID int
	// Starts counts how often it was started.
	Starts int
	// LastExit says how it ended last; "" if it never did.
	LastExit string
}

// ReadStatus reads how the processes of the node in dir are.
func ReadStatus(dir string) ([]Status, error) {
	contents, err := os.ReadFile(StatusFile(dir))
	if err != nil {
		return nil, fmt.Errorf("read the status of the node's processes: %w", err)
	}
	var all []Status
	if err := json.Unmarshal(contents, &all); err != nil {
		return nil, fmt.Errorf("read the status of the node's processes: %s: %w", StatusFile(dir), err)
	}
	return all, nil
}

// supervisor starts processes and reaps all that end. One goroutine, that of
// run, does everything: so a child cannot be reaped before it is known.
type supervisor struct {
	dir      string
	log      io.Writer
	children []*child
	due      chan *child // to be started now
	ended    chan os.Signal
}

type child struct {
	Process

	path   string
	status Status
}

func newSupervisor(spec Spec, log io.Writer) (*supervisor, error) {
	s := &supervisor{dir: spec.Dir, log: log, due: make(chan *child), ended: make(chan os.Signal, 1)}
	for _, p := range spec.Processes {
		path, err := exec.LookPath(p.Command[0])
		if err != nil {
			return nil, fmt.Errorf("find the program of %s: %w", p.Name, err)
		}
		s.children = append(s.children, &child{Process: p, path: path, status: Status{Name: p.Name}})
	}
	return s, nil
}

// run supervises until ctx ends. It leaves the processes running.
func (s *supervisor) run(ctx context.Context) {
	signal.Notify(s.ended, syscall.SIGCHLD)
	defer signal.Stop(s.ended)
	for _, c := range s.children {
		go s.schedule(ctx, c, 0)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-s.due:
			if err := s.start(c); err != nil {
				c.status.LastExit = err.Error()
				s.say("%s: %v", c.Name, err)
				go s.schedule(ctx, c, restartDelay)
			}
		case <-s.ended:
			for _, c := range s.reap() {
				go s.schedule(ctx, c, restartDelay)
			}
		}
		if err := s.writeStatus(); err != nil {
			s.say("%v", err)
		}
	}
}

// schedule makes c due after a delay, and when what it needs answers.
func (s *supervisor) schedule(ctx context.Context, c *child, delay time.Duration) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if c.After == "" || answers(ctx, c.After) {
			select {
			case s.due <- c:
			case <-ctx.Done():
			}
			return
		}
		timer.Reset(afterPoll)
	}
}

// answers tells whether a URL answers with 200. Whose certificate it shows does
// not matter: nobody else is in this network.
func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// start starts a process. It is not a os/exec.Cmd, whose Wait would compete
// with reap.
func (s *supervisor) start(c *child) error {
	c.status.Starts++
	log, err := os.OpenFile(filepath.Join(LogDir(s.dir), c.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open its log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	input, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("open its input: %w", err)
	}
	defer func() { _ = input.Close() }()
	pid, err := syscall.ForkExec(c.path, c.Command, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{input.Fd(), log.Fd(), log.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", c.path, err)
	}
	c.status.PID = pid
	s.say("%s: started as process %d", c.Name, pid)
	return nil
}

// reap takes in every process that has ended, ours and orphans, and returns ours.
func (s *supervisor) reap() []*child {
	var ours []*child
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return ours
		}
		for _, c := range s.children {
			if c.status.PID == pid {
				c.status.PID, c.status.LastExit = 0, describe(status)
				s.say("%s: %s; it is started again in %s", c.Name, c.status.LastExit, restartDelay)
				ours = append(ours, c)
			}
		}
	}
}

func describe(status unix.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("ended with exit code %d", status.ExitStatus())
}

// writeStatus replaces the status file, so that a reader sees all of it or the
// one before.
func (s *supervisor) writeStatus() error {
	all := make([]Status, 0, len(s.children))
	for _, c := range s.children {
		all = append(all, c.status)
	}
	contents, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	file := StatusFile(s.dir)
	if err := os.WriteFile(file+".new", contents, 0o600); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

func (s *supervisor) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.log, time.Now().Format(time.StampMilli)+" "+format+"\n", args...)
}

// killAll ends every process but this one and waits until they are gone.
func killAll() error {
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end the node's processes: %w", err)
	}
	for {
		switch _, err := unix.Wait4(-1, nil, 0, nil); {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for the end of the node's processes: %w", err)
		}
	}
}
