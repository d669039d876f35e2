package fetch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/gateway/internal/flight"
	"github.com/postern-dev/postern/gateway/internal/key"
	"github.com/postern-dev/postern/gateway/internal/provider"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

const (
	// firstPause and lastPause bound the pause before an instance is acquired
	// again after a call did not get out: the registry needs that long to see
	// what the call saw.
	firstPause = 2 * time.Millisecond
	lastPause  = 500 * time.Millisecond
	// throttlePatience is how long the fetch of a new mount goes on while its
	// store asks to slow down. Then the pod's users are told, and kubelet tries
	// again.
	throttlePatience = 30 * time.Second
)

// call is the work of one flight: all who joined wait for it.
type call struct {
	flow *flow
	key  key.Key
	// fromMemory is set where another flight has just brought the answer.
	fromMemory bool
	// askedAt is when the provider was called last.
	askedAt time.Time
}

// source is where the answer of a call that has ended without an error is from.
func (c *call) source() gatewayv1.Source {
	if c.fromMemory {
		return gatewayv1.Source_SOURCE_CACHE
	}
	return gatewayv1.Source_SOURCE_PROVIDER
}

// run brings an answer with one reference, and keeps it for others as far as it
// may be kept.
func (c *call) run(ctx context.Context) (*answer.Answer, error) {
	kept, ok := c.flow.fetcher.cfg.Cache.Get(c.key)
	if ok {
		// Between a look at what is kept and the start of a flight another flight
		// of the same key may have landed.
		if c.flow.isFresh(kept) {
			c.fromMemory = true
			return kept, nil
		}
		defer kept.Release()
	}
	brought, err := c.bring(ctx, kept)
	if err != nil {
		if refused(err) {
			c.flow.fetcher.cfg.Cache.Drop(c.key)
		}
		return nil, err
	}
	c.learn(brought)
	return brought, nil
}

// bring gets an answer from the provider. kept is one that it may confirm, or
// nil.
func (c *call) bring(ctx context.Context, kept *answer.Answer) (*answer.Answer, error) {
	req := c.request(kept)
	response, err := c.ask(ctx, req, kept != nil)
	if err != nil {
		return nil, err
	}
	if err := answer.Check(response, answer.Rules{
		MaxBytes:       c.flow.fetcher.cfg.MaxResponseBytes,
		CurrentObjects: req.GetCurrentObjects(),
	}); err != nil {
		return nil, err
	}
	if c.flow.description.Legacy && !c.flow.legacyPrivate() {
		response.Sharing = secretv1.Sharing_SHARING_SERVICE_ACCOUNT
		response.FreshFor = durationpb.New(longestReuse)
	}
	if response.GetNotModified() && kept != nil {
		return kept.Confirmed(response, c.askedAt), nil
	}
	return answer.New(response, c.askedAt), nil
}

// request is the flow's as the provider gets to see it. Whether an answer that
// others may be served too is modified is asked of what is kept here, never of
// what one volume holds.
func (c *call) request(kept *answer.Answer) *gatewayv1.FetchRequest {
	o := c.flow
	req := &gatewayv1.FetchRequest{
		VolumeId:            o.req.GetVolumeId(),
		Provider:            o.req.GetProvider(),
		Pod:                 o.req.GetPod(),
		Node:                o.req.GetNode(),
		SecretProviderClass: o.req.GetSecretProviderClass(),
		Parameters:          o.input.Parameters,
		Tokens:              o.req.GetTokens(),
		Secrets:             o.req.GetSecrets(),
		DefaultFileMode:     o.req.GetDefaultFileMode(),
		TargetPath:          o.req.GetTargetPath(),
		Refresh:             o.req.GetRefresh(),
		ProviderState:       o.req.GetProviderState(), // its key is one volume's
	}
	switch {
	case kept != nil:
		req.CurrentObjects = kept.Response().GetObjects()
	case c.key.Private():
		req.CurrentObjects = o.req.GetCurrentObjects()
	}
	return req
}

// learn keeps an answer for others, as far as its provider allows it.
func (c *call) learn(brought *answer.Answer) {
	response, f := brought.Response(), c.flow.fetcher
	f.private.learn(c.key, !shareable(response))
	if !reusable(response) || response.GetNotModified() {
		return
	}
	if keep := c.flow.keepFor(response); keep > 0 {
		f.cfg.Cache.Put(c.key.Shared(), brought, keep)
	}
}

