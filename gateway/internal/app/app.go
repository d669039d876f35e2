// Package app assembles the gateway: flags, telemetry, registry, service and
// their lives.
package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/gateway/internal/cache"
	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/hardening"
	"github.com/postern-dev/postern/gateway/internal/policy"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/gateway/internal/service"
	"github.com/postern-dev/postern/gateway/internal/status"
	"github.com/postern-dev/postern/internal/daemon"
	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
	"github.com/postern-dev/postern/internal/unixsocket"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

const (
	// scope names the instruments of the gateway.
	scope = "github.com/postern-dev/postern/gateway"
	// socketName is what the driver expects in the gateway's directory.
	socketName = "gateway.sock"
	// messageSlack is what a message may have beyond the contents, paths and
	// ids that --max-response-bytes counts.
	messageSlack = 1 << 20
	// minMessage is the least limit of messages with the driver.
	minMessage = 16 << 20
	// flushTimeout bounds how long the last spans may take to leave.
	flushTimeout = 5 * time.Second
	// settleTimeout bounds how long a new gateway leaves the socket to an older
	// one, because of a provider that does not answer.
	settleTimeout = time.Second
)

// Run is the gateway: it parses the flags and serves until ctx ends. Its
// commands end by themselves.
func Run(ctx context.Context, env daemon.Env) error {
	if rest, ok := env.Command(status.Name); ok {
		return status.Command(ctx, rest)
	}
	if rest, ok := env.Command(policy.CommandName); ok {
		return policy.Command(ctx, rest)
	}
	var args arguments
	if err := args.flags().Parse(env); err != nil {
		return err
	}
	cfg, err := args.resolve()
	if err != nil {
		return err
	}
	build := daemon.BuildInfo()
	tel, err := telemetry.New(ctx, telemetry.Config{
		Service:   "postern-gateway",
		Version:   build.Version,
		LogLevel:  args.logLevel,
		LogFormat: args.logFormat,
		Stderr:    env.Stderr,
		Getenv:    env.Getenv,
	})
	if err != nil {
		return fmt.Errorf("set up telemetry: %w", err)
	}
	err = serve(ctx, cfg, tel, build.Version)
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	return errors.Join(err, tel.Shutdown(flush))
}

func serve(ctx context.Context, cfg config, tel *telemetry.Telemetry, version string) error {
	g, err := newGateway(cfg, tel, version)
	if err != nil {
		return err
	}
	if err := g.harden(ctx); err != nil {
		return err
	}
	return g.run(ctx)
}

// gateway is all parts put together.
type gateway struct {
	cfg      config
	tel      *telemetry.Telemetry
	registry *registry.Registry
	policy   *policy.Enforcer
	budgets  *budget.Budgets
	cache    *cache.Cache
	fetcher  *fetch.Fetcher
	service  *service.Service
	server   *rpc.Server
	admin    *daemon.Admin
	// listening is set while the socket is there.
	listening atomic.Bool
}

func newGateway(cfg config, tel *telemetry.Telemetry, version string) (*gateway, error) {
	g := &gateway{cfg: cfg, tel: tel}
	var err error
	if g.registry, err = registry.New(registry.Config{
		NativeDir:       cfg.providersDir,
		LegacyDirs:      cfg.legacyDirs,
		MaxMessageBytes: cfg.maxResponseBytes + messageSlack,
		DialOptions:     []grpc.DialOption{tel.ClientOption()},
		Logger:          tel.Logger,
	}); err != nil {
		return nil, err
	}
	if err := g.prepareFetches(); err != nil {
		return nil, err
	}
	if g.server, err = newServer(g, version); err != nil {
		return nil, err
	}
	if err := g.observe(tel.Meter(scope)); err != nil {
		return nil, err
	}
	g.admin, err = daemon.NewAdmin(daemon.AdminConfig{
		Addr:      cfg.metricsAddr,
		Telemetry: tel,
		Ready:     g.ready,
		Live:      g.live,
		Debug:     map[string]http.Handler{status.Path: status.Handler(g.service.Report)},
		Logger:    tel.Logger,
	})
	return g, err
}

// prepareFetches makes all that stands between the driver and the providers.
func (g *gateway) prepareFetches() (err error) {
	cfg, tel := g.cfg, g.tel
	if g.policy, err = policy.Open(policy.Config{Path: cfg.policyFile, Logger: tel.Logger, Meter: tel.Meter(scope)}); err != nil {
		return err
	}
	limits := make(map[string]budget.Limits, len(cfg.rates))
	for name, rate := range cfg.rates {
		own := cfg.limits
		own.Rate = rate
		limits[name] = own
	}
	if g.budgets, err = budget.New(budget.Config{Default: cfg.limits, Providers: limits, Meter: tel.Meter(scope)}); err != nil {
		return err
	}
	if g.cache, err = cache.New(cache.Config{MaxBytes: cfg.cacheBytes}); err != nil {
		return err
	}
	g.fetcher, err = fetch.New(fetch.Config{
		Providers:        g.registry,
		Policy:           g.policy,
		Budgets:          g.budgets,
		Cache:            g.cache,
		Reuse:            cfg.reuse,
		LegacySharing:    cfg.legacySharing,
		CallTimeout:      cfg.callTimeout,
		MaxResponseBytes: cfg.maxResponseBytes,
		Logger:           tel.Logger,
		Tracer:           tel.Tracer(scope),
		Meter:            tel.Meter(scope),
	})
	return err
}

