// Package publish brings a pod's secrets to its volume: it reads the
// SecretProviderClass, gets the secrets from the gateway and has the volume put
// in place, or takes it away again.
package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/keylock"
	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/refresh"
	"github.com/postern-dev/postern/driver/internal/secretsync"
	"github.com/postern-dev/postern/driver/internal/volume"
	"github.com/postern-dev/postern/internal/daemon"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// answerMargin is kept of the caller's deadline, so that the answer says
// what is missing instead of arriving too late.
const answerMargin = time.Second

// SecretProviderClasses finds a SecretProviderClass, or fails with
// spc.ErrNotFound.
type SecretProviderClasses interface {
	SecretProviderClass(ctx context.Context, namespace, name string) (*apiv1.SecretProviderClass, error)
}

// Cluster is what Kubernetes knows of a pod's surroundings.
type Cluster interface {
	ServiceAccountAnnotations(ctx context.Context, namespace, name string, keys []string) (map[string]string, error)
	NodeLabels(ctx context.Context, name string, keys []string) (map[string]string, error)
	PodExists(ctx context.Context, namespace, name, uid string) (bool, error)
}

// Gateway is the node's gateway.
type Gateway interface {
	Connected() bool
	Describe(ctx context.Context, provider string) (*providerv1.DescribeResponse, error)
	Fetch(ctx context.Context, request *gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error)
	Release(ctx context.Context, volumeID string) error
}

// Volumes puts volumes in place and takes them away.
type Volumes interface {
	State(target string) (volume.State, error)
	Publish(ctx context.Context, spec volume.Spec) error
	Update(ctx context.Context, spec volume.Spec) (changed bool, err error)
	Read(target string) ([]volume.File, error)
	Unpublish(ctx context.Context, target string) error
}

// Secrets keeps Kubernetes Secrets that mirror volumes.
type Secrets interface {
	Sync(ctx context.Context, volume secretsync.Volume) (secretsync.Result, error)
	Forget(volumeID string)
}

// Triggers watches the classes of volumes for people who ask for a refresh; they
// reach RequestRefresh.
type Triggers interface {
	Add(volumeID, namespace, class string)
	Remove(volumeID string)
}

// Recorder tells the pod's users what happened, after the call is answered.
type Recorder interface {
	Mounted(status podstatus.Status)
	Forget(volumeID string)
	Tell(event podstatus.Event)
}

// Config is what New needs.
type Config struct {
	NodeName              string
	SecretProviderClasses SecretProviderClasses
	// Cluster, Secrets and Triggers are nil where there is no Kubernetes API.
	Cluster  Cluster
	Secrets  Secrets
	Triggers Triggers
	Gateway  Gateway
	Volumes  Volumes
	Recorder Recorder
	Tracer   trace.Tracer
	Metrics  *Metrics
	Logger   *slog.Logger
	// AllowParameterOverrides lets a pod's volumeAttributes override the
	// SPC's parameters, as the upstream driver does. Whoever may create a pod
	// may then choose role and address, whatever the SPC says.
	AllowParameterOverrides bool
	// RotationPollInterval is how old a volume's content gets before it is fetched
	// again, unless its class says otherwise. 0: as old as it likes.
	RotationPollInterval time.Duration
	// Observe is called before each step of a publish with the step's name;
	// tests kill the process there. It may be nil, and must be safe for
	// concurrent use.
	Observe func(step string)
}

// Publisher publishes volumes, refreshes them while they are there, and
// unpublishes them.
//
// Invariants:
//  1. A target is either not mounted or complete when Publish returns, with
//     whatever error.
//  2. Calls on one target run one after the other. A refresh waits for its store
//     beside them, and takes its turn to write.
//  3. Unpublish needs neither the gateway nor the API server.
//  4. A volume that was complete stays so, and a refresh that fails leaves its
//     content as it was.
//  5. All that is known of a volume is forgotten when it is unpublished. What is
//     known is worth a fetch, no more: the state of a volume is its mount.
type Publisher struct {
	cfg      Config
	locks    keylock.Locks
	mounted  *mountedVolumes
	schedule *refresh.Schedule
	releaser *releaser
}

