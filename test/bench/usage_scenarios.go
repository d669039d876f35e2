package bench

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// resident is the memory of one side, before and after volumes were mounted.
type resident struct{ idle, full memory }

func memoryUse(ctx context.Context, e *environment) (_ Result, err error) {
	var p pair[resident]
	upstream, err := e.startUpstream(ctx, options{})
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, upstream.end()) }()
	postern, err := e.startPostern(ctx, options{})
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, postern.end()) }()
	if p.upstream.idle, p.postern.idle, err = e.settled(ctx, upstream, postern); err != nil {
		return Result{}, err
	}
	w := workload{name: "memory", volumes: e.sizes.memory, accounts: 1, latency: e.sizes.latency}
	for _, s := range []*side{upstream, postern} {
		mounted, err := e.mounted(ctx, s, w)
		if err != nil {
			return Result{}, fmt.Errorf("%s: %w", s.name, err)
		}
		defer func() { err = errors.Join(err, e.remove(ctx, s, mounted)) }() //nolint:gocritic // both stay mounted until both are measured
	}
	if p.upstream.full, p.postern.full, err = e.settled(ctx, upstream, postern); err != nil {
		return Result{}, err
	}
	return Result{Measures: []Measure{
		size("idle", figure(p, func(r resident) int64 { return r.idle.all })).belowUpstream(),
		size("idle, without the text of programs", figure(p, func(r resident) int64 { return r.idle.anonymous })),
		size(fmt.Sprintf("with %d volumes", w.volumes), figure(p, func(r resident) int64 { return r.full.all })).belowUpstream(),
		size(fmt.Sprintf("with %d volumes, without the text of programs", w.volumes), figure(p, func(r resident) int64 { return r.full.anonymous })),
	}}, nil
}

// settled returns the memory of both when they had time to give some back.
func (e *environment) settled(ctx context.Context, upstream, postern *side) (of, other memory, err error) {
	e.say("  waiting %s for both to give back what they do not need", e.sizes.settle)
	if err := wait(ctx, e.sizes.settle); err != nil {
		return of, other, err
	}
	if of, err = memoryOf(upstream.daemons...); err != nil {
		return of, other, err
	}
	other, err = memoryOf(postern.daemons...)
	return of, other, err
}

// price is what a number of mounts took.
type price struct {
	perMount time.Duration
	requests int
}

func cpu(ctx context.Context, e *environment) (Result, error) {
	w := workload{name: "cpu", volumes: e.sizes.cpu, accounts: 1, latency: e.sizes.latency}
	p, err := both(ctx, e, options{}, func(ctx context.Context, s *side) (price, error) { return e.price(ctx, s, w) })
	if err != nil {
		return Result{}, err
	}
	return Result{Measures: []Measure{
		duration("processor time per mount", figure(p, func(p price) time.Duration { return p.perMount })),
		count("requests to the API server", figure(p, func(p price) int { return p.requests })),
	}}, nil
}

// price mounts volumes one after the other, waits for what is written after the
// answer, and says what that took.
func (e *environment) price(ctx context.Context, s *side, w workload) (price, error) {
	p, err := e.prepare(ctx, s, w)
	if err != nil {
		return price{}, err
	}
	requests, err := e.countRequests(ctx)
	if err != nil {
		return price{}, err
	}
	before, err := cpuTime(s.daemons...)
	if err != nil {
		return price{}, err
	}
	if r := s.publish(ctx, p.volumes, 1); r.err != nil {
		return price{}, r.err
	}
	if err := e.settle(ctx, s, p); err != nil {
		return price{}, err
	}
	after, err := cpuTime(s.daemons...)
	if err != nil {
		return price{}, err
	}
	sum, err := e.countRequests(ctx)
	if err != nil {
		return price{}, err
	}
	result := price{perMount: (after - before) / time.Duration(len(p.volumes)), requests: sum - requests}
	return result, e.remove(ctx, s, p)
}

// countRequests counts what the API server was asked about SecretProviderClasses
// and their status objects, one by one: lists and watches are not of a mount.
func (e *environment) countRequests(ctx context.Context) (int, error) {
	text, err := e.api.Client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the API server's metrics: %w", err)
	}
	line := regexp.MustCompile(`(?m)^apiserver_request_total\{[^}]*group="secrets-store\.csi\.x-k8s\.io"[^}]*verb="(?:GET|POST|PUT|PATCH|APPLY)"[^}]*\} (\S+)$`)
	sum := 0.0
	for _, match := range line.FindAllSubmatch(text, -1) {
		n, err := strconv.ParseFloat(string(match[1]), 64)
		if err != nil {
			return 0, fmt.Errorf("read the API server's metrics: %w", err)
		}
		sum += n
	}
	return int(sum), nil
}
