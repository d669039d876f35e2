package sdk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/postern-dev/postern/internal/daemon"
	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// The time after the last call is drained. With the default drain timeout it
// adds up to less than the 30 s that Kubernetes gives a pod.
const (
	shutdownTimeout = 5 * time.Second
	exportTimeout   = 3 * time.Second
)

// Main runs a provider until it is told to end, and returns its exit code. It
// is all that a provider's main function calls:
//
//	func main() { os.Exit(sdk.Main(example.Definition())) }
func Main(def Definition) int {
	return daemon.Main(processName(def), func(ctx context.Context, env Env) error {
		return Run(ctx, def, env)
	})
}

// Run is Main without a process: it serves until ctx ends, drains, and returns
// nil unless something went wrong.
func Run(ctx context.Context, def Definition, env Env) error {
	if err := def.Validate(); err != nil {
		return fmt.Errorf("definition of provider %q: %w", def.Name, err)
	}
	def = def.withDefaults()
	opts, err := parseOptions(def, env)
	if err != nil {
		return err
	}
	tel, err := telemetry.New(ctx, telemetry.Config{
		Service: processName(def), Version: def.Version, InstanceID: opts.instance,
		LogLevel: opts.logLevel, LogFormat: opts.logFormat, Stderr: env.Stderr, Getenv: env.Getenv,
	})
	if err != nil {
		return fmt.Errorf("set up telemetry: %w", err)
	}
	err = serve(ctx, &instance{def: &def, options: opts, telemetry: tel, getenv: env.Getenv})

	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), exportTimeout)
	defer cancel()
	// What is lost here are traces: no reason for another exit code.
	if telErr := tel.Shutdown(last); telErr != nil {
		tel.Logger.WarnContext(last, "cannot send the last traces", logkey.Error, telErr)
	}
	return err
}

func processName(def Definition) string { return "postern-provider-" + def.Name }

// instance is one run of a provider.
type instance struct {
	def       *Definition
	options   *options
	telemetry *telemetry.Telemetry
	getenv    func(string) string
	provider  Provider
	// listening is set once the socket is there.
	listening atomic.Bool
}

// serve makes the provider, runs it with its servers, and lets it shut down.
func serve(ctx context.Context, i *instance) error {
	env := Environment{
		Logger:         i.telemetry.Logger,
		TracerProvider: i.telemetry.TracerProvider,
		MeterProvider:  i.telemetry.MeterProvider,
		Getenv:         i.getenv,
		Version:        i.def.Version,
	}
	var err error
	if i.provider, err = i.def.New(ctx, env); err != nil {
		return fmt.Errorf("make provider %q: %w", i.def.Name, err)
	}
	if lister, ok := i.provider.(AudienceLister); ok {
		i.def.Audiences = slices.Concat(i.def.Audiences, lister.Audiences())
		if err := i.def.Validate(); err != nil {
			return fmt.Errorf("audiences of provider %q: %w", i.def.Name, err)
		}
	}
	svc, err := newService(i.def, i.provider, env)
	if err != nil {
		return err
	}
	server, err := i.newServer(svc)
	if err != nil {
		return err
	}
	admin, err := daemon.NewAdmin(daemon.AdminConfig{
		Addr: i.options.healthAddr, Telemetry: i.telemetry, Logger: i.telemetry.Logger,
		Live: i.live, Ready: i.ready,
	})
	if err != nil {
		return fmt.Errorf("make health server: %w", err)
	}
	if err := i.runAll(ctx, server, admin); err != nil {
		return err
	}
	i.telemetry.Logger.InfoContext(ctx, "provider has ended", logkey.Provider, i.def.Name)
	return nil
}

func (i *instance) newServer(svc *service) (*rpc.Server, error) {
	server, err := rpc.NewServer(rpc.Config{
		Name:         processName(*i.def),
		Logger:       i.telemetry.Logger,
		Telemetry:    i.telemetry,
		Authorize:    i.options.allowed.authorize,
		DrainTimeout: i.options.drainTimeout,
		// Its health is the process's: a store that is down is no reason for
		// the gateway to take the provider for gone.
	})
	if err != nil {
		return nil, fmt.Errorf("make gRPC server: %w", err)
	}
	server.RegisterService(&providerv1.ProviderService_ServiceDesc, &v1Server{service: svc})
	server.RegisterService(&v1alpha1.CSIDriverProvider_ServiceDesc, &mountServer{service: svc})
	return server, nil
}

// runAll runs until ctx ends. The provider's background work and the health
// server end after the last call is drained, and then comes Shutdown.
func (i *instance) runAll(ctx context.Context, server *rpc.Server, admin *daemon.Admin) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	err := daemon.Group(ctx,
		func(ctx context.Context) error {
			defer stop()
			listener, err := i.listen(ctx)
			if err != nil {
				return err
			}
			return server.Run(ctx, listener)
		},
		func(context.Context) error { return admin.Run(background) },
		func(context.Context) error { return i.runBackground(background) },
		daemon.TrimMemory,
	)
	return errors.Join(err, i.shutdown(ctx))
}

func (i *instance) runBackground(ctx context.Context) error {
	r, ok := i.provider.(Runner)
	if !ok {
		return nil
	}
	if err := r.Run(ctx); err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		return fmt.Errorf("run provider %q: %w", i.def.Name, err)
	}
	return nil
}

func (i *instance) shutdown(ctx context.Context) error {
	s, ok := i.provider.(Shutdowner)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return fmt.Errorf("shut down provider %q: %w", i.def.Name, err)
	}
	return nil
}

// health is the provider's own opinion.
func (i *instance) health(ctx context.Context) error {
	if h, ok := i.provider.(HealthChecker); ok {
		return h.Health(ctx)
	}
	return nil
}
