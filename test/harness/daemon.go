package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/ports"
	"github.com/postern-dev/postern/test/process"
)

// listenAt decides where the daemon's HTTP server is.
func (d *Daemon) listenAt(port int) {
	flag := "--metrics-addr"
	if strings.HasPrefix(d.cfg.Name, "postern-provider-") {
		flag = "--health-addr"
	}
	d.Admin = "127.0.0.1:" + strconv.Itoa(port)
	d.args = []string{flag, d.Admin}
}

func (d *Daemon) start() error {
	cfg := d.cfg
	cfg.Args = slices.Concat(cfg.Args, d.args)
	p, err := process.Start(cfg)
	if err != nil {
		return err
	}
	d.Process = p
	return nil
}

// Restart starts the daemon again after it ended, and waits until it is ready.
func (d *Daemon) Restart(ctx context.Context) error {
	<-d.Done()
	if err := d.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return d.WaitReady(ctx)
}

// Replace does what a rolling update with maxSurge 1 does: it starts a second
// process of the daemon and, when that is ready, ends the first. The new one
// runs another program, unless that is "".
func (d *Daemon) Replace(ctx context.Context, program string) error {
	free, err := ports.Free(ctx, 1)
	if err != nil {
		return err
	}
	next := &Daemon{cfg: d.cfg}
	if program != "" {
		next.cfg.Path += "+"
		if err := copyProgram(program, next.cfg.Path); err != nil {
			return err
		}
	}
	next.listenAt(free[0])
	if err := next.start(); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := next.WaitReady(ready); err != nil {
		next.Kill()
		return err
	}
	old := d.Process
	*d = *next
	return old.Stop(stopTimeout)
}

// WaitReady waits until the daemon says on /readyz that it is ready.
func (d *Daemon) WaitReady(ctx context.Context) error {
	return d.WaitFor(ctx, func(ctx context.Context) error {
		_, err := d.Get(ctx, "/readyz")
		return err
	})
}

// Get returns what the daemon's HTTP server has at a path.
func (d *Daemon) Get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.Admin+path, http.NoBody)
	if err != nil {
		return "", fmt.Errorf("get %s of %s: %w", path, d.cfg.Name, err)
	}
	req.Close = true // a restarted daemon has another connection
	resp, err := (&http.Client{Timeout: readyTimeout}).Do(req)
	if err != nil {
		return "", fmt.Errorf("get %s of %s: %w", path, d.cfg.Name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("get %s of %s: %w", path, d.cfg.Name, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("get %s of %s: %s: %s", path, d.cfg.Name, resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// Close stops the daemons, removes the node's directory and reports whatever
// was left behind: a daemon that did not end by itself, a process, a mount.
func (n *Node) Close() error {
	var errs []error
	// Providers, gateway, driver: nobody waits for somebody who has gone.
	daemons := n.Daemons()
	for i := range daemons {
		daemon := daemons[len(daemons)-1-i]
		select {
		case <-daemon.Done(): // killed on purpose, or it failed and its test says so
		default:
			errs = append(errs, daemon.Stop(stopTimeout))
		}
	}
	if n.Kubelet != nil {
		errs = append(errs, n.Kubelet.Close())
	}
	errs = append(errs, n.sweepMounts(), n.sweepProcesses())
	if err := os.RemoveAll(n.root); err != nil {
		errs = append(errs, fmt.Errorf("remove the node's directory: %w", err))
	}
	return errors.Join(errs...)
}

// ErrLeft is in the error of Close when something was left behind.
var ErrLeft = errors.New("left behind")

// sweepMounts reports the mounts that remain, and removes them, the newest first.
func (n *Node) sweepMounts() error {
	mounts, err := kubelet.Mounts(n.root)
	if err != nil {
		return err
	}
	var errs []error
	for i := range mounts {
		mount := mounts[len(mounts)-1-i]
		errs = append(errs, fmt.Errorf("%w: mount %s", ErrLeft, mount))
		if err := unix.Unmount(mount.Path, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", mount.Path, err))
		}
	}
	return errors.Join(errs...)
}

// sweepProcesses reports the processes that run a program of the node's.
func (n *Node) sweepProcesses() error {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return fmt.Errorf("look for processes: %w", err)
	}
	var errs []error
	for _, link := range links {
		program, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(program, n.root+"/") {
			errs = append(errs, fmt.Errorf("%w: process %s running %s", ErrLeft, filepath.Base(filepath.Dir(link)), program))
		}
	}
	return errors.Join(errs...)
}
