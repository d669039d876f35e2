// Package harness runs the project's daemons as one node does: the driver as
// root, the gateway and each provider under a uid of its own, each with only
// the directories that it needs, and with its log in a file. Everything is below
// one temporary directory, and Close proves that nothing of it remains.
package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/ports"
	"github.com/postern-dev/postern/test/process"
)

// Uids of the daemons on the node. Each has a group of the same number.
const (
	GatewayUID   = 65001
	firstUID     = 65011 // of the providers, in order of their names
	readyTimeout = 30 * time.Second
	stopTimeout  = 15 * time.Second
)

// WaitsForDirectory is in the log of a daemon that waits for the driver to give
// its directory to it.
const WaitsForDirectory = "cannot be used yet"

// Config is what a Node needs.
type Config struct {
	// Binaries is the directory of the daemons; see package build. Required.
	Binaries string
	// Programs are paths of daemons that are not to be those of Binaries, such
	// as another version's, by name.
	Programs map[string]string
	// Providers by name, each with its arguments beyond those that every
	// provider gets. A provider's program is postern-provider-<name>.
	Providers map[string][]string
	// Kubeconfig is the driver's, or else SPCDir holds the SecretProviderClasses.
	Kubeconfig, SPCDir string
	// Telemetry is the environment that sends the traces somewhere.
	Telemetry []string
	// LogLevel of every daemon; "" is info.
	LogLevel string
	// DriverArgs and GatewayArgs are arguments beyond the usual.
	DriverArgs, GatewayArgs []string
	// DriverEnv and ProviderEnv are environment of the driver, and of each
	// provider, beyond the usual.
	DriverEnv, ProviderEnv []string
	// Dir is the directory in which the node's own is made; "" is the system's
	// for temporary files. It has to be short: a socket's path has at most 107
	// bytes.
	Dir string
	// DriverLast starts the others before the driver, in directories as kubelet
	// makes them for pods that name them: root's.
	DriverLast bool
}

// Node is a node's daemons.
type Node struct {
	// Kubelet calls the driver.
	Kubelet *kubelet.Kubelet
	// Driver, Gateway and the providers, by name.
	Driver, Gateway *Daemon
	Providers       map[string]*Daemon

	cfg  Config
	root string
}

// Daemon is one of the node's daemons, which may be stopped and started again.
type Daemon struct {
	*process.Process

	// Admin is the address of its HTTP server: /metrics, /readyz, /healthz.
	Admin string

	// cfg has the arguments but for the address of that server.
	cfg process.Config
	// args is the rest.
	args []string
}

