package app

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/postern-dev/postern/internal/daemon"
)

// Defaults of flags which others have to agree with.
const (
	// defaultMaxResponse is the upstream driver's --max-call-recv-msg-size.
	defaultMaxResponse = 4 << 20
	// The directories in which providers made for the upstream driver put their
	// sockets, in the upstream driver's order.
	legacyDirEtc = "/etc/kubernetes/secrets-store-csi-providers"
	legacyDirVar = "/var/run/secrets-store-csi-providers"
	// The driver makes both, and has the same defaults.
	defaultListenDir    = "/run/postern/gateway"
	defaultProvidersDir = "/run/postern/providers"
)

// arguments are the flags as they were given.
type arguments struct {
	listenDir        string
	providersDir     string
	legacyDirs       []string
	metricsAddr      string
	allowedUIDs      []string
	maxResponseBytes int
	logLevel         string
	logFormat        string
	drainTimeout     time.Duration
}

// flags returns flags that are parsed into a.
func (a *arguments) flags() *daemon.Flags {
	f := daemon.NewFlags("postern-gateway", "Brings the node driver's fetches to the providers of this node.")
	f.Group("Sockets")
	f.String(&a.listenDir, "listen-dir", defaultListenDir, "directory in which the gateway makes its socket, gateway.sock; the driver's --gateway-dir")
	f.String(&a.providersDir, "providers-dir", defaultProvidersDir, "directory with one directory per provider, <name>/<instance>.sock; the driver's too")
	f.StringSlice(&a.legacyDirs, "legacy-providers-dirs", []string{legacyDirEtc, legacyDirVar},
		"directories with the sockets of providers made for the Secrets Store CSI driver, <name>.sock; the first wins")
	f.StringSlice(&a.allowedUIDs, "allowed-uids", []string{"0"}, "uids that may call the gateway")
	f.Group("Limits")
	f.Int(&a.maxResponseBytes, "max-response-bytes", defaultMaxResponse,
		"largest answer of a provider that is accepted: file contents, paths and object ids together")
	f.Duration(&a.drainTimeout, "drain-timeout", 25*time.Second, "how long calls under way may take once the process is told to end")
	f.Group("Observability")
	f.String(&a.metricsAddr, "metrics-addr", ":8096", "address for /metrics, /healthz and /readyz; empty for none")
	f.String(&a.logLevel, "log-level", "info", "debug, info, warn or error")
	f.String(&a.logFormat, "log-format", "json", "json or text")
	return f
}

// config is what the flags mean.
type config struct {
	listenDir        string
	providersDir     string
	legacyDirs       []string
	metricsAddr      string
	allowedUIDs      []uint32
	maxResponseBytes int
	drainTimeout     time.Duration
}

// resolve checks the flags together. The error is a [*daemon.UsageError].
func (a *arguments) resolve() (config, error) {
	switch {
	case a.listenDir == "":
		return config{}, usage("--listen-dir is required")
	case a.providersDir == "":
		return config{}, usage("--providers-dir is required")
	case a.maxResponseBytes <= 0:
		return config{}, usage("--max-response-bytes: %d is not more than 0", a.maxResponseBytes)
	case a.drainTimeout <= 0:
		return config{}, usage("--drain-timeout: %s is not more than 0", a.drainTimeout)
	case len(a.allowedUIDs) == 0:
		return config{}, usage("--allowed-uids: with no uid nobody could call the gateway")
	}
	cfg := config{
		listenDir:        a.listenDir,
		providersDir:     a.providersDir,
		legacyDirs:       slices.DeleteFunc(slices.Clone(a.legacyDirs), func(dir string) bool { return dir == "" }),
		metricsAddr:      a.metricsAddr,
		maxResponseBytes: a.maxResponseBytes,
		drainTimeout:     a.drainTimeout,
	}
	for _, text := range a.allowedUIDs {
		uid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return config{}, usage("--allowed-uids: %q is not a uid", text)
		}
		cfg.allowedUIDs = append(cfg.allowedUIDs, uint32(uid))
	}
	return cfg, nil
}

func usage(format string, args ...any) error {
	return &daemon.UsageError{Err: fmt.Errorf(format, args...)}
}
