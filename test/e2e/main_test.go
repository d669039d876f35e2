// Package e2e_test runs the daemons as a node does, against a real API server
// and a real OpenBao, and calls them as kubelet does. It needs root.
package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/mountns"
	"github.com/postern-dev/postern/test/stack"
)

// servers are the servers that all tests share; TestMain sets them.
var servers environment

// environment is what TestMain starts once.
type environment struct {
	*stack.Stack

	// binaries is the directory of the daemons.
	binaries string
	builder  *build.Builder
	root     string
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: skipped: mounting needs root")
		return 0, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if !mountns.Inside(os.Getenv) {
		return mountns.Again(ctx)
	}
	dir, err := os.MkdirTemp("", "postern-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // the provider's uid reads the servers' certificates
		return 1, err
	}
	if err := servers.start(ctx, dir); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, servers.Stop()) }()
	return m.Run(), nil
}

func (e *environment) start(ctx context.Context, dir string) error {
	builder, err := build.Here(os.Getenv, os.Stderr)
	if err != nil {
		return err
	}
	e.root, e.builder = builder.Root(), builder
	if e.binaries, err = builder.Daemons(ctx); err != nil {
		return err
	}
	e.Stack, err = stack.Start(ctx, stack.Config{Builder: builder, Root: e.root, Dir: dir})
	return err
}
