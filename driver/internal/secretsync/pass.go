package secretsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/secretdata"
	"github.com/postern-dev/postern/internal/logkey"
)

// pass is one Sync. Only its goroutine touches it.
type pass struct {
	*Syncer
	volume Volume
	class  classKey
	// changed is false if the volume was synced before, with this state of the
	// class and this content.
	changed bool
	result  Result

	files  lazy[[]secretdata.File]
	owners lazy[[]metav1.OwnerReference]
}

// lazy is a value that is got when first asked for.
type lazy[T any] struct {
	got   bool
	value T
	err   error
}

func (l *lazy[T]) get(load func() (T, error)) (T, error) {
	if !l.got {
		l.value, l.err = load()
		l.got = true
	}
	return l.value, l.err
}

func (s *Syncer) run(ctx context.Context, volume Volume) (Result, error) {
	p := &pass{Syncer: s, volume: volume, class: classKey{volume.Pod.Namespace, volume.Class.Name}}
	known := s.memory.enter(volume.VolumeID, p.class, revisionOf(volume.Class))
	p.changed = volume.Changed || !known
	names := make(map[string]bool, len(volume.Class.Spec.SecretObjects))
	var errs []error
	for _, object := range volume.Class.Spec.SecretObjects {
		if object == nil {
			object = new(apiv1.SecretObject)
		}
		name := strings.TrimSpace(object.SecretName)
		if names[name] {
			errs = append(errs, p.failed(ctx, name, lasting(reasonInvalidParameters, "the class asks for it twice: merge the two secretObjects, or rename one")))
			continue
		}
		names[name] = true
		if err := p.keep(ctx, name, object); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, p.prune(ctx, names)...)
	for _, list := range [][]string{p.result.Created, p.result.Updated, p.result.Deleted} {
		slices.Sort(list)
	}
	return p.result, errors.Join(errs...)
}

// keep brings one Secret up to date, and counts and notes what became of it.
func (p *pass) keep(ctx context.Context, name string, object *apiv1.SecretObject) error {
	started := time.Now()
	k := &keeper{pass: p, key: secretKey{p.volume.Pod.Namespace, name}, object: object}
	what, err := k.run(ctx)
	if err != nil {
		p.metrics.took(ctx, started)
		return p.failed(ctx, name, err)
	}
	switch what {
	case outcomeCreated:
		p.result.Created = append(p.result.Created, name)
	case outcomeUpdated:
		p.result.Updated = append(p.result.Updated, name)
	default:
		p.metrics.synced(ctx, &p.volume, what, nil)
		return nil
	}
	p.metrics.took(ctx, started)
	p.wrote(ctx, name, what)
	return nil
}

// wrote counts and logs a Secret that was written or removed.
func (p *pass) wrote(ctx context.Context, name string, what outcome) {
	p.metrics.synced(ctx, &p.volume, what, nil)
	p.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "kept a Kubernetes Secret in step", slog.String(logkey.State, string(what)),
		slog.String(logkey.Namespace, p.class.Namespace), slog.String(logkey.Name, name),
		slog.String(logkey.SecretProviderClass, p.class.Name), slog.String(logkey.Pod, p.volume.Pod.Name))
}

func (p *pass) failed(ctx context.Context, name string, err error) error {
	err = inClass(p.volume.Class, name, err)
	p.metrics.synced(ctx, &p.volume, outcomeFailed, err)
	return err
}

// podOwners returns who is to own the Secrets, nobody if the pod is going.
func (p *pass) podOwners(ctx context.Context) ([]metav1.OwnerReference, error) {
	return p.owners.get(func() ([]metav1.OwnerReference, error) {
		pod := p.volume.Pod
		owners, err := p.cfg.Pods.PodOwners(ctx, pod.Namespace, pod.Name, pod.UID)
		return owners, apiFailure(err)
	})
}

// build makes the Secret of the volume's files.
func (p *pass) build(object *apiv1.SecretObject) (secretdata.Secret, error) {
	files, err := p.files.get(p.volume.Files)
	if err != nil {
		return secretdata.Secret{}, &failure{reason: reasonFiles, err: fmt.Errorf("read the volume's files: %w", err)}
	}
	secret, err := secretdata.Build(object, files)
	if err != nil {
		return secretdata.Secret{}, &failure{reason: reasonInvalidParameters, err: err}
	}
	return secret, nil
}
