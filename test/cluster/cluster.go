// Package cluster runs a real Kubernetes cluster of one node: etcd, the control
// plane, kubelet, kube-proxy and containerd from this machine's packages, with
// CoreDNS as a pod. There is no registry, no Docker and no systemd.
//
// The node has mount, pid, network and uts namespaces of its own (see package
// node), so that several clusters can run at once and nothing of one is left on
// the host when it is down. It has no way out: pods reach one another, Services
// and what Listen opens, but neither the host nor the internet.
//
// What it does not do: NetworkPolicies are accepted but not enforced, and hostPort
// and Services of type LoadBalancer do nothing. A reboot is one for the node
// alone: the kernel and its clock go on.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/cluster/node"
)

// Config is what Up needs.
type Config struct {
	// Builder finds or builds the binaries. Required.
	Builder *build.Builder
	// Dir holds all that the cluster has. Up makes it, or cleans up what a crash
	// left there; Down removes it. Required.
	Dir string
	// Images are tarballs of further images that pods may use.
	Images []string
	// Progress gets a line for each step. Required.
	Progress io.Writer
	// NodeName is the node's; "" is "node-1".
	NodeName string
	// ExitWithParent ends the cluster, and removes what it had, when this process
	// ends without having called Down, however it ends. Else it stays.
	ExitWithParent bool
}

// Cluster is a running cluster.
type Cluster struct {
	dir      layout
	nodeName string
	rest     *rest.Config
	sayMu    sync.Mutex // of progress
	progress io.Writer
	start    time.Time
	pid      atomic.Int64 // of process 1, as last seen
	// lifeline of process 1, held open as long as it is to end with this process.
	lifeline *os.File
}

// ErrRunning is returned by Up when there is a cluster in the directory.
var ErrRunning = errors.New("a cluster is running there already")

// Up starts a cluster and returns when its node is Ready and its DNS answers.
// When it fails it leaves nothing but the logs, of which its error shows the end.
func Up(ctx context.Context, cfg Config) (*Cluster, error) {
	switch {
	case cfg.Builder == nil:
		return nil, errors.New("cluster: Builder is not set")
	case cfg.Dir == "":
		return nil, errors.New("cluster: Dir is not set")
	case cfg.Progress == nil:
		return nil, errors.New("cluster: Progress is not set")
	case cfg.NodeName == "":
		cfg.NodeName = "node-1"
	}
	if missing := Missing(); len(missing) > 0 {
		return nil, fmt.Errorf("this machine cannot run a cluster; it lacks\n  %s", strings.Join(missing, "\n  "))
	}
	programs, err := buildPrograms(ctx, cfg.Builder)
	if err != nil {
		return nil, err
	}
	l, err := claim(ctx, cfg.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: l, nodeName: cfg.NodeName, progress: cfg.Progress, start: time.Now()}
	if err := c.up(ctx, cfg, programs); err != nil {
		return nil, c.giveUp(context.WithoutCancel(ctx), err, ctx.Err() != nil)
	}
	return c, nil
}

// claim makes the directory ours.
func claim(ctx context.Context, dir string) (layout, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolve the cluster's directory: %w", err)
	}
	l := layout(absolute)
	if _, err := findInit(l); err == nil {
		return "", fmt.Errorf("%s: %w", dir, ErrRunning)
	}
	if err := Remove(ctx, absolute); err != nil { // what a crash has left
		return "", err
	}
	if err := os.RemoveAll(failedLogs(l)); err != nil {
		return "", fmt.Errorf("remove the logs of a failed start: %w", err)
	}
	if err := os.MkdirAll(absolute, 0o700); err != nil {
		return "", fmt.Errorf("make the cluster's directory: %w", err)
	}
	return l, nil
}

func (c *Cluster) up(ctx context.Context, cfg Config, programs programs) error {
	spec := node.Spec{
		Dir: string(c.dir), Hostname: c.nodeName, Addresses: []string{nodeAddress + "/32"},
		// By it the node itself reaches Services; kube-proxy then sends packets elsewhere.
		Routes: []string{serviceCIDR + " dev lo src " + nodeAddress},
		Cgroup: c.dir.cgroup(), Processes: c.dir.processes(c.nodeName),
	}
	if err := spec.Write(); err != nil { // first: by it Remove knows the directory
		return err
	}
	if err := c.dir.make(); err != nil {
		return err
	}
	if err := programs.install(c.dir); err != nil {
		return err
	}
	plugins, err := findCNIPlugins()
	if err != nil {
		return err
	}
	if err := c.dir.writeConfig(c.nodeName, plugins); err != nil {
		return err
	}
	if err := writePKI(c.dir, c.nodeName); err != nil {
		return err
	}
	images, err := programs.images(c.dir.images())
	if err != nil {
		return err
	}
	c.say("certificates and configuration are written to %s", c.dir)
	if err := c.boot(ctx); err != nil {
		return err
	}
	if err := c.load(); err != nil {
		return err
	}
	if err := c.bringUp(ctx, append(images, cfg.Images...)); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir.images()); err != nil {
		return fmt.Errorf("remove the tarballs that were imported: %w", err)
	}
	if cfg.ExitWithParent {
		return nil
	}
	return c.letStay()
}

// boot starts process 1.
func (c *Cluster) boot(ctx context.Context) error {
	if err := node.MakeCgroups(c.dir.cgroup()); err != nil {
		return err
	}
	lifeline, err := startInit(ctx, c.dir)
	if err != nil {
		return err
	}
	c.lifeline = lifeline
	return nil
}

