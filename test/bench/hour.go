package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postern-dev/postern/test/kubelet"
)

// traffic is kubelet's calls for mounted volumes, and the provider's calls that
// came of them.
type traffic struct{ republished, calls int }

// hourly scales the calls to an hour of a number of volumes.
func (t traffic) hourly(volumes int) int {
	return int(float64(t.calls)/float64(t.republished)*perHour*float64(volumes) + .5)
}

func hour(ctx context.Context, e *environment) (Result, error) {
	var p pair[traffic]
	z := e.sizes
	w := workload{name: "hour", volumes: z.hour, accounts: z.accounts, latency: time.Millisecond}
	e.say("  %s", upstreamName)
	err := e.with(ctx, options{interval: dueAfter * z.minute}, e.startUpstream, func(ctx context.Context, s *side) (err error) {
		p.upstream, err = e.oneRound(ctx, s, w)
		return err
	})
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", upstreamName, err)
	}
	e.say("  %s", posternName)
	err = e.with(ctx, options{interval: dueAfter * z.minute}, e.startPostern, func(ctx context.Context, s *side) (err error) {
		p.postern, err = e.minutes(ctx, s, w)
		return err
	})
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", posternName, err)
	}
	each := traffic{republished: 1, calls: 1}.hourly(z.hour)
	return Result{
		Measures: []Measure{
			count("kubelet's calls", pair[int]{upstream: each, postern: each}),
			count("provider calls", figure(p, func(t traffic) int { return t.hourly(z.hour) })),
		},
		Notes: []string{
			fmt.Sprintf("%s: %d provider calls for %d of kubelet's.", upstreamName, p.upstream.calls, p.upstream.republished),
			fmt.Sprintf("%s: %d provider calls for %d of kubelet's.", posternName, p.postern.calls, p.postern.republished),
		},
	}, nil
}

// oneRound counts one round of calls after the interval has passed.
func (e *environment) oneRound(ctx context.Context, s *side, w workload) (traffic, error) {
	p, err := e.mounted(ctx, s, w)
	if err != nil {
		return traffic{}, err
	}
	if err := wait(ctx, dueAfter*e.sizes.minute+time.Second/4); err != nil {
		return traffic{}, err
	}
	_, n, err := s.round(ctx, p)
	if err != nil {
		return traffic{}, err
	}
	return traffic{republished: len(p.volumes), calls: n}, e.remove(ctx, s, p)
}

// minutes counts the calls of some minutes, after those in which the first
// volumes become due.
func (e *environment) minutes(ctx context.Context, s *side, w workload) (traffic, error) {
	p, err := e.mounted(ctx, s, w)
	if err != nil {
		return traffic{}, err
	}
	var republished atomic.Int64
	repeating, cancel := context.WithCancel(ctx)
	defer cancel()
	group, repeating := errgroup.WithContext(repeating)
	for i, v := range p.volumes {
		group.Go(func() error {
			return s.repeat(repeating, v, e.sizes.minute, rand.New(rand.NewPCG(1, uint64(i))), &republished)
		})
	}
	// Volumes of one identity that were mounted at different times are brought
	// together by their first refreshes.
	if err := wait(repeating, 2*dueAfter*e.sizes.minute); err != nil {
		return traffic{}, err
	}
	var before int64
	c, err := s.counted(repeating, func() error {
		before = republished.Load()
		return wait(repeating, time.Duration(e.sizes.minutes)*e.sizes.minute)
	})
	t := traffic{republished: int(republished.Load() - before), calls: c.all}
	cancel()
	if failed := group.Wait(); failed != nil {
		return t, failed // the cause, where err is that the others were ended
	}
	switch {
	case err != nil:
		return t, err
	case t.republished == 0:
		return t, fmt.Errorf("no call came in %d minutes of %s", e.sizes.minutes, e.sizes.minute)
	}
	return t, e.remove(ctx, s, p)
}

// repeat calls for a mounted volume as kubelet does, until ctx ends.
func (s *side) repeat(ctx context.Context, v kubelet.Volume, minute time.Duration, random *rand.Rand, republished *atomic.Int64) error {
	delay := time.Duration(random.Float64() * float64(minute)) // each pod was made at another time
	for wait(ctx, delay) == nil {
		// The last call is let finish.
		if err := s.kubelet.Publish(context.WithoutCancel(ctx), v); err != nil {
			return fmt.Errorf("publish %s again: %w", v.Pod, err)
		}
		republished.Add(1)
		delay = time.Duration((1 + jitter*random.Float64()) * float64(minute))
	}
	return nil
}

// mounted mounts a workload.
func (e *environment) mounted(ctx context.Context, s *side, w workload) (prepared, error) {
	p, err := e.prepare(ctx, s, w)
	if err != nil {
		return p, err
	}
	if r := s.publish(ctx, p.volumes, len(p.volumes)); r.err != nil {
		return p, r.err
	}
	return p, s.complete(p.volumes)
}
