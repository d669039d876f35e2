// Package app wires the driver together.
package app

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/postern-dev/postern/driver/internal/refresh"
	"github.com/postern-dev/postern/internal/daemon"
)

// flags are the command line as it was given.
type flags struct {
	endpoint       string
	nodeID         string
	kubeconfig     string
	spcDir         string
	gatewayDir     string
	gatewayUID     int
	providersDir   string
	providerUIDs   []string
	legacyDirs     []string
	kubeletRoot    string
	volumeSize     int
	stagingDir     string
	allowOverrides bool
	pollInterval   time.Duration
	syncNamespaces []string
	taintKey       string
	taintProviders []string
	metricsAddr    string
	pprof          bool
	logLevel       string
	logFormat      string
	drainTimeout   time.Duration
}

// newFlags declares the command line.
func newFlags(f *flags) *daemon.Flags {
	set := daemon.NewFlags("postern-driver", "Mounts secrets of external stores into pods: a CSI node driver.")
	set.Group("Node")
	set.String(&f.nodeID, "node-id", "", "name of this node in Kubernetes (required)")
	set.String(&f.endpoint, "endpoint", "unix:///csi/csi.sock", "CSI socket for kubelet")
	set.String(&f.kubeletRoot, "kubelet-root", "/var/lib/kubelet", "kubelet's --root-dir; volumes are mounted below it only")
	set.Int(&f.volumeSize, "volume-size", 16<<20, "how much a volume may hold, in bytes; memory is taken only for what it holds")
	set.String(&f.stagingDir, "staging-dir", "/run/postern/staging", "directory of the driver's own, used on kernels without detached mounts")
	set.Duration(&f.drainTimeout, "drain-timeout", 20*time.Second, "how long calls under way may go on when the driver is told to stop")

	set.Group("SecretProviderClasses")
	set.String(&f.kubeconfig, "kubeconfig", "", "kubeconfig file; default: the pod's service account")
	set.String(&f.spcDir, "spc-dir", "", "read SecretProviderClasses from YAML files in this directory and use no Kubernetes API")
	set.Bool(&f.allowOverrides, "allow-parameter-overrides", false,
		"let pods override parameters of their SecretProviderClass by volumeAttributes, as the upstream driver does")

	set.Group("Refresh and sync")
	set.Duration(&f.pollInterval, "rotation-poll-interval", 2*time.Minute,
		"how old the content of a mounted volume gets before it is fetched again, unless its SecretProviderClass says otherwise; 0: as old as it likes")
	set.StringSlice(&f.syncNamespaces, "sync-secret-namespaces", nil,
		"namespaces in which Kubernetes Secrets are made of mounted files, where a SecretProviderClass asks for it; *: all; the driver must be allowed to write them")

	set.Group("Gateway and providers")
	set.String(&f.gatewayDir, "gateway-dir", "/run/postern/gateway", "directory of the gateway's socket; the driver makes it")
	set.Int(&f.gatewayUID, "gateway-uid", 0, "uid that the gateway runs as; its group has the same number")
	set.String(&f.providersDir, "providers-dir", "/run/postern/providers", "directory of the providers' directories; the driver makes them")
	set.StringSlice(&f.providerUIDs, "provider-uids", nil, "providers and the uids that they run as, such as vault=65011,aws=65012")
	set.StringSlice(&f.legacyDirs, "legacy-providers-dirs",
		[]string{"/etc/kubernetes/secrets-store-csi-providers", "/var/run/secrets-store-csi-providers"},
		"directories of sockets of providers made for the upstream driver, opened to the gateway's group")

	set.Group("Startup taint")
	set.String(&f.taintKey, "startup-taint-key", "",
		"taint that the driver takes from its node once the gateway answers, so that pods come only then; empty: none")
	set.StringSlice(&f.taintProviders, "startup-taint-providers", nil, "providers that have to serve before that, such as vault,file")

	set.Group("Observability")
	set.String(&f.metricsAddr, "metrics-addr", ":8095", "address of /metrics, /healthz and /readyz; empty: none")
	set.Bool(&f.pprof, "pprof", false, "serve /debug/pprof on the metrics address")
	set.String(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	set.String(&f.logFormat, "log-format", "json", "json or text")
	return set
}

// socketPath is the path of a CSI endpoint: unix:///path, unix:/path or a path.
func socketPath(endpoint string) (string, error) {
	path := endpoint
	if strings.Contains(endpoint, ":") {
		parsed, err := url.Parse(endpoint)
		if err != nil || parsed.Scheme != "unix" || parsed.Host != "" {
			return "", fmt.Errorf("endpoint %q is not a unix socket: write unix:///path/csi.sock", endpoint)
		}
		path = parsed.Path
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("endpoint %q has no absolute path: write unix:///path/csi.sock", endpoint)
	}
	return path, nil
}

// parseUIDs reads name=uid pairs.
func parseUIDs(pairs []string) (map[string]int, error) {
	uids := make(map[string]int, len(pairs))
	owners := make(map[int]string, len(pairs))
	for _, pair := range pairs {
		name, text, ok := strings.Cut(pair, "=")
		uid, err := strconv.Atoi(text)
		if !ok || name == "" || err != nil || uid < 0 {
			return nil, fmt.Errorf("provider uid %q is not name=uid", pair)
		}
		if other, taken := owners[uid]; taken && other != name {
			return nil, fmt.Errorf("providers %q and %q have the same uid %d: each needs its own, by which the gateway tells them apart", other, name, uid)
		}
		uids[name], owners[uid] = uid, name
	}
	return uids, nil
}

func (f *flags) validate() error {
	switch {
	case f.nodeID == "":
		return errors.New("--node-id is required: the node's name, by the downward API's spec.nodeName")
	case f.spcDir != "" && f.kubeconfig != "":
		return errors.New("--spc-dir and --kubeconfig exclude one another")
	case f.taintKey != "" && f.spcDir != "":
		return errors.New("--startup-taint-key needs the Kubernetes API, which --spc-dir turns off")
	case f.taintKey == "" && len(f.taintProviders) > 0:
		return errors.New("--startup-taint-providers means nothing without --startup-taint-key")
	case f.volumeSize <= 0:
		return fmt.Errorf("--volume-size %d is not a size", f.volumeSize)
	case f.spcDir != "" && len(f.syncNamespaces) > 0:
		return errors.New("--sync-secret-namespaces needs the Kubernetes API, which --spc-dir turns off")
	}
	if err := refresh.CheckInterval(f.pollInterval); err != nil {
		return fmt.Errorf("--rotation-poll-interval: %w; 0 turns refreshes off", err)
	}
	return nil
}
