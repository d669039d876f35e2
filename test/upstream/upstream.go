// Package upstream finds what the Secrets Store CSI driver's own Go module
// brings along: the manifests by which its users install it. The program itself
// is build.UpstreamDriver.
package upstream

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Names in the manifests.
const (
	// Version of the driver.
	Version = "v1.6.0"
	// Image of the driver that the manifests name. It needs the programs mount
	// and umount beside the driver.
	Image = "registry.k8s.io/csi-secrets-store/driver:" + Version
	// Namespace and DaemonSet of the driver.
	Namespace = "kube-system"
	DaemonSet = "csi-secrets-store"
)

const (
	modulePath = "sigs.k8s.io/secrets-store-csi-driver"
	// serversModule pins the version, relative to the repository's root.
	serversModule = "test/servers/upstreamdriver"
)

// Manifests returns the paths of the manifests for Linux, in the order in which
// they are to be applied: the CRDs, rights, CSIDriver, DaemonSet. Root is the
// repository's root.
func Manifests(ctx context.Context, root string) ([]string, error) {
	dir, err := moduleDir(ctx, root)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, name := range []string{
		"secrets-store.csi.x-k8s.io_secretproviderclasses.yaml",
		"secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml",
		"rbac-secretproviderclass.yaml",
		"csidriver.yaml",
		"secrets-store-csi-driver.yaml",
	} {
		path := filepath.Join(dir, "deploy", name)
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("look for a manifest of the upstream driver: %w", err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// moduleDir is where the module is; it is downloaded if need be.
func moduleDir(ctx context.Context, root string) (string, error) {
	if _, err := goCommand(ctx, root, "mod", "download", modulePath); err != nil {
		return "", err
	}
	dir, err := goCommand(ctx, root, "list", "-m", "-f", "{{.Dir}}", modulePath)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(dir), nil
}

func goCommand(ctx context.Context, root string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(root, serversModule)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the upstream driver's module: go %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(output), nil
}