// newServer returns the server for the driver.
func newServer(g *gateway, version string) (*rpc.Server, error) {
	var err error
	if g.service, err = service.New(service.Config{
		Fetcher: g.fetcher, Providers: g.registry, Budgets: g.budgets, Cache: g.cache, Policy: g.policy, Version: version,
	}); err != nil {
		return nil, err
	}
	server, err := rpc.NewServer(rpc.Config{
		Name:            "gateway",
		Logger:          g.tel.Logger,
		Telemetry:       g.tel,
		Authorize:       service.Authorize(g.cfg.allowedUIDs),
		MaxMessageBytes: max(minMessage, g.cfg.maxResponseBytes+messageSlack),
		DrainTimeout:    g.cfg.drainTimeout,
		Health:          map[string]func(context.Context) error{"registry": g.registry.Ready},
	})
	if err != nil {
		return nil, err
	}
	gatewayv1.RegisterGatewayServiceServer(server, g.service)
	return server, nil
}

// harden does what this system has to keep the process' memory to itself.
func (g *gateway) harden(ctx context.Context) error {
	result, err := hardening.Apply()
	if err != nil {
		return fmt.Errorf("harden the process: %w", err)
	}
	if !result.MemoryLocked {
		g.tel.Logger.LogAttrs(ctx, slog.LevelInfo, "memory is not locked and may be swapped out",
			slog.String(logkey.Reason, result.MemoryReason))
	}
	if !result.DumpEmpty {
		g.tel.Logger.LogAttrs(ctx, slog.LevelWarn, "a core dump that root makes would hold secrets",
			slog.String(logkey.Reason, result.DumpReason))
	}
	return nil
}

// ready reports whether the driver can call.
func (g *gateway) ready(ctx context.Context) error {
	if !g.listening.Load() {
		return errors.New("the gateway's socket is not there")
	}
	return errors.Join(g.live(ctx), g.registry.Ready(ctx))
}

// live looks whether the socket is there: this gateway's, or that of a newer
// one that took the path over. If none is, the directory was made anew, and
// only a container that starts again sees the new one.
func (g *gateway) live(context.Context) error {
	if !g.listening.Load() {
		return nil // starting or draining
	}
	info, err := os.Lstat(g.socket())
	if err != nil {
		return fmt.Errorf("look for the own socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("look for the own socket: %s is something else (%v)", g.socket(), info.Mode())
	}
	return nil
}

func (g *gateway) socket() string { return filepath.Join(g.cfg.listenDir, socketName) }

// run serves until ctx ends. The providers' connections and what is kept outlive
// the server, so that calls under way can finish.
func (g *gateway) run(ctx context.Context) error {
	providers, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	return daemon.Group(ctx,
		func(context.Context) error { return g.registry.Run(providers) },
		func(ctx context.Context) error {
			defer stop()
			return g.serveDriver(ctx)
		},
		func(context.Context) error { return g.cache.Run(providers) },
		g.policy.Run,
		g.admin.Run,
		daemon.TrimMemory,
	)
}

// serveDriver takes the socket, from an older gateway if there is one, as soon
// as the providers that are there can be called.
func (g *gateway) serveDriver(ctx context.Context) error {
	settling, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := g.registry.Settled(settling); err != nil && ctx.Err() == nil {
		g.tel.Logger.LogAttrs(ctx, slog.LevelInfo, "a provider does not answer yet; the gateway starts without it")
	}
	listener, err := unixsocket.Await(ctx, unixsocket.ListenConfig{
		Path: g.socket(), UID: unixsocket.Unowned, GID: unixsocket.Unowned, TakeOver: true,
	}, func(why error) {
		g.tel.Logger.LogAttrs(ctx, slog.LevelWarn, "the gateway's directory cannot be used yet; waiting for the driver, which makes it",
			slog.String(logkey.Error, why.Error()))
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // told to end before it began
	case err != nil:
		return fmt.Errorf("listen for the driver: %w", err)
	}
	g.listening.Store(true)
	defer g.listening.Store(false)
	// Calls that wait for a provider need not wait here.
	defer context.AfterFunc(ctx, g.registry.StopWaiting)()
	g.tel.Logger.LogAttrs(ctx, slog.LevelInfo, "gateway listens", slog.String(logkey.Socket, g.socket()))
	return g.server.Run(ctx, listener)
}
