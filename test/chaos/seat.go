package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/tenant"
)

const (
	// cureWithin bounds how long it takes until a mount that failed succeeds.
	cureWithin = 2 * time.Minute
	// firstRetry doubles with each attempt, as kubelet's does; lastRetry is less
	// than kubelet's two minutes, which would be most of a run.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 4 * time.Second
	// usesOfPod is how often a pod is mounted before another takes its seat.
	usesOfPod = 5
)

// seat is a place at which one pod after the other mounts a class.
type seat struct {
	name  string
	class *class
	// of is whose pods they are.
	of *identity
	// refused is set if the pods may not have what they ask for: another
	// service account's, or with another pod's token (borrowed).
	refused, borrowed bool

	pod     kubelet.Volume
	there   bool // the pod
	mounted bool
	uses    int
	count   int
}

// operate does one thing that may happen to a pod; each has one publish call
// that succeeds, or is refused.
func (r *run) operate(ctx context.Context, s *seat, random *rand.Rand) {
	if s.mounted {
		r.wantContent(s, "of a mounted volume")
		if s.uses%usesOfPod != 0 && !s.class.single && random.IntN(2) == 0 {
			s.uses++
			r.publish(ctx, s)
			return
		}
		r.unpublish(ctx, s)
		if s.class.single || s.uses >= usesOfPod {
			r.vacate(ctx, s)
		}
	}
	if !r.occupy(ctx, s) {
		return
	}
	s.uses++
	if s.refused {
		r.publishRefused(ctx, s)
		r.unpublish(ctx, s)
		r.vacate(ctx, s)
		return
	}
	r.publish(ctx, s)
}

// occupy makes a pod for the seat, if there is none.
func (r *run) occupy(ctx context.Context, s *seat) bool {
	if s.there {
		return true
	}
	s.count++
	pod, err := s.of.Pod(ctx, fmt.Sprintf("%s-%d", s.name, s.count), s.class.name, tenant.Audience)
	if err == nil && s.borrowed {
		pod.Tokens, err = r.borrow(ctx, s)
	}
	if err != nil {
		if ctx.Err() == nil {
			r.report.problem("make a pod: %v", err)
		}
		return false
	}
	s.pod, s.there, s.uses = pod, true, 0
	return true
}

// borrow returns the tokens of another pod of the seat's service account.
func (r *run) borrow(ctx context.Context, s *seat) (tokens string, err error) {
	lender, err := s.of.Pod(ctx, fmt.Sprintf("%s-%d-lender", s.name, s.count), s.class.name, tenant.Audience)
	if err != nil {
		return "", err
	}
	return lender.Tokens, s.of.DeletePod(ctx, lender.Pod)
}

// vacate deletes the seat's pod.
func (r *run) vacate(ctx context.Context, s *seat) {
	if err := s.of.DeletePod(ctx, s.pod.Pod); err != nil && ctx.Err() == nil {
		r.report.problem("delete a pod: %v", err)
	}
	s.there = false
}

// publish publishes the seat's volume until it succeeds, and then wants its
// content; after each failure it wants an error that is clean and a target that
// holds all or nothing.
func (r *run) publish(ctx context.Context, s *seat) {
	started := time.Now()
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		failure, err := r.attempt(ctx, s)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			r.report.published(s, time.Since(started))
			s.mounted = true
			r.wantContent(s, "of a publish that succeeded")
			return
		}
		r.report.failed(failure)
		if !failure.clean() {
			r.report.problem("publish %s: the error is not clean: %v", s, err)
		}
		r.wantAllOrNothing(s)
		if time.Since(started) > cureWithin {
			r.report.problem("publish %s: not mounted after %s: %v", s, time.Since(started).Round(time.Second), err)
			return
		}
		if !wait(ctx, delay) {
			return
		}
	}
}

