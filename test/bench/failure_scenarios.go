package bench

import (
	"context"
	"time"
)

// patience is how long volumes may take that kubelet tries again and again.
const patience = 10 * time.Minute

// retried is what came of volumes that were tried until they were mounted.
type retried struct {
	total         time.Duration
	failed, empty int
	calls         calls
}

func limited(ctx context.Context, e *environment) (Result, error) {
	n := e.sizes.limited
	w := workload{name: "limited", volumes: n, accounts: n, latency: e.sizes.latency, rate: e.sizes.limit}
	p, err := both(ctx, e, options{}, func(ctx context.Context, s *side) (retried, error) { return e.retry(ctx, s, w) })
	if err != nil {
		return Result{}, err
	}
	return Result{Measures: []Measure{
		duration("until all are mounted", figure(p, func(r retried) time.Duration { return r.total })),
		count("kubelet's calls that failed", figure(p, func(r retried) int { return r.failed })),
		count("provider calls", figure(p, func(r retried) int { return r.calls.all })),
		count("of these, refused by the store", figure(p, func(r retried) int { return r.calls.refused })),
		count("of these, served by the store", figure(p, func(r retried) int { return r.calls.all - r.calls.refused })),
	}}, nil
}

func empty(ctx context.Context, e *environment) (Result, error) {
	n := e.sizes.empty
	w := workload{name: "empty", volumes: n, accounts: n, latency: e.sizes.latency, refuseFirst: true}
	p, err := both(ctx, e, options{interval: dueAfter * time.Minute}, func(ctx context.Context, s *side) (retried, error) {
		return e.retry(ctx, s, w)
	})
	if err != nil {
		return Result{}, err
	}
	return Result{Measures: []Measure{
		count("published and empty", figure(p, func(r retried) int { return r.empty })).atMost(0),
		duration("until all are published", figure(p, func(r retried) time.Duration { return r.total })),
		count("kubelet's calls that failed", figure(p, func(r retried) int { return r.failed })),
	}}, nil
}

// retry publishes a workload until all of it is said to be published, and looks
// what is there.
func (e *environment) retry(ctx context.Context, s *side, w workload) (retried, error) {
	var result retried
	p, err := e.prepare(ctx, s, w)
	if err != nil {
		return result, err
	}
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var r run
	result.calls, err = s.counted(ctx, func() error {
		r = s.publishUntilMounted(patient, p.volumes)
		return r.err
	})
	if err != nil {
		return result, err
	}
	result.total, result.failed = r.total, r.failed
	if result.empty, err = s.empty(p.volumes); err != nil {
		return result, err
	}
	e.say("    %s, %d failed calls, %d provider calls, %d of them refused, %d empty volumes",
		formatDuration(r.total), r.failed, result.calls.all, result.calls.refused, result.empty)
	return result, e.remove(ctx, s, p)
}
