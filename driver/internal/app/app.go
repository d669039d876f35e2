package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	csiserver "github.com/postern-dev/postern/driver/internal/csi"
	"github.com/postern-dev/postern/driver/internal/gateway"
	"github.com/postern-dev/postern/driver/internal/hostdirs"
	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/publish"
	"github.com/postern-dev/postern/driver/internal/secretsync"
	"github.com/postern-dev/postern/driver/internal/spcdir"
	"github.com/postern-dev/postern/driver/internal/startuptaint"
	"github.com/postern-dev/postern/driver/internal/trigger"
	"github.com/postern-dev/postern/driver/internal/volume"
	"github.com/postern-dev/postern/internal/daemon"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
	"github.com/postern-dev/postern/internal/unixsocket"
)

const (
	service = "postern-driver"
	scope   = "github.com/postern-dev/postern/driver"
	// settleDelay is longer than it takes to mount the volumes of a full node.
	settleDelay = 500 * time.Millisecond
	// readyTimeout bounds how long a readiness check waits for the gateway.
	readyTimeout = 2 * time.Second
)

// Run is the driver: it reads the command line and serves until ctx ends.
func Run(ctx context.Context, env daemon.Env) error {
	var f flags
	if err := newFlags(&f).Parse(env); err != nil {
		return err
	}
	if err := f.validate(); err != nil {
		return &daemon.UsageError{Err: err}
	}
	t, err := telemetry.New(ctx, telemetry.Config{
		Service:    service,
		Version:    daemon.BuildInfo().Version,
		InstanceID: f.nodeID,
		LogLevel:   f.logLevel,
		LogFormat:  f.logFormat,
		Stderr:     env.Stderr,
		Getenv:     env.Getenv,
	})
	if err != nil {
		return err
	}
	d, err := newDriver(&f, t)
	if err != nil {
		err = &daemon.UsageError{Err: err}
	} else {
		err = d.run(ctx)
	}
	// What is left to export is worth a moment, also when ctx has ended.
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, t.Shutdown(flush))
}

// driver is the parts of the process.
type driver struct {
	socket   string
	dirs     *hostdirs.Dirs
	gateway  *gateway.Client
	volumes  *volume.Manager
	recorder recorder
	// taint is nil unless a startup taint is to be removed.
	taint     *startuptaint.Remover
	publisher *publish.Publisher
	// triggers is nil where there is no Kubernetes API.
	triggers *trigger.Watcher
	server   *rpc.Server
	admin    *daemon.Admin
}

func newDriver(f *flags, t *telemetry.Telemetry) (_ *driver, err error) {
	d := &driver{}
	defer func() {
		if err != nil && d.gateway != nil {
			err = errors.Join(err, d.gateway.Close())
		}
	}()
	if d.socket, err = socketPath(f.endpoint); err != nil {
		return nil, err
	}
	if d.dirs, err = newDirs(f, t.Logger); err != nil {
		return nil, err
	}
	if d.gateway, err = gateway.New(gateway.Config{Dir: f.gatewayDir, Telemetry: t}); err != nil {
		return nil, err
	}
	observe := newObserver(t.Logger)
	d.volumes, err = volume.New(volume.Config{
		Root: f.kubeletRoot, StagingDir: f.stagingDir, Size: int64(f.volumeSize), Logger: t.Logger, Observe: observe,
	})
	if err != nil {
		return nil, err
	}
	if err := d.addPublisher(f, t, observe); err != nil {
		return nil, err
	}
	if d.server, err = newServer(f, t, d.publisher, d.volumes.Check); err != nil {
		return nil, err
	}
	d.admin, err = newAdmin(f, t, d.gateway, d.volumes.Check)
	return d, err
}

func (d *driver) addPublisher(f *flags, t *telemetry.Telemetry, observe func(step string)) error {
	around, err := newSurroundings(f, t)
	if err != nil {
		return err
	}
	metrics, err := publish.NewMetrics(t.Meter(scope))
	if err != nil {
		return err
	}
	d.recorder = around.recorder
	if f.taintKey != "" {
		if d.taint, err = startuptaint.New(startuptaint.Config{
			Node: f.nodeID, Key: f.taintKey, Providers: f.taintProviders,
			Nodes: around.client, Gateway: d.gateway, Logger: t.Logger,
		}); err != nil {
			return err
		}
	}
	cfg := publish.Config{
		NodeName:                f.nodeID,
		SecretProviderClasses:   around.classes,
		Gateway:                 d.gateway,
		Volumes:                 d.volumes,
		Recorder:                around.recorder,
		Tracer:                  t.Tracer(scope),
		Metrics:                 metrics,
		Logger:                  t.Logger,
		AllowParameterOverrides: f.allowOverrides,
		RotationPollInterval:    f.pollInterval,
		Observe:                 observe,
	}
	if around.client != nil {
		if err := d.addTriggers(around.client, t.Logger); err != nil {
			return err
		}
		cfg.Cluster, cfg.Secrets, cfg.Triggers = around.client, around.secrets, d.triggers
	}
	d.publisher, err = publish.New(cfg)
	return err
}

// addTriggers has people who annotate a class reach the publisher.
func (d *driver) addTriggers(client *kube.Client, logger *slog.Logger) (err error) {
	d.triggers, err = trigger.New(trigger.Config{
		Classes: client,
		Changed: func(namespace, name, value string) { d.publisher.RequestRefresh(namespace, name, value) },
		Logger:  logger,
	})
	return err
}

