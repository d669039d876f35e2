package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/test/bench/provider"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/ports"
	"github.com/postern-dev/postern/test/process"
	"github.com/postern-dev/postern/test/upstream"
)

// startTimeout is how long a provider may take to start.
const startTimeout = 30 * time.Second

// startUpstream starts upstream's driver and the provider.
func (e *environment) startUpstream(ctx context.Context, o options) (*side, error) {
	root, err := os.MkdirTemp(e.dir, "upstream-")
	if err != nil {
		return nil, fmt.Errorf("make the directory of upstream's driver: %w", err)
	}
	s := &side{name: upstreamName, slug: "upstream", node: "node-upstream"}
	s.end = func() error { return s.endUpstream(root) }
	if err := e.runUpstream(ctx, s, root, o); err != nil {
		return nil, errors.Join(err, s.end())
	}
	return s, nil
}

func (e *environment) runUpstream(ctx context.Context, s *side, root string, o options) error {
	// As Postern's, the program is where everything else is.
	program := filepath.Join(root, "driver")
	if err := copyProgram(e.upstreamDriver, program); err != nil {
		return err
	}
	driver, err := upstream.StartDriver(ctx, upstream.DriverConfig{
		Program: program, Dir: root, Kubeconfig: e.adminKubeconfig, Node: s.node, Args: rotation(o.interval),
	})
	if err != nil {
		return err
	}
	s.kubelet, s.daemons = driver.Kubelet, []*process.Process{driver.Process}
	free, err := ports.Free(ctx, 1)
	if err != nil {
		return err
	}
	s.metrics = "127.0.0.1:" + strconv.Itoa(free[0])
	s.provider, err = process.Start(process.Config{
		Name: providerProgram, Path: e.provider, LogFile: filepath.Join(root, "provider.log"),
		Args: []string{"--listen-dir", driver.Providers, "--instance", provider.Name, "--health-addr", s.metrics},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.provider.WaitFor(ctx, func(ctx context.Context) error {
		_, err := get(ctx, "http://"+s.metrics+"/readyz")
		return err
	})
}

func copyProgram(from, to string) error {
	program, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, program, 0o755)
	}
	if err != nil {
		return fmt.Errorf("copy upstream's driver: %w", err)
	}
	return nil
}

// rotation are the flags that have upstream's driver fetch again.
func rotation(interval time.Duration) []string {
	if interval == 0 {
		return nil
	}
	return []string{"--enable-secret-rotation", "--rotation-poll-interval", interval.String()}
}

// endUpstream ends the processes and removes what they leave: at times the
// driver fails to unmount a volume.
func (s *side) endUpstream(root string) error {
	var errs []error
	if s.kubelet != nil {
		errs = append(errs, s.kubelet.Close())
	}
	for _, p := range append(slices.Clone(s.daemons), s.provider) {
		if p != nil {
			_ = p.Stop(stopTimeout) // how it ends is not what is compared
		}
	}
	mounts, err := kubelet.Mounts(root)
	errs = append(errs, err)
	for _, mount := range slices.Backward(mounts) {
		if err := unix.Unmount(mount.Path, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", mount.Path, err))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(root))...)
}