// letStay lets the node outlive this process.
func (c *Cluster) letStay() error {
	_, err := c.lifeline.WriteString(node.Stay)
	if err = errors.Join(err, c.lifeline.Close()); err != nil {
		return fmt.Errorf("let the node go on by itself: %w", err)
	}
	c.lifeline = nil
	return nil
}

// giveUp removes what a failed start has made, but for the logs.
func (c *Cluster) giveUp(ctx context.Context, cause error, interrupted bool) error {
	if interrupted {
		return errors.Join(cause, c.Down(ctx))
	}
	if err := killInit(ctx, c.dir); err != nil {
		return errors.Join(cause, err)
	}
	var f *failure
	if errors.As(cause, &f) {
		kept := failedLogs(c.dir)
		if err := os.Rename(node.LogDir(string(c.dir)), kept); err != nil {
			return errors.Join(cause, err, c.Down(ctx))
		}
		cause = fmt.Errorf("%w\nall logs are in %s\n%s", cause, kept, tails(kept, f.blame))
	}
	return errors.Join(cause, c.Down(ctx))
}

// failedLogs is where the logs of a start that failed are, until the next one.
func failedLogs(l layout) string { return string(l) + "-failed-logs" }

// Open attaches to the cluster that runs in dir.
func Open(dir string) (*Cluster, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve the cluster's directory: %w", err)
	}
	c := &Cluster{dir: layout(absolute), progress: io.Discard, start: time.Now()}
	if _, err := c.initPID(); err != nil {
		return nil, fmt.Errorf("open the cluster in %s: %w", dir, err)
	}
	spec, err := node.ReadSpec(absolute)
	if err != nil {
		return nil, err
	}
	c.nodeName = spec.Hostname
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// load reads the administrator's access.
func (c *Cluster) load() error {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	config.Dial, config.QPS = c.Dial, -1 // no throttle: tests measure the cluster, not the client
	c.rest = config
	return nil
}

// Down ends the cluster and removes all that it had.
func (c *Cluster) Down(ctx context.Context) error {
	err := Remove(ctx, string(c.dir))
	if c.lifeline != nil {
		err = errors.Join(err, c.lifeline.Close())
		c.lifeline = nil
	}
	return err
}

// Remove ends the cluster in dir, if one runs there, and removes whatever is left
// of it, also after a crash. It may be called again.
func Remove(ctx context.Context, dir string) error {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("resolve the cluster's directory: %w", err)
	}
	l := layout(absolute)
	if err := killInit(ctx, l); err != nil {
		return err
	}
	if err := node.RemoveCgroups(ctx, l.cgroup()); err != nil {
		return err
	}
	entries, err := os.ReadDir(absolute)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look at the cluster's directory: %w", err)
	}
	if _, err := os.Stat(node.SpecFile(absolute)); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s holds other files and no cluster: it is not removed; choose another directory", absolute)
	}
	if err := os.RemoveAll(absolute); err != nil {
		return fmt.Errorf("remove the cluster's directory: %w", err)
	}
	return nil
}

// Reboot ends everything on the node at once, as a power cut would, and starts it
// again from its disk. It returns when the node is Ready and its DNS answers.
func (c *Cluster) Reboot(ctx context.Context) error {
	c.start = time.Now()
	if err := killInit(ctx, c.dir); err != nil {
		return err
	}
	if err := node.RemoveCgroups(ctx, c.dir.cgroup()); err != nil {
		return err
	}
	stays := c.lifeline == nil
	if !stays {
		_ = c.lifeline.Close() // nobody reads it any more
	}
	c.say("everything on the node has ended")
	if err := c.boot(ctx); err != nil {
		return err
	}
	if err := c.bringUp(ctx, nil); err != nil {
		var f *failure
		if errors.As(err, &f) {
			return fmt.Errorf("%w\n%s", err, tails(node.LogDir(string(c.dir)), f.blame))
		}
		return err
	}
	if stays {
		return c.letStay()
	}
	return nil
}

// initPID returns the host's process id of process 1.
func (c *Cluster) initPID() (int, error) {
	if pid := int(c.pid.Load()); pid != 0 && isInit(c.dir, pid) {
		return pid, nil
	}
	pid, err := findInit(c.dir)
	c.pid.Store(int64(pid))
	return pid, err
}

// Dir is the directory that holds all that the cluster has.
func (c *Cluster) Dir() string { return string(c.dir) }

// NodeName is the name of the node.
func (c *Cluster) NodeName() string { return c.nodeName }

// HostIP is the node's address, at which pods reach what Listen opens.
func (c *Cluster) HostIP() string { return nodeAddress }

// Kubeconfig is the path of the administrator's kubeconfig. Its address is that
// of the cluster's network: see Command and RESTConfig.
func (c *Cluster) Kubeconfig() string { return c.dir.kubeconfig("admin") }

// RESTConfig returns the administrator's access. It works from this process,
// since its connections are made in the cluster's network.
func (c *Cluster) RESTConfig() (*rest.Config, error) { return rest.CopyConfig(c.rest), nil }

func (c *Cluster) say(format string, args ...any) {
	c.sayMu.Lock()
	defer c.sayMu.Unlock()
	seconds := time.Since(c.start).Seconds()
	_, _ = fmt.Fprintf(c.progress, "cluster: %5.1fs  %s\n", seconds, fmt.Sprintf(format, args...))
}
