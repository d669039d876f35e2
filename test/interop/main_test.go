// Package interop_test runs Postern's parts together with those of the upstream
// project, each a real program, against a real API server and a real OpenBao:
// the upstream driver with Postern's providers, and a provider made for the
// upstream driver behind Postern's gateway. It needs root.
package interop_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/mountns"
	"github.com/postern-dev/postern/test/process"
	"github.com/postern-dev/postern/test/stack"
	"github.com/postern-dev/postern/test/tenant"
)

// patience is how long anything may take that is bound to happen.
const patience = time.Minute

// servers are the servers that all tests share; TestMain sets them.
var servers environment

// environment is what TestMain starts once.
type environment struct {
	*stack.Stack

	// binaries is the directory of the daemons.
	binaries string
	// upstreamDriver and upstreamProvider are programs.
	upstreamDriver, upstreamProvider string
}

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "interop: skipped: mounting needs root")
		os.Exit(0)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	enter := mountns.Again
	if mountns.Inside(os.Getenv) {
		enter = func(ctx context.Context) (int, error) { return run(ctx, m) }
	}
	code, err := enter(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "postern-interop-")
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
	if e.binaries, err = builder.Daemons(ctx); err != nil {
		return err
	}
	if e.upstreamDriver, err = builder.Server(ctx, build.UpstreamDriver()); err != nil {
		return err
	}
	if e.upstreamProvider, err = builder.Server(ctx, build.UpstreamProvider()); err != nil {
		return err
	}
	e.Stack, err = stack.Start(ctx, stack.Config{Builder: builder, Root: builder.Root(), Dir: dir})
	return err
}

// newTenant makes the service account "web" of a namespace that is the test's
// own.
func newTenant(t *testing.T) *tenant.Tenant {
	t.Helper()
	made, err := tenant.New(t.Context(), servers.Stack, namespaceOf(t), "web")
	must(t, err)
	return made
}

// namespaceOf makes a namespace's name of the test's, which may be longer than
// that may be.
func namespaceOf(t *testing.T) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(name)) // never fails
	return fmt.Sprintf("%s-%08x", strings.Trim(name[:min(40, len(name))], "-"), hash.Sum32())
}

// newPod creates a pod for the duration of the test.
func newPod(t *testing.T, of *tenant.Tenant, name, class string, audiences ...string) kubelet.Volume {
	t.Helper()
	v, err := of.Pod(t.Context(), name, class, audiences...)
	must(t, err)
	t.Cleanup(func() { must(t, of.DeletePod(context.WithoutCancel(t.Context()), name)) })
	return v
}

// directory returns a directory whose path is short enough for sockets.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// eventually waits until do succeeds; it ends early if the program that it
// depends on does.
func eventually(t *testing.T, program *process.Process, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, program.WaitFor(ctx, do))
}

// contents reads a published volume.
func contents(t *testing.T, k *kubelet.Kubelet, v kubelet.Volume) map[string]string {
	t.Helper()
	got, err := readFiles(k, v)
	must(t, err)
	return got
}

func readFiles(k *kubelet.Kubelet, v kubelet.Volume) (map[string]string, error) {
	files, err := k.Files(v)
	if err != nil {
		return nil, err
	}
	got := make(map[string]string, len(files))
	for name, file := range files {
		got[name] = file.Contents
	}
	return got, nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
