package interop_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/process"
)

// posternNode is a node with Postern's driver and gateway, and no provider of
// Postern's.
type posternNode struct {
	*harness.Node

	// run and etc are the two directories in which providers made for the
	// upstream driver have their sockets; etc is looked at first.
	run, etc string
}

func startPosternNode(t *testing.T, gatewayArgs ...string) *posternNode {
	t.Helper()
	kubeconfig, err := servers.API.DriverKubeconfig(t.Context())
	must(t, err)
	second := directory(t)
	dirs := []string{"--legacy-providers-dirs", second} // beside the node's own
	started, err := harness.Start(t.Context(), harness.Config{
		Binaries: servers.binaries, Kubeconfig: kubeconfig,
		DriverArgs: dirs, GatewayArgs: append(dirs, gatewayArgs...),
	})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(started.Logs())
		}
		if err := started.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &posternNode{Node: started, etc: started.Path("legacy"), run: second}
	for _, dir := range []string{n.etc, n.run} {
		must(t, os.Chmod(dir, 0o700)) // as it may be on nodes
	}
	return n
}

// legacyProvider is a provider made from the upstream project's protocol
// package.
type legacyProvider struct {
	*process.Process

	cfg process.Config
}

// startLegacy starts one whose socket is in dir, named after the provider.
func startLegacy(t *testing.T, dir, name string) *legacyProvider {
	t.Helper()
	p := &legacyProvider{cfg: process.Config{
		Name: "upstreamprovider", Path: servers.upstreamProvider, LogFile: filepath.Join(t.TempDir(), "log"),
		Args: []string{filepath.Join(dir, name+".sock")},
	}}
	p.start(t)
	t.Cleanup(func() {
		select {
		case <-p.Done(): // on purpose
		default:
			must(t, p.Stop(15*time.Second))
		}
	})
	return p
}

// start starts it, again if it has ended. The gateway sees its socket by itself.
func (p *legacyProvider) start(t *testing.T) {
	t.Helper()
	started, err := process.Start(p.cfg)
	must(t, err)
	p.Process = started
}

// mounts counts the calls of Mount for pods whose names begin with prefix.
func (p *legacyProvider) mounts(prefix string) int { return strings.Count(p.Log(), "mount "+prefix) }

// called waits until there were so many calls for such pods.
func (p *legacyProvider) called(t *testing.T, prefix string, times int) {
	t.Helper()
	eventually(t, p.Process, func(context.Context) error {
		if got := p.mounts(prefix); got < times {
			return fmt.Errorf("Mount was called %d times for %s, want %d", got, prefix, times)
		}
		return nil
	})
}

// awaitServing waits until the gateway has found the provider and calls it.
func (n *posternNode) awaitServing(t *testing.T, p *legacyProvider) {
	t.Helper()
	eventually(t, n.Gateway.Process, func(context.Context) error {
		for line := range strings.Lines(n.Gateway.Log()) {
			if strings.Contains(line, p.cfg.Args[0]) && strings.Contains(line, `"state":"serving"`) {
				return nil
			}
		}
		return fmt.Errorf("the gateway does not say that %s serves", p.cfg.Args[0])
	})
}

// awaitEvent waits for an event of the volume's pod.
func (n *posternNode) awaitEvent(t *testing.T, v kubelet.Volume, reason string) {
	t.Helper()
	eventually(t, n.Driver.Process, func(ctx context.Context) error {
		events, err := servers.API.Client.CoreV1().Events(v.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, event := range events.Items {
			if event.Reason == reason && string(event.InvolvedObject.UID) == v.UID {
				return nil
			}
		}
		return fmt.Errorf("pod %s has no event %s", v.Pod, reason)
	})
}

// publish publishes the volume, once, and unpublishes it at the test's end.
func (n *posternNode) publish(t *testing.T, v kubelet.Volume) {
	t.Helper()
	t.Cleanup(func() { n.unpublish(t, v) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, n.Kubelet.Publish(ctx, v))
}

// publishFails publishes the volume, which is to fail and to leave no mount.
func (n *posternNode) publishFails(t *testing.T, v kubelet.Volume) error {
	t.Helper()
	t.Cleanup(func() { n.unpublish(t, v) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answer := n.Kubelet.Publish(ctx, v)
	if answer == nil {
		t.Fatal("the mount succeeded, want a failure")
	}
	if mounts, err := kubelet.Mounts(n.Kubelet.Target(v)); err != nil || len(mounts) > 0 {
		t.Errorf("mounted: %v (%v), want nothing", mounts, err)
	}
	return answer
}

func (n *posternNode) unpublish(t *testing.T, v kubelet.Volume) {
	t.Helper()
	if err := n.Kubelet.Unpublish(context.WithoutCancel(t.Context()), v); err != nil {
		t.Errorf("unpublish: %v", err)
	}
}
