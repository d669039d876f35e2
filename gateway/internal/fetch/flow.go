package fetch

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/authority"
	"github.com/postern-dev/postern/gateway/internal/flight"
	"github.com/postern-dev/postern/gateway/internal/key"
	"github.com/postern-dev/postern/gateway/internal/provider"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// flow is one fetch on its way. Its steps stand in the order in which they
// have to be: admission (policy, authority), key, kept answer, flight, and in
// that the call; see run.
type flow struct {
	fetcher *Fetcher
	req     *gatewayv1.FetchRequest
	span    trace.Span
	demand  demand
	// What admission finds out.
	description Description
	reuse       Reuse
	input       key.Input
	// shared is its key without the volume.
	shared key.Key
}

// run takes the steps.
func (o *flow) run(ctx context.Context) (Result, error) {
	if err := o.admit(ctx); err != nil {
		return Result{}, err
	}
	k := o.key()
	if kept, ok := o.kept(k); ok {
		return o.result(kept, gatewayv1.Source_SOURCE_CACHE), nil
	}
	return o.join(ctx, k)
}

// join waits for the flight of a key, and for another one as long as what that
// brings is not for this pod. A login that is refused is tried again: it was with
// the token of another pod, which may be gone by now, and so may be the next. A
// mount then has a call of its own; a refresh comes again by itself.
func (o *flow) join(ctx context.Context, k key.Key) (Result, error) {
	inside, cancel := rpc.WithMargin(ctx, registry.Margin)
	defer cancel()
	for refusals := 0; ; {
		work := &call{flow: o, key: k}
		landing, err := o.fetcher.flights.Do(inside, k, work.run)
		switch {
		case errors.Is(err, flight.ErrLeaderDeadline):
			o.span.AddEvent("the fetch that was joined ran out of time")
		case isHurried(err) && !o.hurried():
			o.span.AddEvent("the refresh that was joined does not wait for the store")
		case landing.Joined && isLoginRefused(err) && (refusals == 0 || !o.hurried()):
			refusals++
			if refusals > 1 {
				k = k.ForVolume(o.req)
			}
			o.span.AddEvent("the pod whose fetch was joined could not log in")
		case err != nil:
			if !landing.Joined {
				o.logPanic(ctx, err)
			}
			return o.withoutStore(k, explained(ctx, err))
		case !landing.Joined:
			return o.result(landing.Answer, work.source()), nil
		case !o.demand.allowsJoined(landing.Answer):
			landing.Answer.Release()
			o.span.AddEvent("the answer that was waited for is too old")
		case k.Private() || shareable(landing.Answer.Response()):
			o.span.AddLink(trace.Link{SpanContext: landing.Work})
			return o.result(landing.Answer, gatewayv1.Source_SOURCE_JOINED), nil
		default:
			landing.Answer.Release()
			o.span.AddEvent("the answer that was waited for is another pod's own")
			k = k.ForVolume(o.req)
		}
	}
}

// admit finds out whether the pod may have what it asks for at all.
func (o *flow) admit(ctx context.Context) (err error) {
	if err := o.fetcher.cfg.Policy.Check(ctx, o.req); err != nil {
		return err
	}
	if o.reuse, err = o.fetcher.cfg.Reuse.of(o.req.GetParameters()); err != nil {
		return err
	}
	if o.description, err = o.fetcher.Describe(ctx, o.req.GetProvider()); err != nil {
		return err
	}
	tokens := o.req.GetTokens() // a legacy provider declares none and gets all
	if !o.description.Legacy {
		if tokens, err = provider.DeclaredTokens(o.description.GetAudiences(), o.req); err != nil {
			return err
		}
	}
	if err := authority.Check(tokens, o.req.GetPod(), time.Now()); err != nil {
		return err
	}
	o.input = key.Input{
		Request:    o.req,
		Parameters: withoutReuse(o.req.GetParameters()),
		Secrets:    provider.Secrets(o.req),
		Audiences:  make([]string, 0, len(tokens)),
	}
	for _, token := range tokens {
		o.input.Audiences = append(o.input.Audiences, token.GetAudience())
	}
	return nil
}

// key is the one to begin with: the shared one, unless it is known that the
// answer is for one volume only. One that had state is, also after a restart.
func (o *flow) key() key.Key {
	o.shared = o.fetcher.keys.Shared(o.input)
	if o.legacyPrivate() || len(o.req.GetProviderState()) > 0 || o.fetcher.private.has(o.shared) {
		return o.shared.ForVolume(o.req)
	}
	return o.shared
}

// legacyPrivate reports whether nothing may be shared of a provider that cannot
// say what may.
func (o *flow) legacyPrivate() bool {
	return o.description.Legacy && !slices.Contains(o.fetcher.cfg.LegacySharing, o.description.Provider)
}

// hurried reports whether the fetch does not wait while its store asks to slow
// down: a volume that is mounted can be refreshed later.
func (o *flow) hurried() bool { return o.req.GetRefresh() }

// kept returns a kept answer that is as good as new, for the caller to release.
func (o *flow) kept(k key.Key) (*answer.Answer, bool) {
	kept, ok := o.fetcher.cfg.Cache.Get(k)
	if !ok {
		return nil, false
	}
	if !o.isFresh(kept) {
		kept.Release()
		return nil, false
	}
	return kept, true
}

