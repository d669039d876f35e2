// Package secretsync keeps the Kubernetes Secrets that a SecretProviderClass
// asks for in step with the files of its volumes.
//
// Every node of a cluster does so for its own volumes, and none knows of the
// others but by what it finds in a Secret: whose it is, what it was made of and
// when that was fetched are written in its annotations.
package secretsync

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/keylock"
	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/secretdata"
)

// AllNamespaces opens every namespace.
const AllNamespaces = "*"

// Pod names a pod.
type Pod struct {
	Namespace, Name, UID string
}

// Volume is a volume whose class may ask for Secrets.
type Volume struct {
	Pod Pod
	// VolumeID is the CSI volume id.
	VolumeID string
	// Class is the SecretProviderClass, as just read.
	Class *apiv1.SecretProviderClass
	// Provider is the provider's name.
	Provider string
	// Objects are the ids of the mounted objects.
	Objects []string
	// FetchedAt is when the content was fetched.
	FetchedAt time.Time
	// Changed says that content or class differ from those of the last Sync of
	// this volume, as far as the caller knows.
	Changed bool
	// Files returns the volume's files. It is called at most once, and only when
	// the contents are needed. They stay the caller's, and are not used any more
	// when Sync has returned.
	Files func() ([]secretdata.File, error)
}

// Result names the Secrets that a Sync wrote and removed, in order.
type Result struct {
	Created, Updated, Deleted []string
}

// SecretReader reads Secrets. Its errors, and those of SecretWriter, are told
// apart by the functions of k8s.io/apimachinery/pkg/api/errors.
type SecretReader interface {
	Secret(ctx context.Context, namespace, name string) (*kube.Secret, error)
	SecretMetadata(ctx context.Context, namespace, name string) (*metav1.ObjectMeta, error)
	SecretsMetadata(ctx context.Context, namespace, label, value string) ([]metav1.ObjectMeta, error)
}

// SecretWriter writes Secrets.
type SecretWriter interface {
	CreateSecret(ctx context.Context, secret *kube.Secret) (*metav1.ObjectMeta, error)
	// ApplySecret is a server-side apply.
	ApplySecret(ctx context.Context, secret *kube.Secret) (*metav1.ObjectMeta, error)
	// PatchSecret applies a JSON merge patch.
	PatchSecret(ctx context.Context, namespace, name string, patch []byte) (*metav1.ObjectMeta, error)
	// DeleteSecret deletes the Secret that seen shows, unless it has changed.
	DeleteSecret(ctx context.Context, seen *metav1.ObjectMeta) error
}

// Secrets are the cluster's Secrets.
type Secrets interface {
	SecretReader
	SecretWriter
}

// Pods tells who is to own what is made for a pod; nobody, if the pod is gone
// or going.
type Pods interface {
	PodOwners(ctx context.Context, namespace, name, uid string) ([]metav1.OwnerReference, error)
}

var (
	_ Secrets = (*kube.Client)(nil)
	_ Pods    = (*kube.Client)(nil)
)

// Config is what New needs.
type Config struct {
	Secrets Secrets
	Pods    Pods
	// Namespaces are those that are open for Secrets; AllNamespaces opens all.
	Namespaces []string
	// Node is this node's name.
	Node   string
	Meter  metric.Meter
	Tracer trace.Tracer
	Logger *slog.Logger
}

// Syncer keeps Secrets.
//
// Invariants:
//  1. In a namespace that is not open nothing is read or written.
//  2. A Secret is written only if it is the driver's, of this very class or made
//     by the upstream driver, and only as it was when that was looked at.
//  3. A Secret is written only if something differs, and content never replaces
//     content that was fetched later.
//  4. Of a Secret one Sync at a time is under way on this node.
//  5. No content is kept, only keyed digests of it. What is kept is bounded by
//     the volumes that are not forgotten, and by maxVolumes.
type Syncer struct {
	cfg     Config
	metrics *metrics
	hasher  hasher
	locks   keylock.Locks // by Secret, and by namespace for its list
	memory  memory
}

// New returns a Syncer. It makes no call.
func New(cfg Config) (*Syncer, error) {
	switch {
	case cfg.Secrets == nil || cfg.Pods == nil:
		return nil, errors.New("secret sync needs the cluster's Secrets and pods")
	case cfg.Node == "":
		return nil, errors.New("secret sync needs the node's name")
	case cfg.Meter == nil || cfg.Tracer == nil || cfg.Logger == nil:
		return nil, errors.New("secret sync needs a meter, a tracer and a logger")
	}
	m, err := newMetrics(cfg.Meter)
	if err != nil {
		return nil, err
	}
	return &Syncer{cfg: cfg, metrics: m, hasher: newHasher(), memory: newMemory()}, nil
}

// Sync brings the Secrets that the volume's class asks for up to date, and
// removes those that it asks for no more. An error may be of one Secret only;
// the others are in the result. Temporary tells whether trying again may help.
func (s *Syncer) Sync(ctx context.Context, volume Volume) (Result, error) {
	class := volume.Class
	objects := class.Spec.SecretObjects
	if !s.open(volume.Pod.Namespace) {
		if len(objects) == 0 {
			return Result{}, nil
		}
		err := notOpenError(class, volume.Pod.Namespace)
		s.metrics.synced(ctx, &volume, outcomeFailed, err)
		return Result{}, err
	}
	ctx, span := s.cfg.Tracer.Start(ctx, "driver.SyncSecrets", trace.WithAttributes(
		attribute.String("postern.secret_provider_class", class.Name),
		attribute.String("k8s.node.name", s.cfg.Node),
		attribute.Int("postern.secrets", len(objects)),
	))
	defer span.End()
	result, err := s.run(ctx, volume)
	span.SetAttributes(attribute.Int("postern.secrets.written", len(result.Created)+len(result.Updated)+len(result.Deleted)))
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	return result, err
}

// Forget drops what is kept for a volume that was unpublished. Its Secrets stay
// until Kubernetes collects them with their owners.
func (s *Syncer) Forget(volumeID string) { s.memory.forget(volumeID) }

func (s *Syncer) open(namespace string) bool {
	return slices.Contains(s.cfg.Namespaces, namespace) || slices.Contains(s.cfg.Namespaces, AllNamespaces)
}
