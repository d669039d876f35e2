package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/ports"
	"github.com/postern-dev/postern/test/process"
)

// startTimeout is how long the driver may take until it answers.
const startTimeout = 30 * time.Second

// DriverConfig is what a Driver needs.
type DriverConfig struct {
	// Program is build.UpstreamDriver's path. Required.
	Program string
	// Dir is an existing directory for its files; keep its path short, for the
	// sockets in it. Required.
	Dir string
	// Kubeconfig of somebody who may read pods and classes and write the
	// driver's status objects. Required.
	Kubeconfig string
	// Node is the node's name. Required.
	Node string
	// Args are flags beyond those, such as --enable-secret-rotation.
	Args []string
}

// Driver is the upstream driver, running as its DaemonSet would run it, but for
// the paths.
type Driver struct {
	*process.Process

	// Kubelet calls it.
	Kubelet *kubelet.Kubelet
	// Providers and AdditionalProviders are where it looks for the sockets of
	// providers, in the second first.
	Providers, AdditionalProviders string
	// Metrics is the address of its metrics.
	Metrics string
}

// StartDriver starts it and waits until it answers on its CSI socket. Its cache
// of classes may be a moment behind the API server's.
func StartDriver(ctx context.Context, cfg DriverConfig) (*Driver, error) {
	d := &Driver{
		Providers:           filepath.Join(cfg.Dir, "run-providers"),
		AdditionalProviders: filepath.Join(cfg.Dir, "etc-providers"),
	}
	plugin := filepath.Join(cfg.Dir, "kubelet/plugins/csi-secrets-store")
	for _, dir := range []string{d.Providers, d.AdditionalProviders, plugin, filepath.Join(cfg.Dir, "kubelet/pods")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the upstream driver's directories: %w", err)
		}
	}
	free, err := ports.Free(ctx, 1)
	if err != nil {
		return nil, err
	}
	d.Metrics = "127.0.0.1:" + strconv.Itoa(free[0])
	socket := filepath.Join(plugin, "csi.sock")
	if d.Kubelet, err = kubelet.New(socket, filepath.Join(cfg.Dir, "kubelet")); err != nil {
		return nil, err
	}
	d.Process, err = process.Start(process.Config{
		Name: "secrets-store-csi-driver", Path: cfg.Program, LogFile: filepath.Join(cfg.Dir, "upstream-driver.log"),
		Args: append([]string{
			"--endpoint=unix://" + socket, "--nodeid=" + cfg.Node, "--kubeconfig=" + cfg.Kubeconfig,
			"--provider-volume=" + d.Providers, "--additional-provider-volume-paths=" + d.AdditionalProviders,
			"--metrics-addr=" + d.Metrics,
		}, cfg.Args...),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := d.WaitFor(ctx, d.ready); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// ready tells whether it answers kubelet and serves its metrics, which it does
// once its caches run.
func (d *Driver) ready(ctx context.Context) error {
	d.Kubelet.Connect()
	if _, err := d.Kubelet.Probe(ctx, &csi.ProbeRequest{}); err != nil {
		return err
	}
	_, err := d.ReadMetrics(ctx)
	return err
}

// ReadMetrics returns what it has on /metrics.
func (d *Driver) ReadMetrics(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.Metrics+"/metrics", http.NoBody)
	if err != nil {
		return "", fmt.Errorf("read the upstream driver's metrics: %w", err)
	}
	req.Close = true
	resp, err := (&http.Client{Timeout: startTimeout}).Do(req)
	if err != nil {
		return "", fmt.Errorf("read the upstream driver's metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("read the upstream driver's metrics: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("read the upstream driver's metrics: %s", resp.Status)
	}
	return string(body), nil
}

// Close ends it at once; what it mounted stays mounted.
func (d *Driver) Close() {
	d.Kill()
	_ = d.Kubelet.Close() // closing twice is its only error
}
