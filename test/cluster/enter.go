package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/test/kubelet"
)

// Command returns a command that runs in the cluster's namespaces, in the
// working directory of this process, with kubectl on its PATH and KUBECONFIG set.
// When ctx ends, it and what it has started are killed: it has a process group of
// its own, so a command that reads from the terminal needs SysProcAttr set to nil.
//
// If the cluster is not running, it is the command's error.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// The shell changes into the directory as the node sees it.
	const script = `cd "$1" && shift && exec "$@"`
	dir, dirErr := os.Getwd()
	pid, initErr := c.initPID()
	enter := []string{
		"--target", strconv.Itoa(pid), "--mount", "--uts", "--net", "--pid", "--", "/bin/sh", "-c", script, "sh", dir, name,
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	for _, err := range []error{dirErr, initErr} {
		if err != nil {
			cmd.Err = err
		}
	}
	path := strings.Join([]string{c.dir.bin(), os.Getenv("PATH"), systemPath}, string(filepath.ListSeparator))
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "PATH="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Dial connects to an address in the cluster's network: the node's, a pod's or a
// Service's. It has to be an IP address, for the names are the cluster's; see
// Resolver.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := checkLiteral(address); err != nil {
		return nil, err
	}
	var conn net.Conn
	err := c.inNetwork(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens in the cluster's network. Pods reach it at HostIP.
func (c *Cluster) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if err := checkLiteral(address); err != nil {
		return nil, err
	}
	var listener net.Listener
	err := c.inNetwork(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return listener, err
}

// Resolver asks the cluster's DNS.
func (c *Cluster) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return c.Dial(ctx, network, net.JoinHostPort(dnsAddress, "53"))
	}}
}

// checkLiteral refuses names: looking one up could happen on another thread,
// which is in the host's network.
func checkLiteral(address string) error {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return fmt.Errorf("address %q in the cluster's network: give an IP address and a port: %w", address, err)
	}
	return nil
}

// inNetwork calls f on a thread that is in the cluster's network namespace. What
// it opens stays there, whoever uses it later.
func (c *Cluster) inNetwork(f func() error) error {
	pid, err := c.initPID()
	if err != nil {
		return err
	}
	result := make(chan error)
	go func() { result <- onThreadOf(pid, f) }()
	return <-result
}

// onThreadOf has to be the last thing its goroutine does: if it cannot leave the
// namespace again, the thread has to end with the goroutine.
func onThreadOf(pid int, f func() error) error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("open this thread's network: %w", err)
	}
	defer func() { _ = home.Close() }()
	away, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"))
	if err != nil {
		return fmt.Errorf("open the cluster's network: %w", err)
	}
	defer func() { _ = away.Close() }()
	runtime.LockOSThread()
	if err := unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the cluster's network: %w", err)
	}
	err = f()
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}

// NodePath returns the path by which this process reaches a file of the node. A
// symbolic link in it must not be absolute: such a link leads into the host's
// files. So it is /run/..., not /var/run/...
func (c *Cluster) NodePath(path string) string {
	pid, err := c.initPID()
	if err != nil {
		pid = 0 // no such process: the path does not exist
	}
	return filepath.Join("/proc", strconv.Itoa(pid), "root", path)
}

// Mounts returns the node's mount table.
func (c *Cluster) Mounts() ([]kubelet.Mount, error) {
	pid, err := c.initPID()
	if err != nil {
		return nil, err
	}
	return kubelet.ReadMounts(filepath.Join("/proc", strconv.Itoa(pid), "mountinfo"), "/")
}
