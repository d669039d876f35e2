package secretsync

import (
	"context"
	"log/slog"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/postern-dev/postern/driver/internal/secretdata"
	"github.com/postern-dev/postern/internal/logkey"
)

// prune removes the Secrets of the class that it does not ask for any more:
// what this process saw it ask for, and once what was there before.
func (p *pass) prune(ctx context.Context, names map[string]bool) []error {
	p.list(ctx)
	var errs []error
	for _, name := range p.memory.declare(p.class, revisionOf(p.volume.Class), names) {
		removed, err := p.remove(ctx, name)
		if err != nil {
			// Not worth failing a mount for.
			f := &failure{reason: Reason(err), err: err}
			errs = append(errs, p.failed(ctx, name, f))
			continue
		}
		p.memory.removed(p.class, name)
		if removed {
			p.result.Deleted = append(p.result.Deleted, name)
			p.wrote(ctx, name, outcomeDeleted)
		}
	}
	return errs
}

// remove deletes the Secret if it is this class's, of this state or an earlier.
func (p *pass) remove(ctx context.Context, name string) (bool, error) {
	key := secretKey{p.class.Namespace, name}
	unlock, err := p.locks.Lock(ctx, key.String())
	if err != nil {
		return false, apiFailure(err)
	}
	defer unlock()
	meta, err := p.cfg.Secrets.SecretMetadata(ctx, key.Namespace, key.Name)
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, apiFailure(err)
	}
	_, marked := meta.Annotations[annotationClass]
	newer := revisionOf(p.volume.Class).before(parseRevision(meta.Annotations[annotationRevision]))
	if !marked || newer || claim(meta, p.class.Name) != nil {
		return false, nil
	}
	if err := p.cfg.Secrets.DeleteSecret(ctx, meta); err != nil && !apierrors.IsNotFound(err) {
		return false, apiFailure(err)
	}
	return true, nil
}

// list notes which Secrets each class of the namespace has, once after a start:
// a class may have changed while no driver ran.
func (p *pass) list(ctx context.Context) {
	namespace := p.class.Namespace
	if !p.memory.listDue(namespace) {
		return
	}
	unlock, err := p.locks.Lock(ctx, namespace+"/")
	if err != nil {
		return
	}
	defer unlock()
	if !p.memory.listDue(namespace) { // another volume did it meanwhile
		return
	}
	secrets, err := p.cfg.Secrets.SecretsMetadata(ctx, namespace, secretdata.LabelManaged, secretdata.LabelManagedValue)
	if err != nil {
		p.memory.list(namespace, nil)
		p.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot tell which Secrets are no longer asked for, will try again",
			slog.String(logkey.Namespace, namespace), slog.Any(logkey.Error, err))
		return
	}
	found := make(map[string][]string)
	for i := range secrets {
		if class := secrets[i].Annotations[annotationClass]; class != "" {
			found[class] = append(found[class], secrets[i].Name)
		}
	}
	p.memory.list(namespace, found)
}