// ask calls the provider within its budget. While the store asks to slow down
// it asks again, at the pace that the budget allows. hasKept says that there is
// a kept answer to fall back to, so that a provider that is not there is not
// waited for as long as the caller would.
func (c *call) ask(ctx context.Context, req *gatewayv1.FetchRequest, hasKept bool) (*providerv1.FetchResponse, error) {
	// The waiters' own deadline comes a little later, so that they hear how it
	// ended, and so does the budget.
	ctx, cancel := rpc.WithMargin(ctx, registry.Margin)
	defer cancel()
	patience := time.Now().Add(throttlePatience)
	var throttled error
	for {
		if err := c.await(ctx, hasKept); err != nil {
			return nil, inTime(ctx, err)
		}
		leave, err := c.enter(ctx, throttled != nil, patience)
		if err != nil {
			if throttled != nil && ctx.Err() == nil {
				return nil, throttled // says more than that there is no time left
			}
			return nil, c.noLeave(ctx, err)
		}
		response, err := c.askOnce(ctx, req, leave)
		switch {
		case !isThrottled(err) || !time.Now().Before(patience):
			return response, inTime(ctx, err)
		case c.flow.hurried():
			return nil, &hurriedError{err: err}
		}
		throttled = err
		c.flow.span.AddEvent("the store asks to slow down")
	}
}

// noLeave marks the failure of a call that was not let in, for those who joined:
// with more time, or with patience, it may be.
func (c *call) noLeave(ctx context.Context, err error) error {
	switch {
	case !isThrottled(err):
		return inTime(ctx, err)
	case c.flow.hurried():
		return &hurriedError{err: err}
	default:
		return flight.OutOfTime(err) // the store's pause is longer than the rest of the time
	}
}

// inTime marks a failure of a call that had no more time: who joined with more
// than that can wait again.
func inTime(ctx context.Context, err error) error {
	deadline, ok := ctx.Deadline()
	if err != nil && (ctx.Err() != nil || ok && time.Until(deadline) <= registry.Margin) {
		return flight.OutOfTime(err)
	}
	return err
}

// await waits until there is an instance to call, so that nobody takes a place
// in the budget for nothing.
func (c *call) await(ctx context.Context, hasKept bool) error {
	if hasKept && !c.flow.req.GetRefresh() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.flow.fetcher.cfg.CallTimeout)
		defer cancel()
	}
	handle, err := c.flow.fetcher.acquire(ctx, c.flow.req.GetProvider())
	if err != nil {
		return err
	}
	handle.Done()
	return nil
}

// enter waits for a place in the provider's budget.
func (c *call) enter(ctx context.Context, again bool, patience time.Time) (*budget.Leave, error) {
	if again {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, patience)
		defer cancel()
	}
	started := time.Now()
	store := storeOf(c.flow.description, c.flow.req)
	acquire := c.flow.fetcher.cfg.Budgets.Acquire
	if c.flow.hurried() {
		acquire = c.flow.fetcher.cfg.Budgets.AcquireUnpaused
	}
	leave, err := acquire(ctx, c.flow.description.Provider, store)
	c.flow.span.SetAttributes(
		attribute.String("postern.store", store),
		attribute.Float64("postern.queued_seconds", time.Since(started).Seconds()))
	return leave, err
}

// askOnce calls the instance that serves, and gives the place in the budget
// back. A call that never got out is made again, of whichever instance serves
// then; any other is not.
func (c *call) askOnce(ctx context.Context, req *gatewayv1.FetchRequest, leave *budget.Leave) (*providerv1.FetchResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.flow.fetcher.cfg.CallTimeout)
	defer cancel()
	defer leave.Cancel() // unless it is done
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		handle, err := c.flow.fetcher.acquire(ctx, req.GetProvider())
		if err != nil {
			return nil, err
		}
		response, err := c.askInstance(ctx, req, handle)
		notSent, again := errors.AsType[*provider.NotSentError](err)
		if !again {
			leave.Done(err)
			return response, err
		}
		c.flow.span.AddEvent("provider instance was not reached")
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, unreached(ctx, handle.Socket, notSent)
		}
	}
}

// askInstance makes one call of one instance.
func (c *call) askInstance(ctx context.Context, req *gatewayv1.FetchRequest, handle *registry.Handle) (*providerv1.FetchResponse, error) {
	defer handle.Done()
	if c.flow.span.IsRecording() {
		c.flow.span.SetAttributes(attribute.String("postern.instance", handle.Socket))
	}
	// Before the call: one that fails half way may have issued something too.
	c.flow.fetcher.volumes.asked(req.GetVolumeId(), req.GetProvider(), handle.ID)
	c.askedAt = time.Now()
	return handle.Provider.Fetch(ctx, req)
}

// unreached is the failure of a fetch whose time ran out before it got out.
func unreached(ctx context.Context, socket string, cause error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return &rpc.Error{
		Reason:  rpc.ReasonProviderUnavailable,
		Message: fmt.Sprintf("the provider's instance %s cannot be reached: check that its pod runs on this node", socket),
		Err:     cause,
	}
}
