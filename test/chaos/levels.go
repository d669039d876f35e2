package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/harness"
)

// How much more a daemon may have after a run than before it, once it has
// settled: connections to the store that are kept for a while, and memory that
// the runtime has not given back.
const (
	moreGoroutines = 8
	moreFiles      = 6
	moreMemory     = 16 << 20
	// steadyFor is how long the levels before a run must not have fallen, and
	// steadyWithin how long that is waited for.
	steadyFor    = 3 * time.Second
	steadyWithin = 30 * time.Second
	// settleWithin is longer than the daemons keep idle connections, and than
	// the interval at which they give memory back.
	settleWithin = 2 * time.Minute
	settlePoll   = 500 * time.Millisecond
	mebibyte     = 1 << 20
)

// level is what a daemon has.
type level struct {
	goroutines, files int
	memory            int64
}

// levels are those of the daemons, by name.
type levels map[string]level

func measure(ctx context.Context, n *harness.Node) (levels, error) {
	measured := levels{}
	for _, daemon := range n.Daemons() {
		metrics, err := daemon.Get(ctx, "/metrics")
		if err != nil {
			return nil, err
		}
		one, err := parseLevel(metrics)
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", daemon.Name(), err)
		}
		if one.memory, err = daemon.RSS(); err != nil {
			return nil, err
		}
		measured[daemon.Name()] = one
	}
	return measured, nil
}

// steady measures until nothing falls any more: what the start took is no
// measure for what may be left.
func steady(ctx context.Context, n *harness.Node) (levels, error) {
	lowest, err := measure(ctx, n)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	for fell := started; time.Since(fell) < steadyFor && time.Since(started) < steadyWithin; {
		if !wait(ctx, settlePoll) {
			return nil, ctx.Err()
		}
		now, err := measure(ctx, n)
		if err != nil {
			return nil, err
		}
		if lowest.lower(now) {
			fell = time.Now()
		}
	}
	return lowest, nil
}

// lower takes over what is lower now, and tells whether a count was.
func (l levels) lower(now levels) (fell bool) {
	for name, was := range l {
		one := now[name]
		fell = fell || one.goroutines < was.goroutines || one.files < was.files
		l[name] = level{
			goroutines: min(was.goroutines, one.goroutines), files: min(was.files, one.files), memory: min(was.memory, one.memory),
		}
	}
	return fell
}

// parseLevel reads what the Go and process collectors say.
func parseLevel(metrics string) (one level, err error) {
	for name, into := range map[string]*int{"go_goroutines": &one.goroutines, "process_open_fds": &one.files} {
		value, ok := metric(metrics, name)
		if !ok {
			return level{}, fmt.Errorf("there is no %s", name)
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return level{}, fmt.Errorf("%s is %q, which is no number", name, value)
		}
		*into = int(number)
	}
	return one, nil
}

// metric is the value of the metric of this name that has no labels.
func metric(metrics, name string) (string, bool) {
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

// over tells which daemons have more than they had.
func (l levels) over(before levels) []string {
	var over []string
	for _, name := range slices.Sorted(maps.Keys(l)) {
		now, was := l[name], before[name]
		if now.goroutines > was.goroutines+moreGoroutines {
			over = append(over, fmt.Sprintf("%s has %d goroutines and had %d", name, now.goroutines, was.goroutines))
		}
		if now.files > was.files+moreFiles {
			over = append(over, fmt.Sprintf("%s has %d file descriptors and had %d", name, now.files, was.files))
		}
		if now.memory > was.memory+moreMemory {
			over = append(over, fmt.Sprintf("%s takes %.1f MiB and took %.1f", name,
				float64(now.memory)/mebibyte, float64(was.memory)/mebibyte))
		}
	}
	return over
}

// table compares two levels.
func (l levels) table(before levels) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(l)) {
		now, was := l[name], before[name]
		fmt.Fprintf(&b, "  %-24s before and after: goroutines %d, %d; file descriptors %d, %d; memory %.1f, %.1f MiB\n", name,
			was.goroutines, now.goroutines, was.files, now.files, float64(was.memory)/mebibyte, float64(now.memory)/mebibyte)
	}
	return b.String()
}

// checkLevels waits until each daemon has about what it had before.
func (r *run) checkLevels(ctx context.Context, before levels) error {
	deadline := time.Now().Add(settleWithin)
	for {
		now, err := measure(ctx, r.node)
		if err != nil {
			return err
		}
		over := now.over(before)
		if len(over) == 0 || time.Now().After(deadline) {
			r.report.setLevels(now.table(before))
			for _, one := range over {
				r.report.problem("left behind after %s: %s", settleWithin, one)
			}
			return nil
		}
		if !wait(ctx, settlePoll) {
			return ctx.Err()
		}
	}
}