// New returns a Publisher. Run must run for volumes to be refreshed and released.
func New(cfg Config) (*Publisher, error) {
	switch {
	case cfg.SecretProviderClasses == nil:
		return nil, errors.New("publisher needs a source of SecretProviderClasses")
	case cfg.Gateway == nil:
		return nil, errors.New("publisher needs a gateway")
	case cfg.Volumes == nil:
		return nil, errors.New("publisher needs volumes")
	case cfg.Recorder == nil || cfg.Tracer == nil || cfg.Metrics == nil || cfg.Logger == nil:
		return nil, errors.New("publisher needs a recorder, a tracer, metrics and a logger")
	}
	p := &Publisher{cfg: cfg, releaser: newReleaser(cfg.Gateway, cfg.Logger)}
	var err error
	if p.schedule, err = refresh.NewSchedule(p.refresh); err != nil {
		return nil, err
	}
	triggers := cfg.Triggers
	if triggers == nil {
		triggers = noTriggers{}
	}
	p.mounted = &mountedVolumes{timing: refresh.Timing{Node: cfg.NodeName}, schedule: p.schedule, triggers: triggers}
	return p, cfg.Metrics.observe(p.mounted.all)
}

// Run refreshes volumes that are due, and releases unpublished ones at the
// gateway, until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	p.cfg.Metrics.start(ctx)
	return daemon.Group(ctx, p.schedule.Run, p.releaser.run)
}

// Publish makes the volume appear at its target, complete, or returns why not.
// It is idempotent: kubelet repeats the call while the pod lives, with fresh
// tokens, which are kept for the next refresh. It does not fetch for a volume
// that is there: kubelet does nothing else for the pod while it waits.
func (p *Publisher) Publish(ctx context.Context, request Request) error {
	ctx, cancel := rpc.WithMargin(ctx, answerMargin)
	defer cancel()
	unlock, err := p.locks.Lock(ctx, request.Target)
	if err != nil {
		return busyError(request.Target)
	}
	defer unlock()
	p.releaser.forget(request.VolumeID)

	t := &transaction{publisher: p, request: request}
	t.observe("look at the target")
	state, err := p.cfg.Volumes.State(request.Target)
	switch {
	case err != nil:
		err = mountPointError(request.Target, err)
	case state == volume.Complete:
		p.mounted.renew(request)
		return nil
	}
	started := time.Now()
	var o outcome
	if err == nil {
		o, err = t.mount(ctx)
	}
	p.cfg.Metrics.published(ctx, t.provider, started, err)
	if err != nil {
		t.recordFailure(ctx, err)
		return err
	}
	t.recordMounted(p.mounted.mounted(request, o))
	return nil
}

// Unpublish takes the volume away, whatever state it is in, and has the
// gateway told. It is idempotent.
func (p *Publisher) Unpublish(ctx context.Context, volumeID, target string) error {
	unlock, err := p.locks.Lock(ctx, target)
	if err != nil {
		return busyError(target)
	}
	defer unlock()
	err = p.cfg.Volumes.Unpublish(ctx, target)
	p.cfg.Metrics.unpublished(ctx, err)
	if err != nil {
		return unpublishError(target, err)
	}
	p.mounted.remove(volumeID)
	if p.cfg.Secrets != nil {
		p.cfg.Secrets.Forget(volumeID)
	}
	p.cfg.Recorder.Forget(volumeID)
	p.releaser.release(volumeID)
	return nil
}

// RequestRefresh has those volumes of a class refreshed at once that were last
// fetched before its annotation [apiv1.AnnotationRefresh] had this value.
func (p *Publisher) RequestRefresh(namespace, class, value string) {
	p.mounted.request(namespace, class, value)
}

// noTriggers is where nobody can ask for a refresh.
type noTriggers struct{}

func (noTriggers) Add(string, string, string) {}
func (noTriggers) Remove(string)              {}

// ignoredAttributes says which of the pod's volumeAttributes count for nothing.
func ignoredAttributes(names []string) string {
	return fmt.Sprintf("volumeAttributes %q are ignored: a pod may not set parameters of its SecretProviderClass; "+
		"put them there, or allow it for the whole cluster with the Helm value driver.allowParameterOverrides", names)
}
