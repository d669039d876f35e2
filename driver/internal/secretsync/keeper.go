package secretsync

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/secretdata"
	"github.com/postern-dev/postern/driver/internal/sleep"
)

const (
	// recheckInterval is how often a Secret is looked at while nothing changes:
	// one that was deleted or edited is restored within that time.
	recheckInterval = 5 * time.Minute
	// recentlySeen is how long what was seen of a Secret counts for a volume
	// that is being mounted, so that pods that start together ask once.
	recentlySeen = 5 * time.Second
	// maxAttempts is how often a write begins again since somebody else wrote
	// meanwhile: the drivers of all nodes on which a Deployment starts.
	maxAttempts = 8
	firstPause  = 10 * time.Millisecond
)

// keeper brings one Secret up to date for one volume.
type keeper struct {
	*pass
	key    secretKey
	object *apiv1.SecretObject

	// wanted and mine are set by prepare.
	wanted content
	mine   share
	owners []metav1.OwnerReference
}

func (k *keeper) run(ctx context.Context) (outcome, error) {
	unlock, err := k.locks.Lock(ctx, k.key.String())
	if err != nil {
		return outcomeFailed, apiFailure(fmt.Errorf("wait for another volume of this node: %w", err))
	}
	defer unlock()
	before, ok := k.memory.share(k.volume.VolumeID, k.key.Name)
	if ok && before.synced && !k.changed {
		settled, err := k.settled(ctx, &before)
		if settled || err != nil {
			return outcomeUnchanged, err
		}
	}
	secret, err := k.prepare(ctx, &before)
	defer secret.Wipe()
	what := outcomeFailed
	if err == nil {
		what, err = k.insist(ctx)
	}
	k.mine.synced = err == nil
	k.memory.setShare(k.volume.VolumeID, k.key.Name, k.mine)
	return what, err
}

// settled tells whether the Secret of a volume whose content did not change
// needs nothing, as far as can be told without its contents.
func (k *keeper) settled(ctx context.Context, before *share) (bool, error) {
	seen, ok := k.memory.sighting(k.key, k.class)
	if !ok || !seen.has(before.owners) {
		return false, nil
	}
	if time.Since(seen.at) < recheckInterval {
		return true, nil
	}
	meta, err := k.cfg.Secrets.SecretMetadata(ctx, k.key.Namespace, k.key.Name)
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, apiFailure(err)
	case meta.ResourceVersion != seen.resourceVersion || meta.UID != seen.uid:
		return false, nil
	}
	k.memory.see(k.key, seen)
	return true, nil
}

// prepare makes what the Secret is to be. The returned Secret holds the
// contents.
func (k *keeper) prepare(ctx context.Context, before *share) (secretdata.Secret, error) {
	k.mine = *before
	secret, err := k.build(k.object)
	if err != nil {
		return secret, err
	}
	if k.owners, err = k.podOwners(ctx); err != nil {
		return secret, err
	}
	k.wanted = content{
		kind:   secret.Type,
		labels: copyOf(secret.Labels, map[string]string{secretdata.LabelManaged: secretdata.LabelManagedValue}),
		data:   secret.Data,
	}
	k.wanted.annotations = copyOf(secret.Annotations, describe(&k.volume, k.volume.FetchedAt))
	k.mine.owners = uids(k.owners)
	if sum := k.hasher.sum(&k.wanted); sum != k.mine.digest || k.mine.since.IsZero() {
		k.mine.digest, k.mine.since = sum, k.volume.FetchedAt
	}
	k.wanted.annotations[annotationFetchedAt] = formatTime(k.mine.since)
	return secret, nil
}

// insist tries until nobody else writes in between.
func (k *keeper) insist(ctx context.Context) (outcome, error) {
	for attempt := 1; ; attempt++ {
		what, err := k.attempt(ctx)
		if err == nil {
			return what, nil
		}
		k.memory.miss(k.key, k.class)
		if !isOvertaken(err) || attempt == maxAttempts {
			return outcomeFailed, apiFailure(err)
		}
		if err := pause(ctx, firstPause<<(attempt-1)); err != nil {
			return outcomeFailed, apiFailure(err)
		}
	}
}

func (k *keeper) attempt(ctx context.Context) (outcome, error) {
	seen, known := k.memory.sighting(k.key, k.class)
	if recent := known && time.Since(seen.at) < recentlySeen; recent && k.content(&seen) {
		return outcomeUnchanged, nil
	} else if !recent {
		meta, err := k.cfg.Secrets.SecretMetadata(ctx, k.key.Namespace, k.key.Name)
		switch {
		case apierrors.IsNotFound(err):
			return k.create(ctx, nil)
		case err != nil:
			return outcomeFailed, err
		}
		if err := claim(meta, k.class.Name); err != nil {
			return outcomeFailed, err
		}
		if known && meta.ResourceVersion == seen.resourceVersion && k.content(&seen) {
			k.memory.see(k.key, seen)
			return outcomeUnchanged, nil
		}
	}
	live, err := k.cfg.Secrets.Secret(ctx, k.key.Namespace, k.key.Name)
	switch {
	case apierrors.IsNotFound(err):
		return k.create(ctx, nil)
	case err != nil:
		return outcomeFailed, err
	}
	defer live.Wipe()
	if err := claim(&live.Metadata, k.class.Name); err != nil {
		return outcomeFailed, err
	}
	return k.reconcile(ctx, live)
}

