package chaos

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxProblems is how many problems are kept; more are counted.
const maxProblems = 20

// Report is what happened. It may be used by several goroutines at once.
type Report struct {
	cfg Config
	// took is how long it was mounted, recovered how long it took after that
	// until nothing failed any more.
	took, recovered time.Duration

	mu                               sync.Mutex
	mounts, republishes, unpublishes int
	refusals, failedOnes             map[string]int
	hits                             map[string]map[hit]int
	longest                          time.Duration
	longestOf                        string
	problems                         []string
	unkept                           int
	levels                           string
}

func newReport(cfg Config) *Report {
	return &Report{cfg: cfg, refusals: map[string]int{}, failedOnes: map[string]int{}, hits: map[string]map[hit]int{}}
}

// Err is nil if nothing was found that must not be.
func (r *Report) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) == 0 {
		return nil
	}
	text := strings.Join(r.problems, "\n")
	if r.unkept > 0 {
		text += fmt.Sprintf("\nand %d more", r.unkept)
	}
	return errors.New(text)
}

// problem notes something that must not be.
func (r *Report) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) >= maxProblems {
		r.unkept++
		return
	}
	r.problems = append(r.problems, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// published notes a publish that succeeded, at the first attempt or not.
func (r *Report) published(s *seat, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.mounted {
		r.republishes++
	} else {
		r.mounts++
	}
	if took > r.longest {
		r.longest, r.longestOf = took, s.String()
	}
}

func (r *Report) unpublished() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unpublishes++
}

// failed notes an attempt that failed and is made again.
func (r *Report) failed(f failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failedOnes[f.name()]++
}

// refusedOne notes an attempt that was to fail.
func (r *Report) refusedOne(f failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusals[f.name()]++
}

func (r *Report) hit(name string, how hit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hits[name] == nil {
		r.hits[name] = map[hit]int{}
	}
	r.hits[name][how]++
}

func (r *Report) setLevels(table string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.levels = table
}

func (r *Report) attemptsFailed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return total(r.failedOnes)
}

func (r *Report) failures() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return counts(r.failedOnes)
}

// line is how it goes.
func (r *Report) line() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	hits := 0
	for _, of := range r.hits {
		hits += total(of)
	}
	return fmt.Sprintf("%d mounts, %d republishes, %d unpublishes, %d refused, %d attempts failed, %d hits, longest wait %s, %d problems",
		r.mounts, r.republishes, r.unpublishes, total(r.refusals), total(r.failedOnes), hits,
		r.longest.Round(time.Millisecond), len(r.problems)+r.unkept)
}

// String is the summary.
func (r *Report) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	publishes := r.mounts + r.republishes + total(r.refusals)
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("chaos with seed %d for %s", r.cfg.Seed, r.took.Round(time.Second))
	line("  publish calls    %d that ended, %.1f per second of %d aimed at", publishes, float64(publishes)/max(r.took.Seconds(), 1), r.cfg.Rate)
	line("  mounts           %d, republishes %d, unpublishes %d", r.mounts, r.republishes, r.unpublishes)
	line("  refused          %d of pods that may not have what they ask for (%s)", total(r.refusals), counts(r.refusals))
	line("  retries          %d attempts failed, each cured by another (%s)", total(r.failedOnes), counts(r.failedOnes))
	line("  longest wait     %s (%s)", r.longest.Round(time.Millisecond), r.longestOf)
	for _, name := range slices.Sorted(maps.Keys(r.hits)) {
		line("  %-16s %d hits (%s)", name, total(r.hits[name]), counts(r.hits[name]))
	}
	line("  recovered        in %s, once nobody was hit any more", r.recovered.Round(time.Millisecond))
	b.WriteString(r.levels)
	line("  problems         %d", len(r.problems)+r.unkept)
	return b.String()
}

func total[K comparable](of map[K]int) int {
	sum := 0
	for _, n := range of {
		sum += n
	}
	return sum
}

// counts are "name 3, other 1", the most frequent first.
func counts[K ~string](of map[K]int) string {
	if len(of) == 0 {
		return "none"
	}
	names := slices.SortedFunc(maps.Keys(of), func(a, b K) int {
		if of[a] != of[b] {
			return of[b] - of[a]
		}
		return strings.Compare(string(a), string(b))
	})
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = fmt.Sprintf("%s %d", name, of[name])
	}
	return strings.Join(parts, ", ")
}
