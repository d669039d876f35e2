package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/ports"
	"github.com/postern-dev/postern/test/process"
	"github.com/postern-dev/postern/test/upstream"
)

// upstreamNode is a node with the upstream driver and Postern's providers.
type upstreamNode struct {
	*upstream.Driver

	// store is the directory that the file provider serves.
	store string
	// vault may be killed and started again.
	vault *ownProvider
}

// startUpstreamNode starts the upstream driver with further flags, the Vault
// provider in one of the directories where it looks for sockets and the file
// provider in the other.
func startUpstreamNode(t *testing.T, args ...string) *upstreamNode {
	t.Helper()
	// The rights are not what is tested, so they are the admin's.
	kubeconfig, err := servers.API.AdminKubeconfig()
	must(t, err)
	driver, err := upstream.StartDriver(t.Context(), upstream.DriverConfig{
		Program: servers.upstreamDriver, Dir: directory(t), Kubeconfig: kubeconfig, Node: "node-1", Args: args,
	})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("--- the upstream driver\n" + driver.Log())
		}
		driver.Close()
	})
	n := &upstreamNode{Driver: driver, store: directory(t)}
	n.vault = startOwnProvider(t, "vault", driver.Providers, "--vault-addr", servers.Bao.Address)
	startOwnProvider(t, "file", driver.AdditionalProviders, "--root", n.store)
	return n
}

// ownProvider is a provider of Postern's, as it is run for the upstream driver:
// as root, with its socket where that driver looks.
type ownProvider struct {
	*process.Process

	cfg    process.Config
	health string
}

func startOwnProvider(t *testing.T, name, dir string, args ...string) *ownProvider {
	t.Helper()
	free, err := ports.Free(t.Context(), 1)
	must(t, err)
	p := &ownProvider{health: "127.0.0.1:" + strconv.Itoa(free[0])}
	p.cfg = process.Config{
		Name: "postern-provider-" + name, Path: filepath.Join(servers.binaries, "postern-provider-"+name),
		LogFile: filepath.Join(t.TempDir(), "log"),
		Args:    append([]string{"--listen-dir", dir, "--instance", name, "--health-addr", p.health}, args...),
	}
	p.start(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("--- %s\n%s", p.Name(), p.Log())
		}
		must(t, p.Stop(15*time.Second))
	})
	return p
}

// start starts it, again if it has ended, and waits until it is ready.
func (p *ownProvider) start(t *testing.T) {
	t.Helper()
	started, err := process.Start(p.cfg)
	must(t, err)
	p.Process = started
	eventually(t, p.Process, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.health+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := (&http.Client{Timeout: patience}).Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// publish publishes as kubelet does, again until it succeeds: the driver hears
// of a new class a moment after the API server has it. The volume is
// unpublished at the test's end.
func (n *upstreamNode) publish(t *testing.T, v kubelet.Volume) {
	t.Helper()
	t.Cleanup(func() { n.unpublish(t, v) })
	eventually(t, n.Process, func(ctx context.Context) error { return n.Kubelet.Publish(ctx, v) })
}

// publishFails publishes until the answer is anything but that the class is not
// known yet, and returns it.
func (n *upstreamNode) publishFails(t *testing.T, v kubelet.Volume) error {
	t.Helper()
	t.Cleanup(func() { n.unpublish(t, v) })
	var answer error
	eventually(t, n.Process, func(ctx context.Context) error {
		answer = n.Kubelet.Publish(ctx, v)
		if answer != nil && matches("{…}failed to get secretproviderclass{…}", answer.Error()) {
			return answer
		}
		return nil
	})
	if answer == nil {
		t.Fatal("the mount succeeded, want a failure")
	}
	return answer
}

// unpublish takes the volume away and checks that nothing is left of it.
func (n *upstreamNode) unpublish(t *testing.T, v kubelet.Volume) {
	t.Helper()
	if err := n.Kubelet.Unpublish(context.WithoutCancel(t.Context()), v); err != nil {
		t.Errorf("unpublish: %v", err)
	}
	if _, err := os.Stat(n.Kubelet.Target(v)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the target is still there after the unpublish (%v)", err)
	}
}

// podStatus is a SecretProviderClassPodStatus's status.
type podStatus struct {
	PodName, SecretProviderClassName, TargetPath string

	Mounted bool
	Objects []struct{ ID, Version string }
}

// status waits for the status object of a volume that fits.
func (n *upstreamNode) status(t *testing.T, v kubelet.Volume, fits func(podStatus) bool) podStatus {
	t.Helper()
	resource := schema.GroupVersionResource{
		Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasspodstatuses",
	}
	var status podStatus
	eventually(t, n.Process, func(ctx context.Context) (err error) {
		object, err := servers.API.Dynamic.Resource(resource).Namespace(v.Namespace).
			Get(ctx, v.Pod+"-"+v.Namespace+"-"+v.SecretProviderClass, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if status, err = statusOf(object); err != nil {
			return err
		}
		if !fits(status) {
			return fmt.Errorf("it is %+v", status)
		}
		return nil
	})
	return status
}

func statusOf(object *unstructured.Unstructured) (status podStatus, err error) {
	encoded, err := json.Marshal(object.Object["status"])
	if err != nil {
		return status, err
	}
	return status, json.Unmarshal(encoded, &status)
}

// version is an object's version in the status, or "".
func (s *podStatus) version(id string) string {
	i := slices.IndexFunc(s.Objects, func(o struct{ ID, Version string }) bool { return o.ID == id })
	if i < 0 {
		return ""
	}
	return s.Objects[i].Version
}
