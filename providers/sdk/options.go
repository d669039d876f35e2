package sdk

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-dev/postern/internal/daemon"
	"github.com/postern-dev/postern/internal/unixsocket"
)

// options are the flags that every provider has.
type options struct {
	listenDir    string
	instance     string
	allowed      allowedUIDs
	healthAddr   string
	logLevel     string
	logFormat    string
	drainTimeout time.Duration
}

// parseOptions declares the flags of every provider and the provider's own,
// and parses them.
func parseOptions(def Definition, env Env) (*options, error) {
	var (
		opts options
		uids []string
	)
	flags := daemon.NewFlags(processName(def), "serves secrets to the pods of a node as a provider of Postern")
	flags.String(&opts.listenDir, "listen-dir", "", "directory for the provider's socket (required)")
	flags.String(&opts.instance, "instance", "", "name of the socket without .sock (default the host's name and a "+
		"random part); the upstream driver wants the provider's name here")
	flags.StringSlice(&uids, "allowed-uids", []string{"0"}, "user ids that may call, besides the provider's own")
	flags.String(&opts.healthAddr, "health-addr", ":8080", "address for /healthz, /readyz and /metrics; empty for none")
	flags.String(&opts.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.String(&opts.logFormat, "log-format", "json", "text or json")
	flags.Duration(&opts.drainTimeout, "drain-timeout", 20*time.Second, "how long calls may take to end at shutdown")
	if def.Flags != nil {
		flags.Group("Provider " + def.Name)
		def.Flags(flags)
	}
	if err := flags.Parse(env); err != nil {
		return nil, err
	}
	if opts.listenDir == "" {
		return nil, UsageErrorf("--listen-dir is required")
	}
	var err error
	if opts.allowed, err = parseUIDs(uids); err != nil {
		return nil, err
	}
	if opts.instance == "" {
		opts.instance, err = newInstanceName(opts.listenDir)
	}
	if err == nil && (strings.HasPrefix(opts.instance, ".") || strings.ContainsAny(opts.instance, "/\x00")) {
		err = UsageErrorf("--instance %q is no file name", opts.instance)
	}
	return &opts, err
}

// UsageErrorf says that a flag or an environment variable is wrong. Where
// Definition.New returns it, the process ends with exit code 2 and a hint at
// its help.
func UsageErrorf(format string, args ...any) error {
	return &daemon.UsageError{Err: fmt.Errorf(format, args...)}
}

const (
	// maxHostLength is how much of a host's name is in an instance's name.
	maxHostLength = 40
	// randomLength is the length of the random part.
	randomLength = 8
)

// newInstanceName makes a name that no other instance has, and that leaves room
// for the directory in the path of a socket. The process id would not do: in a
// container it is always 1, and with the host's network two instances of a
// rolling update see the same host name.
func newInstanceName(dir string) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name the instance: %w", err)
	}
	random := strings.ToLower(rand.Text()[:randomLength])
	room := unixsocket.MaxPathLength - len(filepath.Join(dir, "-"+random+socketSuffix))
	host = host[:max(0, min(len(host), maxHostLength, room))]
	if host == "" {
		return random, nil
	}
	return host + "-" + random, nil
}

// allowedUIDs are the users that may call.
type allowedUIDs []uint32

func parseUIDs(texts []string) (allowedUIDs, error) {
	var uids allowedUIDs
	if own := os.Getuid(); own >= 0 {
		uids = append(uids, uint32(own))
	}
	for _, text := range texts {
		uid, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
		if err != nil {
			return nil, UsageErrorf("--allowed-uids: %q is not a user id", text)
		}
		uids = append(uids, uint32(uid))
	}
	return uids, nil
}

// authorize refuses other users.
func (a allowedUIDs) authorize(_ context.Context, peer unixsocket.Peer, _ string) error {
	if !slices.Contains(a, peer.UID) {
		return fmt.Errorf("user id %d may not call this provider: --allowed-uids does not list it", peer.UID)
	}
	return nil
}