func (d *driver) run(ctx context.Context) error {
	defer d.gateway.Close() //nolint:errcheck // nothing is left to do about it
	if err := d.dirs.Create(); err != nil {
		return err
	}
	if err := d.volumes.Sweep(ctx); err != nil {
		return err
	}
	// kubelet, the registrar and the liveness probe are root, and nobody else
	// may mount or unmount.
	listener, err := unixsocket.Listen(ctx, unixsocket.ListenConfig{
		Path: d.socket, Mode: 0o600, UID: unixsocket.Unowned, GID: unixsocket.Unowned,
	})
	if err != nil {
		return fmt.Errorf("listen for kubelet: %w", err)
	}
	// What calls leave to be done afterwards is done until the last one ended.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	return daemon.Group(ctx,
		func(ctx context.Context) error {
			defer stop()
			return d.server.Run(ctx, listener)
		},
		func(context.Context) error { return d.admin.Run(background) },
		func(context.Context) error { return d.gateway.Run(background) },
		func(context.Context) error { return d.dirs.Run(background) },
		func(context.Context) error { return d.publisher.Run(background) },
		func(context.Context) error { return d.watchTriggers(background) },
		func(context.Context) error { return d.recorder.Run(background) },
		d.removeTaint,
		daemon.TrimMemory,
	)
}

func (d *driver) removeTaint(ctx context.Context) error {
	if d.taint == nil {
		return nil
	}
	return d.taint.Run(ctx)
}

func (d *driver) watchTriggers(ctx context.Context) error {
	if d.triggers == nil {
		return nil
	}
	return d.triggers.Run(ctx)
}

func newDirs(f *flags, logger *slog.Logger) (*hostdirs.Dirs, error) {
	uids, err := parseUIDs(f.providerUIDs)
	if err != nil {
		return nil, err
	}
	return hostdirs.New(hostdirs.Config{
		GatewayDir:   f.gatewayDir,
		ProvidersDir: f.providersDir,
		LegacyDirs:   f.legacyDirs,
		GatewayUID:   f.gatewayUID,
		ProviderUIDs: uids,
		Logger:       logger,
	})
}

// surroundings is where SecretProviderClasses come from and where pods' users
// are told what happened.
type surroundings struct {
	classes  publish.SecretProviderClasses
	recorder recorder
	// client and secrets are nil where there is no Kubernetes API.
	client  *kube.Client
	secrets *secretsync.Syncer
}

type recorder interface {
	publish.Recorder
	Run(ctx context.Context) error
}

func newSurroundings(f *flags, t *telemetry.Telemetry) (surroundings, error) {
	if f.spcDir != "" {
		classes, err := spcdir.New(f.spcDir)
		if err != nil {
			return surroundings{}, err
		}
		recorder, err := podstatus.NewLogRecorder(t.Logger)
		return surroundings{classes: classes, recorder: recorder}, err
	}
	kube.RouteLibraryLogs(t.Logger)
	client, err := kube.New(kube.Config{Kubeconfig: f.kubeconfig, Logger: t.Logger, UserAgent: service + "/" + daemon.BuildInfo().Version})
	if err != nil {
		return surroundings{}, err
	}
	secrets, err := secretsync.New(secretsync.Config{
		Secrets: client, Pods: client, Namespaces: f.syncNamespaces, Node: f.nodeID,
		Meter: t.Meter(scope), Tracer: t.Tracer(scope), Logger: t.Logger,
	})
	if err != nil {
		return surroundings{}, err
	}
	recorder, err := podstatus.New(podstatus.Config{
		Node: f.nodeID, Statuses: client, Events: client, Logger: t.Logger, Settle: settleDelay,
	})
	return surroundings{classes: client, client: client, secrets: secrets, recorder: recorder}, err
}

func newServer(f *flags, t *telemetry.Telemetry, publisher csiserver.Publisher, check func(context.Context) error) (*rpc.Server, error) {
	identity, err := csiserver.NewIdentity(daemon.BuildInfo().Version, check)
	if err != nil {
		return nil, err
	}
	node, err := csiserver.NewNode(csiserver.NodeConfig{NodeID: f.nodeID, KubeletRoot: f.kubeletRoot, Publisher: publisher})
	if err != nil {
		return nil, err
	}
	server, err := rpc.NewServer(rpc.Config{Name: service, Logger: t.Logger, Telemetry: t, DrainTimeout: f.drainTimeout})
	if err != nil {
		return nil, err
	}
	server.RegisterService(&csi.Identity_ServiceDesc, identity)
	server.RegisterService(&csi.Node_ServiceDesc, node)
	return server, nil
}

func newAdmin(f *flags, t *telemetry.Telemetry, client *gateway.Client, check func(context.Context) error) (*daemon.Admin, error) {
	return daemon.NewAdmin(daemon.AdminConfig{
		Addr:      f.metricsAddr,
		Telemetry: t,
		Logger:    t.Logger,
		Pprof:     f.pprof,
		Live:      check,
		Ready: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, readyTimeout)
			defer cancel()
			return errors.Join(check(ctx), client.Check(ctx))
		},
	})
}
