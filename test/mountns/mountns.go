// Package mountns runs a program in a mount namespace of its own: whatever it
// mounts is gone when the last of its processes is, however they end.
package mountns

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// marker is in the environment of a program that is in a namespace of its own.
const marker = "POSTERN_MOUNT_NAMESPACE"

// Inside tells whether this process was started by Again.
func Inside(getenv func(string) string) bool { return getenv(marker) != "" }

// Again runs this process's program with its arguments in a mount namespace of
// its own, and returns the exit code. It needs root. When ctx ends, the program
// is sent SIGTERM.
func Again(ctx context.Context) (code int, err error) {
	cmd := exec.CommandContext(ctx, os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}
