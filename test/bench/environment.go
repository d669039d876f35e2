package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/build"
)

// providerProgram is the name of the program in cmd.
const providerProgram = "postern-provider-bench"

// environment is what both drivers share: the API server and the programs.
type environment struct {
	sizes    sizes
	progress io.Writer
	api      *apiserver.Server
	// dir is a tmpfs, which has all that is written: a disk is not what is
	// compared, and this program makes directories as kubelet does.
	dir string
	// daemons is the directory of Postern's, upstreamDriver and provider are
	// programs.
	daemons, upstreamDriver, provider string
	// kubeconfig is Postern's driver's, with no more rights than it needs.
	// upstream's has the admin's, which cost the API server less to check.
	kubeconfig, adminKubeconfig string
}

// newEnvironment builds what is missing and starts the API server.
func newEnvironment(ctx context.Context, cfg Config) (*environment, error) {
	e := &environment{sizes: full(), progress: cfg.Progress}
	if cfg.Quick {
		e.sizes = quick()
	}
	if err := e.build(ctx, cfg.Builder); err != nil {
		return nil, err
	}
	if err := e.makeDir(); err != nil {
		return nil, err
	}
	if err := e.startAPIServer(ctx, cfg.Builder); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *environment) build(ctx context.Context, b *build.Builder) error {
	var err error
	if e.daemons, err = b.Daemons(ctx); err != nil {
		return err
	}
	if e.upstreamDriver, err = b.Server(ctx, build.UpstreamDriver()); err != nil {
		return err
	}
	programs, err := b.Programs(ctx, "bench", "./test/bench/cmd/"+providerProgram)
	e.provider = filepath.Join(programs, providerProgram)
	return err
}

func (e *environment) makeDir() error {
	dir, err := os.MkdirTemp("", "bench-") // short: a socket's path has at most 107 bytes
	if err != nil {
		return fmt.Errorf("make the bench's directory: %w", err)
	}
	// Others' uids reach what is theirs in it.
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return errors.Join(fmt.Errorf("mount a tmpfs for the bench: %w", err), os.Remove(dir))
	}
	e.dir = dir
	return nil
}

func (e *environment) startAPIServer(ctx context.Context, b *build.Builder) error {
	kube, err := b.Server(ctx, build.Kube())
	if err != nil {
		return err
	}
	dir := filepath.Join(e.dir, "api")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make the API server's directory: %w", err)
	}
	if e.api, err = apiserver.Start(ctx, apiserver.Config{Kube: kube, Dir: dir}); err != nil {
		return err
	}
	if err := e.api.ApplyCRDs(ctx, filepath.Join(b.Root(), "driver/api/crds")); err != nil {
		return err
	}
	if e.kubeconfig, err = e.api.DriverKubeconfig(ctx); err != nil {
		return err
	}
	e.adminKubeconfig, err = e.api.AdminKubeconfig()
	return err
}

// close ends the API server and removes the directory.
func (e *environment) close() error {
	var errs []error
	if e.api != nil {
		errs = append(errs, e.api.Stop())
	}
	if err := unix.Unmount(e.dir, unix.MNT_DETACH); err != nil {
		errs = append(errs, fmt.Errorf("unmount the bench's directory: %w", err))
	}
	return errors.Join(append(errs, os.Remove(e.dir))...)
}

func (e *environment) say(format string, args ...any) {
	_, _ = fmt.Fprintf(e.progress, "bench: "+format+"\n", args...)
}
