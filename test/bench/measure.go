package bench

import (
	"fmt"
	"strconv"
	"time"
)

// Kind is what a measure counts.
type Kind int

// Kinds of measures.
const (
	Count Kind = iota
	Duration
	Bytes
)

// Measure is one figure of both sides. Less is better.
type Measure struct {
	Name string
	Kind Kind
	// Upstream and Postern are numbers, nanoseconds or bytes.
	Upstream, Postern float64
	// Target is what Postern's figure has to be, in words; "" for nothing.
	Target string
	Met    bool
}

func duration(name string, p pair[time.Duration]) Measure {
	return Measure{Name: name, Kind: Duration, Upstream: float64(p.upstream), Postern: float64(p.postern)}
}

func count(name string, p pair[int]) Measure {
	return Measure{Name: name, Kind: Count, Upstream: float64(p.upstream), Postern: float64(p.postern)}
}

func size(name string, p pair[int64]) Measure {
	return Measure{Name: name, Kind: Bytes, Upstream: float64(p.upstream), Postern: float64(p.postern)}
}

// figure takes one figure out of what both sides came to.
func figure[T, V any](p pair[T], of func(T) V) pair[V] {
	return pair[V]{upstream: of(p.upstream), postern: of(p.postern)}
}

// under sets a target: less than a time.
func (m Measure) under(limit time.Duration) Measure {
	m.Target, m.Met = "< "+m.format(float64(limit)), m.Postern < float64(limit)
	return m
}

// atMost sets a target: no more than a number.
func (m Measure) atMost(limit int) Measure {
	m.Target, m.Met = "≤ "+strconv.Itoa(limit), m.Postern <= float64(limit)
	return m
}

// belowUpstream sets a target: less than upstream's figure.
func (m Measure) belowUpstream() Measure {
	m.Target, m.Met = "< upstream", m.Postern < m.Upstream
	return m
}

// format writes a figure with three digits, or more where those are needed for
// a whole number.
func (m Measure) format(v float64) string {
	const mebibyte = 1 << 20
	switch m.Kind {
	case Duration:
		return formatDuration(time.Duration(v))
	case Bytes:
		return fmt.Sprintf("%.1f MiB", v/mebibyte)
	default:
		return strconv.Itoa(int(v))
	}
}

func formatDuration(d time.Duration) string {
	switch {
	case d >= time.Second:
		return threeDigits(d.Seconds()) + " s"
	case d >= time.Millisecond:
		return threeDigits(float64(d)/float64(time.Millisecond)) + " ms"
	default:
		return threeDigits(float64(d)/float64(time.Microsecond)) + " µs"
	}
}

func threeDigits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// Ratio says how many times Postern's figure is in upstream's.
func (m Measure) Ratio() string {
	switch {
	case m.Upstream == m.Postern:
		return "1"
	case m.Postern == 0:
		return "–" // all of it is gone
	}
	return threeDigits(m.Upstream/m.Postern) + "×"
}

// Verdict says whether the target is met.
func (m Measure) Verdict() string {
	switch {
	case m.Target == "":
		return ""
	case m.Met:
		return "yes"
	default:
		return "no"
	}
}

// Missed returns the measures whose target is not met, each after the name of
// its scenario.
func (r *Report) Missed() []string {
	var missed []string
	for _, result := range r.Results {
		for _, m := range result.Measures {
			if m.Target != "" && !m.Met {
				missed = append(missed, fmt.Sprintf("%s: %s is %s, not %s", result.Name, m.Name, m.format(m.Postern), m.Target))
			}
		}
	}
	return missed
}
