package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/internal/daemon"
)

// childEnv makes the test binary play a daemon; see child.
const childEnv = "DAEMON_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		os.Exit(daemon.Main("postern-test", child(role)))
	}
	goleak.VerifyTestMain(m)
}

func child(role string) func(context.Context, daemon.Env) error {
	return func(ctx context.Context, env daemon.Env) error {
		switch role {
		case "clean":
			return nil
		case "help":
			return flag.ErrHelp
		case "usage":
			return fmt.Errorf("read flags: %w", &daemon.UsageError{Err: errors.New("--x is missing")})
		case "usage of a command":
			return &daemon.UsageError{Err: errors.New("--x is missing"), Program: "postern-test status"}
		case "fails":
			return errors.New("the disk is full")
		case "cancelled by itself":
			return context.Canceled
		case "args":
			_, err := fmt.Fprintf(env.Stdout, "%q %s\n", env.Args, env.Getenv(childEnv))
			return err
		}
		_, _ = fmt.Fprintln(env.Stdout, "ready")
		<-ctx.Done()
		_, _ = fmt.Fprintln(env.Stdout, "stopping")
		if role == "hangs" {
			// Until the second signal, or, if that does nothing, the parent's end.
			_, _ = io.Copy(io.Discard, os.Stdin)
		}
		return ctx.Err()
	}
}

func command(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	return cmd
}

func TestMain_ExitCodes(t *testing.T) {
	t.Parallel()
	for role, tt := range map[string]struct {
		code           int
		stdout, stderr string
	}{
		"clean":               {code: 0},
		"help":                {code: 0},
		"usage":               {code: 2, stderr: "postern-test: read flags: --x is missing\nRun \"postern-test --help\" for help.\n"},
		"usage of a command":  {code: 2, stderr: "postern-test: --x is missing\nRun \"postern-test status --help\" for help.\n"},
		"fails":               {code: 1, stderr: "postern-test: the disk is full\n"},
		"cancelled by itself": {code: 1, stderr: "postern-test: context canceled\n"},
		"args":                {code: 0, stdout: "[\"--a\" \"b c\"] args\n"},
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			cmd := command(t, role, "--a", "b c")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != tt.code || stdout.String() != tt.stdout || stderr.String() != tt.stderr {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %+v", got, &stdout, &stderr, tt)
			}
		})
	}
}

// signalled starts a child, and returns a function that sends a signal and
// reads a line.
func signalled(t *testing.T, role string) (*exec.Cmd, func(syscall.Signal) string) {
	t.Helper()
	cmd := command(t, role)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	read := func() string {
		line, err := lines.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		return strings.TrimSpace(line)
	}
	if got := read(); got != "ready" {
		t.Fatalf("the child says %q", got)
	}
	return cmd, func(s syscall.Signal) string {
		if err := cmd.Process.Signal(s); err != nil {
			t.Error(err)
		}
		return read()
	}
}

func TestMain_FirstSignalEnds(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			cmd, send := signalled(t, "serves")
			if got := send(s); got != "stopping" {
				t.Errorf("after the signal the child says %q", got)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("the child ended with %v, want exit code 0", err)
			}
		})
	}
}

func TestMain_SecondSignalKills(t *testing.T) {
	t.Parallel()
	cmd, send := signalled(t, "hangs")
	if got := send(syscall.SIGTERM); got != "stopping" {
		t.Errorf("after the first signal the child says %q", got)
	}
	if got := send(syscall.SIGTERM); got != "" {
		t.Errorf("after the second signal the child says %q", got)
	}
	_ = cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("the child ended with %v, want killed by SIGTERM", cmd.ProcessState)
	}
}

func TestEnv_Command(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args, rest []string
		ok         bool
	}{
		"none":       {},
		"one word":   {args: []string{"policy"}, rest: []string{"policy"}},
		"both words": {args: []string{"policy", "check"}, rest: []string{}, ok: true},
		"arguments":  {args: []string{"policy", "check", "-"}, rest: []string{"-"}, ok: true},
		"another":    {args: []string{"policy", "test", "-"}, rest: []string{"policy", "test", "-"}},
		"flags":      {args: []string{"--x", "policy", "check"}, rest: []string{"--x", "policy", "check"}},
	} {
		rest, ok := daemon.Env{Args: tt.args, Stdout: io.Discard}.Command("policy check")
		if ok != tt.ok || !slices.Equal(rest.Args, tt.rest) || rest.Stdout != io.Discard {
			t.Errorf("%s: %+v, %t, want %q, %t", name, rest, ok, tt.rest, tt.ok)
		}
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	first := errors.New("first")
	waits := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := daemon.Group(t.Context(), waits, func(context.Context) error { return first }, waits); !errors.Is(err, first) {
		t.Errorf("error = %v, want the first one", err)
	}
	if err := daemon.Group(t.Context()); err != nil {
		t.Errorf("an empty group: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan struct{})
	err := daemon.Group(ctx,
		func(context.Context) error {
			close(returned)
			return nil
		},
		func(ctx context.Context) error {
			<-returned
			if ctx.Err() != nil {
				t.Error("a function that returns nil ends the others")
			}
			cancel()
			<-ctx.Done()
			return nil
		})
	if err != nil {
		t.Errorf("a clean end: %v", err)
	}
}
