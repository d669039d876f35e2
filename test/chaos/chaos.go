// Package chaos mounts and unmounts volumes on a node whose daemons are killed,
// stopped, replaced and frozen at random, and holds every mount to this: it ends
// complete, with what the pod's own service account may read, or as an error that
// says why, leaves nothing half done and is cured by another attempt. When it is
// over, nothing may be left: no mount, no file descriptor, no goroutine, no
// memory, and no secret in a log.
//
// Everything is real: etcd, API server, OpenBao, driver, gateway, providers. The
// seed decides who is hit when and what is mounted when; what meets what depends
// on the machine too, so a run can be much like an earlier one but never the same.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/stack"
)

// Defaults of Config.
const (
	DefaultDuration = 10 * time.Minute
	DefaultRate     = 50
)

// minDuration is the shortest time in which each daemon is hit.
const minDuration = 10 * time.Second

// Config is what a run needs.
type Config struct {
	// Builder finds or builds the programs. Required.
	Builder *build.Builder
	// Duration of mounting; starting and settling come on top.
	Duration time.Duration
	// Seed decides who is hit when.
	Seed uint64
	// Rate is how many publish calls per second are aimed at. A machine that
	// cannot keep up does fewer.
	Rate int
	// Progress gets lines on how it goes. Required.
	Progress io.Writer
	// LogDir is an existing directory that gets the daemons' logs; "" for none.
	LogDir string
}

// run is one run.
//
// Invariants:
//  1. A daemon is touched by its monkey alone until all monkeys have ended.
//  2. A seat is used by one operation at a time.
type run struct {
	cfg    Config
	world  *world
	node   *harness.Node
	report *Report
	// driverAway is when the driver cannot be expected to answer.
	driverAway disturbances
	started    time.Time
}

// Run starts everything, mounts for the configured time while daemons are hit,
// and returns what happened. The error is for what kept it from doing so; what it
// found is in the report, see Report.Err. The daemons' mounts are made in this
// process's mount namespace, which should be its own.
func Run(ctx context.Context, cfg Config) (report *Report, err error) {
	switch {
	case cfg.Builder == nil || cfg.Progress == nil:
		return nil, errors.New("chaos: Builder and Progress are required")
	case cfg.Duration < minDuration:
		return nil, fmt.Errorf("chaos: %s is too short: it takes at least %s until each daemon is hit", cfg.Duration, minDuration)
	case cfg.Rate <= 0:
		return nil, fmt.Errorf("chaos: the rate is %d, and has to be more than 0", cfg.Rate)
	}
	dir, err := os.MkdirTemp("", "postern-chaos-")
	if err != nil {
		return nil, fmt.Errorf("make the run's directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // the providers' uids read the servers' certificates
		return nil, fmt.Errorf("open the run's directory: %w", err)
	}
	servers, err := stack.Start(ctx, stack.Config{Builder: cfg.Builder, Root: cfg.Builder.Root(), Dir: dir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, servers.Stop()) }()
	r := &run{cfg: cfg, report: newReport(cfg)}
	if r.world, err = newWorld(ctx, servers, dir); err != nil {
		return nil, err
	}
	if err := r.startNode(ctx); err != nil {
		return nil, err
	}
	err = r.do(ctx)
	if r.cfg.LogDir != "" {
		err = errors.Join(err, os.CopyFS(r.cfg.LogDir, os.DirFS(r.node.Path("log"))))
	}
	r.checkClosed(r.node.Close())
	return r.report, err
}

func (r *run) startNode(ctx context.Context) error {
	kubeconfig, err := r.world.servers.API.DriverKubeconfig(ctx)
	if err != nil {
		return err
	}
	binaries, err := r.cfg.Builder.Daemons(ctx)
	if err != nil {
		return err
	}
	r.node, err = harness.Start(ctx, harness.Config{
		Binaries:   binaries,
		Kubeconfig: kubeconfig,
		Providers: map[string][]string{
			"vault": {"--vault-addr", r.world.servers.Bao.Address},
			"file":  {"--root", r.world.files},
		},
		// Mounted volumes are fetched again often.
		DriverArgs: []string{"--rotation-poll-interval", "5s"},
	})
	return err
}

// do is the run between start and end of the node.
func (r *run) do(ctx context.Context) error {
	seats := r.world.seats()
	if err := r.warmUp(ctx, seats); err != nil {
		return err
	}
	before, err := steady(ctx, r.node)
	if err != nil {
		return err
	}
	r.say("seed %d: %s at up to %d publish calls per second", r.cfg.Seed, r.cfg.Duration, r.cfg.Rate)
	r.started = time.Now()
	if err := r.storm(ctx, seats); err != nil {
		return err
	}
	r.report.took = time.Since(r.started)
	r.say("over; everything has to recover, is unpublished and settles")
	if err := r.recover(ctx, seats); err != nil {
		return err
	}
	r.checkMounts()
	r.checkLogs()
	return r.checkLevels(ctx, before)
}

// storm mounts while daemons are hit. In its first half every daemon may be
// killed. Then driver and gateway are only frozen, so that what they leak with
// each call and each provider that dies adds up. At last nobody is hit.
func (r *run) storm(ctx context.Context, seats []*seat) error {
	half, calm := r.started.Add(r.cfg.Duration/2), r.started.Add(r.cfg.Duration*5/6)
	end := r.started.Add(r.cfg.Duration)
	group, groupCtx := errgroup.WithContext(ctx)
	for i, m := range r.monkeys() {
		m.until = calm
		m.killsUntil = calm
		if m.spared {
			m.killsUntil = half
		}
		random := r.random(uint64(i + 1))
		group.Go(func() error { return m.run(groupCtx, random) })
	}
	group.Go(func() error { r.world.rotate(groupCtx, end); return nil })
	group.Go(func() error { r.load(groupCtx, seats, end); return nil })
	group.Go(func() error { r.tell(groupCtx, end); return nil })
	return group.Wait()
}

// random is a source of its own for each who needs one.
func (r *run) random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(r.cfg.Seed, stream)) }

// tell says every ten seconds how it goes.
func (r *run) tell(ctx context.Context, end time.Time) {
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	over := time.NewTimer(time.Until(end))
	defer over.Stop()
	for {
		select {
		case <-ticker.C:
			r.say("%s", r.report.line())
		case <-over.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (r *run) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.cfg.Progress, "chaos: "+format+"\n", args...)
}
