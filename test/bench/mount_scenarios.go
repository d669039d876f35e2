package bench

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// mounted is what came of mounting many volumes at once.
type mounted struct {
	total, slowest, p50, p99 time.Duration
	calls                    int
}

func storm(ctx context.Context, e *environment) (Result, error) {
	w := workload{name: "storm", volumes: e.sizes.storm, accounts: 1, latency: e.sizes.latency}
	p, err := both(ctx, e, options{}, func(ctx context.Context, s *side) (mounted, error) {
		return e.mountAll(ctx, s, w, w.volumes, e.sizes.runs)
	})
	if err != nil {
		return Result{}, err
	}
	return Result{Measures: []Measure{
		duration("until all are mounted", figure(p, func(m mounted) time.Duration { return m.total })).under(stormTarget),
		duration("the slowest run", figure(p, func(m mounted) time.Duration { return m.slowest })),
		duration("one volume, p50", figure(p, func(m mounted) time.Duration { return m.p50 })),
		duration("one volume, p99", figure(p, func(m mounted) time.Duration { return m.p99 })).under(stormP99Target),
		count("provider calls", figure(p, func(m mounted) int { return m.calls })).atMost(1),
	}}, nil
}

func thousand(ctx context.Context, e *environment) (Result, error) {
	w := workload{name: "thousand", volumes: e.sizes.thousand, accounts: 1, latency: e.sizes.latency}
	p, err := both(ctx, e, options{}, func(ctx context.Context, s *side) (mounted, error) {
		return e.mountAll(ctx, s, w, e.sizes.thousandAtOnce, e.sizes.thousandRuns)
	})
	if err != nil {
		return Result{}, err
	}
	return Result{Measures: []Measure{
		duration("until all are mounted", figure(p, func(m mounted) time.Duration { return m.total })).under(thousandTarget),
		duration("one volume, p50", figure(p, func(m mounted) time.Duration { return m.p50 })),
		duration("one volume, p99", figure(p, func(m mounted) time.Duration { return m.p99 })),
		count("provider calls", figure(p, func(m mounted) int { return m.calls })),
	}}, nil
}

// mountAll mounts a workload several times, each time with pods and a class
// that nobody knows yet, and returns medians; of the calls, the most.
func (e *environment) mountAll(ctx context.Context, s *side, w workload, atOnce, times int) (mounted, error) {
	var total, p50, p99 []time.Duration
	most := 0
	for i := range times {
		again := w
		again.name = fmt.Sprintf("%s-%d", w.name, i)
		r, c, err := e.mount(ctx, s, again, atOnce)
		if err != nil {
			return mounted{}, err
		}
		total, p50, p99 = append(total, r.total), append(p50, r.quantile(.5)), append(p99, r.quantile(.99))
		most = max(most, c.all)
		e.say("    %s: p50 %s, p99 %s, %d provider calls",
			formatDuration(r.total), formatDuration(r.quantile(.5)), formatDuration(r.quantile(.99)), c.all)
	}
	return mounted{total: median(total), slowest: slices.Max(total), p50: median(p50), p99: median(p99), calls: most}, nil
}

// mount mounts a workload, checks each volume and takes it away.
func (e *environment) mount(ctx context.Context, s *side, w workload, atOnce int) (run, calls, error) {
	p, err := e.prepare(ctx, s, w)
	if err != nil {
		return run{}, calls{}, err
	}
	var r run
	c, err := s.counted(ctx, func() error {
		r = s.publish(ctx, p.volumes, atOnce)
		return r.err
	})
	if err != nil {
		return r, c, err
	}
	if err := s.complete(p.volumes); err != nil {
		return r, c, err
	}
	return r, c, e.remove(ctx, s, p)
}

// roundsTime is after which no further round begins: upstream's take long.
const roundsTime = 25 * time.Second

// republished is what came of calls for mounted volumes.
type republished struct {
	due, later           time.Duration
	dueCalls, laterCalls int
}

func republish(ctx context.Context, e *environment) (Result, error) {
	p, err := both(ctx, e, options{interval: e.sizes.interval}, e.republish)
	if err != nil {
		return Result{}, err
	}
	return Result{Measures: []Measure{
		duration("a round after the interval", figure(p, func(r republished) time.Duration { return r.due })),
		count("its provider calls, after the interval", figure(p, func(r republished) int { return r.dueCalls })),
		duration("a round a moment later", figure(p, func(r republished) time.Duration { return r.later })).under(republishTarget),
		count("its provider calls, a moment later", figure(p, func(r republished) int { return r.laterCalls })).atMost(1),
	}}, nil
}

func (e *environment) republish(ctx context.Context, s *side) (republished, error) {
	var r republished
	w := workload{name: "republish", volumes: e.sizes.republish, accounts: 1, latency: e.sizes.latency}
	p, err := e.prepare(ctx, s, w)
	if err != nil {
		return r, err
	}
	if mount := s.publish(ctx, p.volumes, len(p.volumes)); mount.err != nil {
		return r, mount.err
	}
	if err := wait(ctx, e.sizes.interval+time.Second/4); err != nil {
		return r, err
	}
	if r.due, r.dueCalls, err = s.round(ctx, p); err != nil {
		return r, err
	}
	// What a refresh writes to the API server is not of the next round.
	if err := wait(ctx, e.sizes.interval/4); err != nil {
		return r, err
	}
	var took []time.Duration
	for start := time.Now(); len(took) < e.sizes.rounds && time.Since(start) < roundsTime; {
		t, n, err := s.round(ctx, p)
		if err != nil {
			return r, err
		}
		took, r.laterCalls = append(took, t), max(r.laterCalls, n)
	}
	r.later = median(took)
	e.say("    due %s and %d provider calls, then %s and %d", formatDuration(r.due), r.dueCalls, formatDuration(r.later), r.laterCalls)
	if err := s.complete(p.volumes); err != nil {
		return r, err
	}
	return r, e.remove(ctx, s, p)
}

// round publishes all volumes once more, and returns how long it took and the
// provider's calls.
func (s *side) round(ctx context.Context, p prepared) (time.Duration, int, error) {
	var r run
	c, err := s.counted(ctx, func() error {
		r = s.publish(ctx, p.volumes, len(p.volumes))
		return r.err
	})
	return r.total, c.all, err
}

func median(of []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}
