package app

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/policy"
	"github.com/postern-dev/postern/gateway/internal/provider"
	"github.com/postern-dev/postern/gateway/internal/status"
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
	policyFile       string
	maxAge           time.Duration
	maxStale         time.Duration
	cacheBytes       int
	legacySharing    []string
	callTimeout      time.Duration
	maxCalls         int
	maxStoreCalls    int
	maxQueued        int
	maxRate          []string
}

// flags returns flags that are parsed into a.
func (a *arguments) flags() *daemon.Flags {
	f := daemon.NewFlags("postern-gateway", "Brings the node driver's fetches to the providers of this node.")
	f.Command(status.Name, status.Summary)
	f.Command(policy.CommandName, policy.CommandSummary)
	f.Group("Sockets")
	f.String(&a.listenDir, "listen-dir", defaultListenDir, "directory in which the gateway makes its socket, gateway.sock; the driver's --gateway-dir")
	f.String(&a.providersDir, "providers-dir", defaultProvidersDir, "directory with one directory per provider, <name>/<instance>.sock; the driver's too")
	f.StringSlice(&a.legacyDirs, "legacy-providers-dirs", []string{legacyDirEtc, legacyDirVar},
		"directories with the sockets of providers made for the Secrets Store CSI driver, <name>.sock; the first wins")
	f.StringSlice(&a.allowedUIDs, "allowed-uids", []string{"0"}, "uids that may call the gateway")
	f.StringSlice(&a.legacySharing, "legacy-sharing", nil,
		"names of providers made for the Secrets Store CSI driver whose answers may be served to all pods of a service account "+
			"that use the same SecretProviderClass: only for those whose answers depend on nothing else of the pod")
	f.Group("Policy")
	f.String(&a.policyFile, "policy-file", "", "file with the rules that say which fetches are allowed; all are if empty. It is read again when it changes")
	f.Group("Kept answers")
	f.Duration(&a.maxAge, "max-age", 10*time.Second,
		"how old a kept answer may be that is served to a new mount; 0 for none. SecretProviderClass parameter maxAge overrides it")
	f.Duration(&a.maxStale, "max-stale", 10*time.Minute,
		"how old a kept answer may be that is served to a new mount while the store is unreachable; 0 for none. "+
			"SecretProviderClass parameter maxStale overrides it")
	f.Int(&a.cacheBytes, "cache-bytes", 32<<20, "how much memory kept answers may take; what was not used for longest goes first")
	f.Group("Budgets")
	f.Duration(&a.callTimeout, "call-timeout", 30*time.Second, "how long one call of a provider may take")
	f.Int(&a.maxCalls, "max-calls", 64, "calls of one provider at a time; the last quarter is for stores that have no call under way")
	f.Int(&a.maxStoreCalls, "max-store-calls", 16, "calls at a time of one provider that concern the same store")
	f.Int(&a.maxQueued, "max-queued", 1024, "calls of one provider that may wait for their turn")
	f.StringSlice(&a.maxRate, "max-rate", nil, "calls of a provider per second, such as vault=20, aws=5; others have no limit")
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
	policyFile       string
	reuse            fetch.Reuse
	cacheBytes       int
	legacySharing    []string
	callTimeout      time.Duration
	limits           budget.Limits
	// rates are calls per second, by provider.
	rates map[string]float64
}

// resolve checks the flags together. The error is a [*daemon.UsageError].
func (a *arguments) resolve() (config, error) {
	if err := a.check(); err != nil {
		return config{}, err
	}
	cfg := config{
		listenDir:        a.listenDir,
		providersDir:     a.providersDir,
		legacyDirs:       slices.DeleteFunc(slices.Clone(a.legacyDirs), func(dir string) bool { return dir == "" }),
		metricsAddr:      a.metricsAddr,
		maxResponseBytes: a.maxResponseBytes,
		drainTimeout:     a.drainTimeout,
		policyFile:       a.policyFile,
		reuse:            fetch.Reuse{MaxAge: a.maxAge, MaxStale: a.maxStale},
		cacheBytes:       a.cacheBytes,
		legacySharing:    a.legacySharing,
		callTimeout:      a.callTimeout,
		limits:           budget.Limits{Calls: a.maxCalls, StoreCalls: a.maxStoreCalls, Queue: a.maxQueued},
		rates:            map[string]float64{},
	}
	for _, text := range a.maxRate {
		name, number, _ := strings.Cut(text, "=")
		rate, err := strconv.ParseFloat(number, 64)
		if err != nil || !(rate > 0) || math.IsInf(rate, 0) || !provider.ValidName(name) {
			return config{}, usage("--max-rate: %q is not a provider's name and a number above 0, such as vault=20", text)
		}
		cfg.rates[name] = rate
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

// check finds what is wrong with single flags.
func (a *arguments) check() error {
	switch {
	case a.listenDir == "":
		return usage("--listen-dir is required")
	case a.providersDir == "":
		return usage("--providers-dir is required")
	case len(a.allowedUIDs) == 0:
		return usage("--allowed-uids: with no uid nobody could call the gateway")
	case a.maxAge < 0:
		return usage("--max-age: %s is negative", a.maxAge)
	case a.maxStale < 0:
		return usage("--max-stale: %s is negative", a.maxStale)
	}
	for _, name := range a.legacySharing {
		if !provider.ValidName(name) {
			return usage("--legacy-sharing: %q is not a provider's name", name)
		}
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"drain-timeout", a.drainTimeout}, {"call-timeout", a.callTimeout}} {
		if d.value <= 0 {
			return usage("--%s: %s is not more than 0", d.flag, d.value)
		}
	}
	for _, n := range []struct {
		flag  string
		value int
	}{
		{"max-response-bytes", a.maxResponseBytes},
		{"cache-bytes", a.cacheBytes},
		{"max-calls", a.maxCalls},
		{"max-store-calls", a.maxStoreCalls},
		{"max-queued", a.maxQueued},
	} {
		if n.value <= 0 {
			return usage("--%s: %d is not more than 0", n.flag, n.value)
		}
	}
	return nil
}

func usage(format string, args ...any) error {
	return &daemon.UsageError{Err: fmt.Errorf(format, args...)}
}
