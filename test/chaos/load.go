package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// clearAtOnce is how many volumes are dealt with at once where no rate is
	// aimed at.
	clearAtOnce = 8
	// recoverWithin is how long after the last hit an attempt may fail: longer
	// than a store is left alone that failed time and again.
	recoverWithin = 45 * time.Second
)

// pool holds the seats at which nothing is done.
type pool struct {
	mu   sync.Mutex
	idle []*seat
}

// take returns one of the idle seats, or nil.
func (p *pool) take(random *rand.Rand) *seat {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	i, last := random.IntN(len(p.idle)), len(p.idle)-1
	taken := p.idle[i]
	p.idle[i], p.idle = p.idle[last], p.idle[:last]
	return taken
}

func (p *pool) put(s *seat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, s)
}

// load starts operations at the configured rate until the end, and waits for
// the last of them. Those for which there was no seat, since every pod waited for
// something, are made up for afterwards, but no more than a second's.
func (r *run) load(ctx context.Context, seats []*seat, end time.Time) {
	random := r.random(0)
	idle := &pool{idle: slices.Clone(seats)}
	ticker := time.NewTicker(time.Second / time.Duration(r.cfg.Rate))
	defer ticker.Stop()
	var operations sync.WaitGroup
	defer operations.Wait()
	for due := 0; time.Now().Before(end); {
		select {
		case <-ticker.C:
			due = min(due+1, r.cfg.Rate)
		case <-ctx.Done():
			return
		}
		for range min(due, 2) {
			s := idle.take(random)
			if s == nil {
				break
			}
			due--
			own := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
			operations.Go(func() {
				defer idle.put(s)
				r.operate(ctx, s, own)
			})
		}
	}
}

// warmUp mounts and unmounts each class, so that what the daemons have from then
// on is what they need. Nobody is hit yet, so every attempt has to succeed.
func (r *run) warmUp(ctx context.Context, seats []*seat) error {
	r.round(ctx, seats)
	warm := r.report
	r.report = newReport(r.cfg)
	if warm.attemptsFailed() > 0 {
		warm.problem("attempts failed though nobody was hit: %s", warm.failures())
	}
	return errors.Join(ctx.Err(), warm.Err())
}

// recover mounts and unmounts each class until no attempt fails any more, now
// that nobody is hit.
func (r *run) recover(ctx context.Context, seats []*seat) error {
	r.clear(ctx, seats)
	for started := time.Now(); ; {
		failed := r.report.attemptsFailed()
		r.round(ctx, seats)
		failed = r.report.attemptsFailed() - failed
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case failed == 0:
			r.report.recovered = time.Since(started)
			return nil
		case time.Since(started) > recoverWithin:
			r.report.problem("%d attempts still fail %s after the last hit: %s", failed, time.Since(started).Round(time.Second), r.report.failures())
			return nil
		}
	}
}

// round mounts and unmounts each class.
func (r *run) round(ctx context.Context, seats []*seat) {
	var group errgroup.Group
	group.SetLimit(clearAtOnce)
	for i, s := range seats {
		group.Go(func() error {
			random := r.random(uint64(len(seats) + i))
			for range 2 { // a mount, and what comes after one
				r.operate(ctx, s, random)
			}
			return nil
		})
	}
	_ = group.Wait() // of functions that return nil
	r.clear(ctx, seats)
}

// clear unpublishes every volume and deletes every pod.
func (r *run) clear(ctx context.Context, seats []*seat) {
	var group errgroup.Group
	group.SetLimit(clearAtOnce)
	for _, s := range seats {
		group.Go(func() error {
			if s.there {
				r.unpublish(ctx, s) // also where it is not mounted: kubelet would
				r.vacate(ctx, s)
			}
			return nil
		})
	}
	_ = group.Wait() // of functions that return nil
}