// Start starts the node's daemons and waits until each says that it is ready.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("the driver mounts filesystems and the other daemons run as users of their own: run this as root")
	}
	root, err := os.MkdirTemp(cfg.Dir, "postern-")
	if err != nil {
		return nil, fmt.Errorf("make the node's directory: %w", err)
	}
	n := &Node{cfg: cfg, root: root, Providers: map[string]*Daemon{}}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) start(ctx context.Context) error {
	if err := n.prepare(ctx); err != nil {
		return err
	}
	others := append([]*Daemon{n.Gateway}, slices.Collect(maps.Values(n.Providers))...)
	if n.cfg.DriverLast {
		if err := n.startLikeKubelet(ctx, others); err != nil {
			return err
		}
	}
	if err := n.Driver.start(); err != nil {
		return err
	}
	client, err := kubelet.New(n.socket(), n.Path("kubelet"))
	if err != nil {
		return err
	}
	n.Kubelet = client
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if !n.cfg.DriverLast {
		// The driver makes the directories that the others listen in.
		if err := n.Driver.WaitFor(ctx, n.directoriesExist); err != nil {
			return err
		}
		if err := startAll(others); err != nil {
			return err
		}
	}
	for _, daemon := range append(others, n.Driver) {
		if err := daemon.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startLikeKubelet starts daemons whose directories the driver has not made yet:
// kubelet did, for a hostPath of type DirectoryOrCreate. It returns when each
// has said that it waits.
func (n *Node) startLikeKubelet(ctx context.Context, daemons []*Daemon) error {
	dirs := []string{n.Path("run/gateway")}
	for name := range n.Providers {
		dirs = append(dirs, n.ProviderDir(name))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a directory as kubelet does: %w", err)
		}
	}
	if err := startAll(daemons); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, daemon := range daemons {
		if err := daemon.WaitFor(ctx, func(context.Context) error {
			if !strings.Contains(daemon.Log(), WaitsForDirectory) {
				return errors.New("it does not say that it waits for its directory")
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func startAll(daemons []*Daemon) error {
	for _, daemon := range daemons {
		if err := daemon.start(); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the directories, copies the programs to where every uid reaches
// them, and decides how each daemon is started.
func (n *Node) prepare(ctx context.Context) error {
	if err := os.Chmod(n.root, 0o755); err != nil {
		return fmt.Errorf("open the node's directory: %w", err)
	}
	for _, dir := range []string{"bin", "log", "kubelet/plugins/csi", "run", "legacy"} {
		if err := os.MkdirAll(n.Path(dir), 0o755); err != nil {
			return fmt.Errorf("make the node's directories: %w", err)
		}
	}
	names := slices.Sorted(maps.Keys(n.cfg.Providers))
	free, err := ports.Free(ctx, 2+len(names))
	if err != nil {
		return err
	}
	if n.Driver, err = n.daemon("postern-driver", 0, free[0], n.driverArgs(names)); err != nil {
		return err
	}
	n.Driver.cfg.Env = append(n.Driver.cfg.Env, n.cfg.DriverEnv...)
	if n.Gateway, err = n.daemon("postern-gateway", GatewayUID, free[1], n.gatewayArgs()); err != nil {
		return err
	}
	for i, name := range names {
		args := append([]string{"--listen-dir", n.ProviderDir(name), "--allowed-uids", "0," + strconv.Itoa(GatewayUID)}, n.cfg.Providers[name]...)
		daemon, err := n.daemon("postern-provider-"+name, firstUID+i, free[2+i], args)
		if err != nil {
			return err
		}
		daemon.cfg.Env = slices.Concat(daemon.cfg.Env, n.cfg.ProviderEnv)
		n.Providers[name] = daemon
	}
	return nil
}

func (n *Node) driverArgs(providers []string) []string {
	uids := make([]string, len(providers))
	for i, name := range providers {
		uids[i] = name + "=" + strconv.Itoa(firstUID+i)
	}
	args := []string{
		"--endpoint", "unix://" + n.socket(), "--node-id", "node-1",
		"--gateway-dir", n.Path("run/gateway"), "--gateway-uid", strconv.Itoa(GatewayUID),
		"--providers-dir", n.Path("run/providers"), "--provider-uids", strings.Join(uids, ","),
		"--kubelet-root", n.Path("kubelet"), "--legacy-providers-dirs", n.Path("legacy"), "--staging-dir", n.Path("staging"),
	}
	switch {
	case n.cfg.Kubeconfig != "":
		args = append(args, "--kubeconfig", n.cfg.Kubeconfig)
	case n.cfg.SPCDir != "":
		args = append(args, "--spc-dir", n.cfg.SPCDir)
	}
	return append(args, n.cfg.DriverArgs...)
}

func (n *Node) gatewayArgs() []string {
	return append([]string{
		"--listen-dir", n.Path("run/gateway"), "--providers-dir", n.Path("run/providers"),
		"--legacy-providers-dirs", n.Path("legacy"),
	}, n.cfg.GatewayArgs...)
}

func (n *Node) daemon(name string, uid, port int, args []string) (*Daemon, error) {
	program, source := n.Path("bin", name), n.cfg.Programs[name]
	if source == "" {
		source = filepath.Join(n.cfg.Binaries, name)
	}
	if err := copyProgram(source, program); err != nil {
		return nil, err
	}
	if n.cfg.LogLevel != "" {
		args = append(args, "--log-level", n.cfg.LogLevel)
	}
	d := &Daemon{cfg: process.Config{
		Name: name, Path: program, Args: args, Env: n.cfg.Telemetry,
		UID: uint32(uid), GID: uint32(uid),
		LogFile: n.Path("log", name+".log"),
	}}
	d.listenAt(port)
	return d, nil
}

func copyProgram(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy a daemon (build it first): %w", err)
	}
	defer func() { _ = source.Close() }()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return fmt.Errorf("copy a daemon: %w", err)
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.Copy(target, source)
	return err
}

// Path returns a path below the node's directory.
func (n *Node) Path(elements ...string) string {
	return filepath.Join(append([]string{n.root}, elements...)...)
}

// ProviderDir is where the sockets of a provider are.
func (n *Node) ProviderDir(name string) string { return n.Path("run/providers", name) }

func (n *Node) socket() string { return n.Path("kubelet/plugins/csi/csi.sock") }

// Socket is the path of the driver's CSI socket.
func (n *Node) Socket() string { return n.socket() }

func (n *Node) directoriesExist(context.Context) error {
	paths := []string{n.Path("run/gateway")}
	for name := range n.Providers {
		paths = append(paths, n.ProviderDir(name))
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			return err
		}
	}
	return nil
}

// Daemons returns every daemon: driver, gateway, then the providers by name.
func (n *Node) Daemons() []*Daemon {
	all := []*Daemon{n.Driver, n.Gateway}
	for _, name := range slices.Sorted(maps.Keys(n.Providers)) {
		all = append(all, n.Providers[name])
	}
	return slices.DeleteFunc(all, func(d *Daemon) bool { return d == nil || d.Process == nil })
}

// Logs returns what every daemon wrote, for a failed test.
func (n *Node) Logs() string {
	var b strings.Builder
	for _, daemon := range n.Daemons() {
		_, _ = fmt.Fprintf(&b, "--- %s\n%s", daemon.Name(), daemon.Log())
	}
	return b.String()
}