// isFresh reports whether a kept answer is as good as new. How old it may be is
// said by the request, or else by the class, and by the provider.
func (o *flow) isFresh(a *answer.Answer) bool {
	age := time.Since(a.FetchedAt())
	if o.demand.bounded() {
		return o.reuse.MaxAge > 0 && o.demand.allowsKept(a) && age < a.Response().GetFreshFor().AsDuration()
	}
	return age < o.reuse.fresh(a.Response())
}

// use records that the volume was served an answer, and keeps that for the
// refreshes of others.
func (o *flow) use(response *providerv1.FetchResponse) {
	f, volumeID := o.fetcher, o.req.GetVolumeId()
	keep := o.reuse.keep(response)
	if !reusable(response) || keep == 0 {
		f.volumes.served(volumeID, o.req.GetProvider())
		return
	}
	f.volumes.servedKept(volumeID, o.req.GetProvider(), o.shared, keep)
	if mounted := o.keepFor(response); mounted > keep {
		f.cfg.Cache.Extend(o.shared, mounted)
	}
}

// keepFor is how long an answer is of use, now that the volume is served it.
func (o *flow) keepFor(response *providerv1.FetchResponse) time.Duration {
	return o.reuse.keepMounted(response, max(o.req.GetRefreshInterval().AsDuration(), 0))
}

// withoutStore is the end of a fetch that failed: the last good answer if the
// store is unreachable and that answer is young enough, or else the failure.
// A volume that is mounted has an answer of its own.
func (o *flow) withoutStore(k key.Key, cause error) (Result, error) {
	if o.req.GetRefresh() || o.demand.bounded() || !unreachable(cause) {
		return Result{}, cause
	}
	kept, ok := o.fetcher.cfg.Cache.Get(k)
	if !ok {
		return Result{}, cause
	}
	age := time.Since(kept.FetchedAt())
	if age >= o.reuse.MaxStale || !reusable(kept.Response()) {
		kept.Release()
		return Result{}, cause
	}
	o.span.AddEvent("a stale answer is served", trace.WithAttributes(
		attribute.String("postern.reason", rpc.FromError(cause).Reason),
		attribute.Float64("postern.age_seconds", age.Seconds()),
	))
	return o.result(kept, gatewayv1.Source_SOURCE_STALE), nil
}

// logPanic logs where a call panicked: it is a defect, of which callers are not
// told more than that.
func (o *flow) logPanic(ctx context.Context, err error) {
	if panicked, ok := errors.AsType[*flight.PanicError](err); ok {
		o.fetcher.cfg.Logger.LogAttrs(ctx, slog.LevelError, "a fetch panicked",
			slog.String(logkey.Provider, o.req.GetProvider()), slog.String(logkey.Stack, panicked.Stack))
	}
}

// explained says why a caller whose time ran out got nothing.
func explained(ctx context.Context, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[*rpc.Error](err); ok {
		return err
	}
	return &rpc.Error{
		Reason:  rpc.ReasonDeadlineExceeded,
		Message: "no answer came before the call's deadline: check the provider's log and whether its store answers",
		Err:     err,
	}
}

func (o *flow) result(a *answer.Answer, source gatewayv1.Source) Result {
	response := a.Response()
	return Result{
		Answer:      a,
		NotModified: response.GetNotModified() || (!o.description.Legacy && sameObjects(response.GetObjects(), o.req.GetCurrentObjects())),
		Source:      source,
	}
}

// sameObjects reports whether a volume that holds these objects holds the
// answer: a version changes whenever what its object puts into a volume does. A
// legacy provider's need not.
func sameObjects(answered, current []*secretv1.ObjectVersion) bool {
	if len(answered) != len(current) {
		return false
	}
	if slices.EqualFunc(answered, current, func(a, b *secretv1.ObjectVersion) bool {
		return a.GetId() == b.GetId() && a.GetVersion() == b.GetVersion()
	}) {
		return len(answered) > 0
	}
	versions := make(map[string]string, len(current))
	for _, o := range current {
		versions[o.GetId()] = o.GetVersion()
	}
	for _, o := range answered {
		if version, ok := versions[o.GetId()]; !ok || version != o.GetVersion() {
			return false
		}
	}
	return len(answered) > 0
}

// unreachable reports whether a failure says nothing about what the pod may
// have: neither provider nor store has looked at it.
func unreachable(err error) bool {
	switch rpc.FromError(err).Reason {
	case rpc.ReasonStoreUnavailable, rpc.ReasonProviderUnavailable, rpc.ReasonDeadlineExceeded,
		rpc.ReasonRateLimited, rpc.ReasonBudgetExhausted:
		return true
	default:
		return false
	}
}

// refused reports whether the store said that the pod may not have what was
// asked for, or that it is gone.
func refused(err error) bool {
	switch rpc.FromError(err).Reason {
	case rpc.ReasonAccessDenied, rpc.ReasonObjectNotFound, rpc.ReasonLoginFailed:
		return true
	default:
		return false
	}
}

// isLoginRefused reports whether a call failed because of the token that it was
// made with.
func isLoginRefused(err error) bool {
	if err == nil {
		return false
	}
	reason := rpc.FromError(err).Reason
	return reason == rpc.ReasonLoginFailed || reason == rpc.ReasonTokenInvalid
}
