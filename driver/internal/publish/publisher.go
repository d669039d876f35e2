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
	"github.com/postern-dev/postern/driver/internal/volume"
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
	Unpublish(ctx context.Context, target string) error
}

// Recorder tells the pod's users what happened, after the call is answered.
type Recorder interface {
	Mounted(status podstatus.Status)
	Forget(volumeID string)
	Warn(event podstatus.Event)
}

// Config is what New needs.
type Config struct {
	NodeName              string
	SecretProviderClasses SecretProviderClasses
	// Cluster is nil where there is no Kubernetes API.
	Cluster  Cluster
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
	// RotationPollInterval is how old a volume's content is, at least, when a
	// repeated call fetches it again. 0: never.
	RotationPollInterval time.Duration
	// Observe is called before each step of a publish with the step's name;
	// tests kill the process there. It may be nil, and must be safe for
	// concurrent use.
	Observe func(step string)
}

// Publisher publishes and unpublishes volumes.
//
// Invariants:
//  1. A target is either not mounted or complete when Publish returns, with
//     whatever error.
//  2. Calls on one target run one after the other.
//  3. Unpublish needs neither the gateway nor the API server.
//  4. A volume that was complete stays so, and a refresh that fails leaves its
//     content as it was.
type Publisher struct {
	cfg       Config
	locks     keylock.Locks
	refreshes refreshes
	releaser  *releaser
}

// New returns a Publisher. Run must run for volumes to be released.
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
	return &Publisher{cfg: cfg, releaser: newReleaser(cfg.Gateway, cfg.Logger)}, nil
}

// Run releases unpublished volumes at the gateway until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	p.cfg.Metrics.start(ctx)
	return p.releaser.run(ctx)
}

// Publish makes the volume appear at its target, complete, or returns why not.
// It is idempotent: kubelet repeats the call while the pod lives, with fresh
// tokens, and a volume that is there is at most refreshed.
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
	started := time.Now()
	repeated, err := t.run(ctx)
	if !repeated {
		p.cfg.Metrics.published(ctx, t.provider, started, err)
	}
	if err != nil {
		t.recordFailure(ctx, err)
	}
	return err
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
	p.refreshes.forget(volumeID)
	p.cfg.Recorder.Forget(volumeID)
	p.releaser.release(volumeID)
	return nil
}

// ignoredAttributes says which of the pod's volumeAttributes count for nothing.
func ignoredAttributes(names []string) string {
	return fmt.Sprintf("volumeAttributes %q are ignored: a pod may not set parameters of its SecretProviderClass; "+
		"put them there, or allow it for the whole cluster with the Helm value driver.allowParameterOverrides", names)
}