// content tells whether a Secret that was seen needs no write for this volume.
func (k *keeper) content(seen *sighting) bool {
	return seen.has(k.mine.owners) && (seen.digest == k.mine.digest || !k.leads(seen))
}

// leads tells whether the volume's content is to replace other content: it is
// of a later state of the class, or of the same and not fetched earlier.
func (k *keeper) leads(seen *sighting) bool {
	mine := revisionOf(k.volume.Class)
	switch {
	case mine.before(seen.revision):
		return false
	case seen.revision.before(mine):
		return true
	default:
		return !k.mine.since.Before(seen.fetchedAt)
	}
}

// reconcile writes what differs.
func (k *keeper) reconcile(ctx context.Context, live *kube.Secret) (outcome, error) {
	owned := ownershipOf(&live.Metadata)
	present := owned.of(live)
	seen := k.look(&live.Metadata, k.hasher.sum(present))
	if k.content(&seen) {
		k.memory.see(k.key, seen)
		return outcomeUnchanged, nil
	}
	applied := present // only an owner is missing, or the content is of a later fetch
	if seen.digest != k.mine.digest && k.leads(&seen) {
		applied = &k.wanted
	}
	switch {
	case applied.kind == live.Type:
		return k.apply(ctx, live, applied)
	case live.Immutable:
		return outcomeFailed, immutableError(fmt.Errorf("its type is %s", live.Type))
	default:
		return k.replace(ctx, live)
	}
}

// apply writes the fields of applied, and all owners, over those of live.
func (k *keeper) apply(ctx context.Context, live *kube.Secret, applied *content) (outcome, error) {
	secret := k.secret(applied, live.Metadata.OwnerReferences)
	secret.Metadata.ResourceVersion = live.Metadata.ResourceVersion
	if ownershipOf(&live.Metadata).keeps(applied) {
		patch, err := takeOver(&live.Metadata)
		if err != nil {
			return outcomeFailed, err
		}
		patched, err := k.cfg.Secrets.PatchSecret(ctx, k.key.Namespace, k.key.Name, patch)
		if err != nil {
			return outcomeFailed, err
		}
		secret.Metadata.ResourceVersion = patched.ResourceVersion
	}
	meta, err := k.cfg.Secrets.ApplySecret(ctx, secret)
	switch {
	case apierrors.IsInvalid(err) && live.Immutable:
		return outcomeFailed, immutableError(err)
	case err != nil:
		return outcomeFailed, err
	}
	k.memory.see(k.key, k.look(meta, k.hasher.sum(applied)))
	return outcomeUpdated, nil
}

// replace is for a Secret's type, which cannot be changed.
func (k *keeper) replace(ctx context.Context, live *kube.Secret) (outcome, error) {
	if err := k.cfg.Secrets.DeleteSecret(ctx, &live.Metadata); err != nil && !apierrors.IsNotFound(err) {
		return outcomeFailed, err
	}
	if what, err := k.create(ctx, live.Metadata.OwnerReferences); err != nil {
		return what, err
	}
	return outcomeUpdated, nil
}

// create makes the Secret, unless nobody would own it: then it would stay for
// ever.
func (k *keeper) create(ctx context.Context, owners []metav1.OwnerReference) (outcome, error) {
	if len(k.owners) == 0 && len(owners) == 0 {
		k.memory.miss(k.key, k.class)
		return outcomeUnchanged, nil
	}
	meta, err := k.cfg.Secrets.CreateSecret(ctx, k.secret(&k.wanted, owners))
	if apierrors.IsNotFound(err) {
		return outcomeFailed, lasting(reasonNamespaceTerminating, "the namespace is gone: %w", err)
	}
	if err != nil {
		return outcomeFailed, err
	}
	k.memory.see(k.key, k.look(meta, k.mine.digest))
	return outcomeCreated, nil
}

func (k *keeper) secret(c *content, owners []metav1.OwnerReference) *kube.Secret {
	return &kube.Secret{
		Metadata: metav1.ObjectMeta{
			Namespace: k.key.Namespace, Name: k.key.Name,
			Labels: c.labels, Annotations: c.annotations, OwnerReferences: union(owners, k.owners),
		},
		Type: c.kind,
		Data: c.data,
	}
}

func (k *keeper) look(meta *metav1.ObjectMeta, sum digest) sighting {
	return sighting{
		class: k.class, uid: meta.UID, resourceVersion: meta.ResourceVersion, digest: sum,
		fetchedAt: parseTime(meta.Annotations[annotationFetchedAt]), revision: parseRevision(meta.Annotations[annotationRevision]),
		owners: uids(meta.OwnerReferences),
	}
}

// pause waits for half to all of d.
func pause(ctx context.Context, d time.Duration) error {
	if !sleep.For(ctx, d/2+rand.N(d/2+1)) { //nolint:gosec // spreads load, guards nothing
		return context.Cause(ctx)
	}
	return nil
}