// publishRefused publishes a volume that the pod may not have: whatever else
// happens, it must not succeed.
func (r *run) publishRefused(ctx context.Context, s *seat) {
	failure, err := r.attempt(ctx, s)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		r.report.problem("publish %s: a pod that may not have it got it", s)
		s.mounted = true
		return
	}
	r.report.refusedOne(failure)
	if !failure.clean() && !failure.refuses() {
		r.report.problem("publish %s: the error is not clean: %v", s, err)
	}
	if mounts, err := kubelet.Mounts(r.node.Kubelet.Target(s.pod)); err != nil || len(mounts) > 0 {
		r.report.problem("publish %s: refused, but mounted: %v (%v)", s, mounts, err)
	}
}

// attempt makes one publish call.
func (r *run) attempt(ctx context.Context, s *seat) (failure, error) {
	return r.call(func(k *kubelet.Kubelet) error { return k.Publish(ctx, s.pod) })
}

// call makes one call of the driver, over a connection of its own as kubelet
// does.
func (r *run) call(do func(*kubelet.Kubelet) error) (failure, error) {
	disturbed := r.driverAway.watch()
	k, err := kubelet.New(r.node.Socket(), r.node.Path("kubelet"))
	if err != nil {
		return failure{}, err
	}
	defer func() { _ = k.Close() }() // closing twice is its only error
	err = do(k)
	return failureOf(err, disturbed()), err
}

// unpublish takes the volume away, again until that succeeds, and wants nothing
// to be left of it.
func (r *run) unpublish(ctx context.Context, s *seat) {
	started := time.Now()
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		failure, err := r.call(func(k *kubelet.Kubelet) error { return k.Unpublish(ctx, s.pod) })
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			break
		}
		r.report.failed(failure)
		if !failure.clean() {
			r.report.problem("unpublish %s: the error is not clean: %v", s, err)
		}
		if time.Since(started) > cureWithin {
			r.report.problem("unpublish %s: not gone after %s: %v", s, time.Since(started).Round(time.Second), err)
			break
		}
		if !wait(ctx, delay) {
			return
		}
	}
	s.mounted = false
	r.report.unpublished()
	if _, err := os.Stat(r.node.Kubelet.Target(s.pod)); !errors.Is(err, fs.ErrNotExist) {
		r.report.problem("unpublish %s: the target is still there (%v)", s, err)
	}
}

// wantContent wants one mount at the target, with all that belongs into it.
func (r *run) wantContent(s *seat, what string) {
	if err := r.content(s); err != nil {
		r.report.problem("the content %s: %s: %v", what, s, err)
	}
}

func (r *run) content(s *seat) error {
	mounts, err := kubelet.Mounts(r.node.Kubelet.Target(s.pod))
	if err != nil {
		return err
	}
	if len(mounts) != 1 {
		return fmt.Errorf("%d mounts at the target, want 1", len(mounts))
	}
	files, err := r.node.Kubelet.Files(s.pod)
	if err != nil {
		return err
	}
	return s.class.check(s.pod, files)
}

// wantAllOrNothing wants the target to be complete, or to hold nothing.
func (r *run) wantAllOrNothing(s *seat) {
	target := r.node.Kubelet.Target(s.pod)
	mounts, err := kubelet.Mounts(target)
	switch {
	case err != nil:
		r.report.problem("look at the target of %s: %v", s, err)
		return
	case len(mounts) > 0:
		r.wantContent(s, "after a failure")
		return
	}
	entries, err := os.ReadDir(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
		r.report.problem("publish %s failed and left something in the target: %v (%v)", s, entries, err)
	}
}

// String tells which pod the seat is about.
func (s *seat) String() string {
	return fmt.Sprintf("pod %s/%s, class %s, volume %s", s.pod.Namespace, s.pod.Pod, s.class.name, s.pod.UID)
}

// wait waits, and returns false if ctx ends first.
func wait(ctx context.Context, duration time.Duration) bool {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retryable are the codes that tell kubelet to try again and keep the target.
func retryable(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.ResourceExhausted:
		return true
	default:
		return false
	}
}
