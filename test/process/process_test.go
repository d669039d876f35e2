package process_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/process"
)

// Under this environment variable the test binary is the parent that dies.
const parentEnv = "POSTERN_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentEnv); dir != "" {
		parent(dir)
		return
	}
	os.Exit(m.Run())
}

// parent starts a child, writes down its pid and waits to be killed.
func parent(dir string) {
	child, err := process.Start(process.Config{
		Name: "child", Path: "/bin/sleep", Args: []string{"1000"}, LogFile: filepath.Join(dir, "log"),
	})
	if err != nil {
		panic(err)
	}
	name := filepath.Join(dir, "pid")
	if err := os.WriteFile(name+".tmp", []byte(strconv.Itoa(child.PID())), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		panic(err)
	}
	<-child.Done()
}

func TestChildDiesWithItsParent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self := exec.CommandContext(t.Context(), os.Args[0])
	self.Env = append(os.Environ(), parentEnv+"="+dir)
	if err := self.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	eventually(t, "the parent writes its child's pid", func() bool {
		contents, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(string(contents))
		return err == nil
	})
	if err := self.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = self.Wait()
	eventually(t, "the child is gone", func() bool {
		contents, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		return err != nil || strings.Contains(string(contents), ") Z ")
	})
}

func TestStop(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script     string
		wantKilled bool
		wantError  bool
	}{
		"ends by itself":  {script: `trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done`},
		"ends with error": {script: `trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done`, wantError: true},
		"ignores SIGTERM": {script: `trap '' TERM; echo ready; while :; do sleep 0.01; done`, wantKilled: true, wantError: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, process.Config{Path: "/bin/sh", Args: []string{"-c", test.script}})
			err := p.WaitFor(t.Context(), func(context.Context) error {
				if strings.Contains(p.Log(), "ready") {
					return nil
				}
				return errors.New("not yet")
			})
			if err != nil {
				t.Fatal(err)
			}
			err = p.Stop(300 * time.Millisecond)
			if got := errors.Is(err, process.ErrKilled); got != test.wantKilled {
				t.Errorf("Stop() = %v; killed is %t, want %t", err, got, test.wantKilled)
			}
			if (err != nil) != test.wantError {
				t.Errorf("Stop() = %v, want an error: %t", err, test.wantError)
			}
		})
	}
}

func TestWaitForShowsTheLogOfADeadChild(t *testing.T) {
	t.Parallel()
	p := start(t, process.Config{Path: "/bin/sh", Args: []string{"-c", "echo cannot find my socks; exit 7"}})
	err := p.WaitFor(t.Context(), func(context.Context) error { return errors.New("not ready") })
	if err == nil || !strings.Contains(err.Error(), "cannot find my socks") || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("WaitFor() = %v, want the exit status and the log", err)
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	p := start(t, process.Config{Path: "/bin/sleep", Args: []string{"1000"}, UID: 65001, GID: 65002})
	status, err := p.Status()
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"Uid": "65001 65001 65001 65001", "Gid": "65002 65002 65002 65002", "Groups": "", "CapEff": "0000000000000000",
	} {
		if status[key] != want {
			t.Errorf("%s = %q, want %q", key, status[key], want)
		}
	}
	if rss, err := p.RSS(); err != nil || rss <= 0 {
		t.Errorf("RSS() = %d, %v", rss, err)
	}
	if group, err := syscall.Getpgid(p.PID()); err != nil || group != p.PID() {
		t.Errorf("process group %d, %v; want its own, %d", group, err, p.PID())
	}
}

func start(t *testing.T, cfg process.Config) *process.Process {
	t.Helper()
	cfg.Name, cfg.LogFile = "child", filepath.Join(t.TempDir(), "log")
	p, err := process.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within 10 s: %s", what)
		case <-ticker.C:
		}
	}
}
