package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/internal/rpc"
)

// Margin is what is kept of a caller's deadline to say what is missing; see
// [rpc.WithMargin].
const Margin = 500 * time.Millisecond

// TryAcquire returns the instance that serves a name, if one does now. The
// caller has to end its use with Done.
func (r *Registry) TryAcquire(name string) (*Handle, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if inst := r.bestLocked(name); inst != nil {
		return r.handleLocked(inst), true
	}
	return nil, false
}

// Acquire returns the instance that serves a name, and waits for one inside
// ctx's deadline. A little before that it gives up with PROVIDER_UNAVAILABLE
// and says where it looked and why the instances that it found do not serve.
// The caller has to end the handle's use with Done. After StopWaiting it fails
// at once where it would wait.
func (r *Registry) Acquire(ctx context.Context, name string) (*Handle, error) {
	if handle, ok := r.TryAcquire(name); ok {
		return handle, nil
	}
	patience, cancel := rpc.WithMargin(ctx, Margin)
	defer cancel()
	for {
		handle, changed, err := r.acquireOrWait(name)
		if handle != nil || err != nil {
			return handle, err
		}
		select {
		case <-changed:
		case <-patience.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, r.unavailable(name)
		}
	}
}

// acquireOrWait returns a handle or else what is closed when it is worth
// another look.
func (r *Registry) acquireOrWait(name string) (*Handle, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if inst := r.bestLocked(name); inst != nil {
		return r.handleLocked(inst), nil, nil
	}
	if r.ending {
		// Without a reason: it is nothing that a pod's user is told. The driver
		// asks the next gateway.
		return nil, nil, &rpc.Error{Code: codes.Unavailable, Message: "this gateway ends and waits for no provider any more"}
	}
	return nil, r.changed, nil
}

// StopWaiting ends the waits of Acquire, for a process that is about to end:
// what waits for a provider can wait elsewhere.
func (r *Registry) StopWaiting() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ending = true
	r.notifyLocked()
}

// Settled waits until the directories were looked at and each instance found
// there is known to serve or not to, or until ctx ends.
func (r *Registry) Settled(ctx context.Context) error {
	for {
		settled, changed := r.settledOrWait()
		if settled {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Registry) settledOrWait() (bool, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	untried := func(i *instance) bool { return i.state == Connecting && i.message == "" }
	return r.scanned && !slices.ContainsFunc(r.instances, untried), r.changed
}

// unavailable says why nothing serves a name.
func (r *Registry) unavailable(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var why []string
	for _, inst := range r.orderedLocked(name) {
		reason := inst.message
		if reason == "" {
			reason = "not connected yet"
		}
		why = append(why, fmt.Sprintf("%s is %s: %s", inst.socket.path, inst.state, reason))
	}
	if len(why) == 0 {
		why = append(why, "no socket is there")
		if r.unread != nil {
			why = append(why, r.unread.Error())
		}
		for _, inst := range r.instances {
			if inst.socket.protocol == Native && r.directories[name] && contains(inst.description.GetNames(), name) {
				why = append(why, fmt.Sprintf("provider %q would serve the name too, but it has a directory of its own", inst.socket.provider))
				break
			}
		}
	}
	return &rpc.Error{
		Reason: rpc.ReasonProviderUnavailable,
		Message: fmt.Sprintf("no instance serves on this node: looked for %s; %s; check that the provider's pod runs here",
			r.places(name), strings.Join(why, "; ")),
	}
}
