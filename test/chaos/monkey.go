package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/process"
)

// How a daemon is hit, and how often.
const (
	shortestPeace  = 500 * time.Millisecond
	longestPeace   = 4 * time.Second
	longestDown    = 1500 * time.Millisecond
	shortestFreeze = 200 * time.Millisecond
	longestFreeze  = 3 * time.Second
	stopGrace      = 30 * time.Second // longer than the daemons take to drain
)

// hit is a way to hit a daemon.
type hit string

// The ways to hit a daemon.
const (
	killed   hit = "killed"   // SIGKILL, and started again after a while
	stopped  hit = "stopped"  // SIGTERM, and started again
	replaced hit = "replaced" // by a rolling update: the new one serves before the old one ends
	frozen   hit = "frozen"   // SIGSTOP, and SIGCONT after a while
)

// monkey hits one daemon at random until it is told to leave it alone. It leaves
// the daemon running.
type monkey struct {
	name string
	// daemon is nil for OpenBao, which would forget everything: it is only
	// frozen.
	daemon *harness.Daemon
	store  *process.Process
	// hits are those to choose from, the more often the likelier.
	hits []hit
	// spared monkeys stop killing when others go on.
	spared bool
	// killsUntil is when it goes over to freezing alone, until when it ends.
	killsUntil, until time.Time
	// began is called when the daemon is about to be hit, and returns what is to
	// be called when it is well again.
	began  func() (ended func())
	report *Report
}

// monkeys are those of a run. A driver cannot be replaced by a rolling update:
// there is one socket for kubelet.
func (r *run) monkeys() []*monkey {
	calls := []hit{killed, killed, killed, frozen, frozen, replaced, replaced, stopped}
	nobody := func() func() { return func() {} }
	return []*monkey{
		{
			name: "driver", daemon: r.node.Driver, spared: true, began: r.driverAway.begin, report: r.report,
			hits: []hit{killed, killed, killed, frozen, frozen, stopped},
		},
		{name: "gateway", daemon: r.node.Gateway, spared: true, hits: calls, began: nobody, report: r.report},
		{name: "provider-vault", daemon: r.node.Providers["vault"], hits: calls, began: nobody, report: r.report},
		{name: "provider-file", daemon: r.node.Providers["file"], hits: calls, began: nobody, report: r.report},
		{name: "openbao", store: r.world.servers.Bao.Process(), hits: []hit{frozen}, began: nobody, report: r.report},
	}
}

// run hits the daemon until it is time to end, or the daemon does not come back.
func (m *monkey) run(ctx context.Context, random *rand.Rand) error {
	for {
		if !wait(ctx, between(random, shortestPeace, longestPeace)) || time.Now().After(m.until) {
			return nil
		}
		how := m.hits[random.IntN(len(m.hits))]
		if how != frozen && time.Now().After(m.killsUntil) {
			how = frozen
		}
		ended := m.began()
		err := m.hit(ctx, random, how)
		ended()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("%s was %s: %w", m.name, how, err)
		}
		m.report.hit(m.name, how)
	}
}

func (m *monkey) hit(ctx context.Context, random *rand.Rand, how hit) error {
	switch how {
	case killed:
		m.daemon.Kill()
		_ = wait(ctx, between(random, 0, longestDown)) // if ctx ends, Restart says so
		return m.daemon.Restart(ctx)
	case stopped:
		if err := m.daemon.Stop(stopGrace); err != nil {
			return err
		}
		return m.daemon.Restart(ctx)
	case replaced:
		return m.daemon.Replace(ctx, "")
	case frozen:
		return m.freeze(ctx, between(random, shortestFreeze, longestFreeze))
	default:
		return fmt.Errorf("nobody knows how to be %q", how)
	}
}

// freeze stops the process from running for a while.
func (m *monkey) freeze(ctx context.Context, duration time.Duration) error {
	victim := m.store
	if m.daemon != nil {
		victim = m.daemon.Process
	}
	if err := victim.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	_ = wait(ctx, duration) // it goes on in any case
	return victim.Signal(unix.SIGCONT)
}

// between is a random duration.
func between(random *rand.Rand, shortest, longest time.Duration) time.Duration {
	return shortest + time.Duration(random.Int64N(int64(longest-shortest)))
}
