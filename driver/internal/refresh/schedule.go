// Package refresh decides when mounted volumes are fetched again: it knows how
// long what a volume holds may be used, how long to wait after a failure, and
// starts what is due.
package refresh

import (
	"context"
	"errors"
	"sync"
	"time"
)

// perGroup is how many refreshes of one provider run at a time. One that is slow
// keeps nobody else's waiting.
const perGroup = 16

// Schedule starts refreshes when they are due, while Run runs.
//
// Invariants:
//  1. There is one due time for a volume; a new one replaces the old.
//  2. A volume is refreshed by one call at a time, and a group's by perGroup at
//     most.
//  3. Nothing is started before Run has started nor after its ctx ended, and Run
//     returns when the last has ended.
type Schedule struct {
	refresh func(ctx context.Context, volumeID string)
	wake    chan struct{}

	mu      sync.Mutex
	volumes map[string]*entry
	running map[string]int // by group, without zeros
}

// entry is one volume's.
type entry struct {
	group string
	// due is zero while there is nothing to do.
	due time.Time
	// running is set while a refresh runs, which is counted in runsIn.
	running bool
	runsIn  string
	// removed is set while the last refresh of a forgotten volume runs.
	removed bool
}

// NewSchedule returns a Schedule that has nothing to do. refresh refreshes a
// volume; it may call Set and Remove.
func NewSchedule(refresh func(ctx context.Context, volumeID string)) (*Schedule, error) {
	if refresh == nil {
		return nil, errors.New("schedule has nothing to start")
	}
	return &Schedule{
		refresh: refresh,
		wake:    make(chan struct{}, 1),
		volumes: make(map[string]*entry),
		running: make(map[string]int),
	}, nil
}

// Set says when a volume is due, and in which group; the zero time is never. A
// refresh that runs goes on.
func (s *Schedule) Set(volumeID, group string, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.volumes[volumeID]
	if !ok {
		e = &entry{}
		s.volumes[volumeID] = e
	}
	e.group, e.due, e.removed = group, due, false
	s.notify()
}

// Remove forgets a volume. A refresh that runs goes on.
func (s *Schedule) Remove(volumeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.volumes[volumeID]
	switch {
	case !ok:
	case e.running:
		e.due, e.removed = time.Time{}, true
	default:
		delete(s.volumes, volumeID)
	}
}

// Run starts what is due until ctx ends.
func (s *Schedule) Run(ctx context.Context) error {
	var refreshes sync.WaitGroup
	defer refreshes.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.wake:
		}
		due, pause := s.take(time.Now())
		for _, volumeID := range due {
			refreshes.Go(func() {
				defer s.finish(volumeID)
				s.refresh(ctx, volumeID)
			})
		}
		timer.Reset(pause)
	}
}

// take returns what is due and may start now, marked as running, and how long
// to wait for the next. A node has so few volumes that looking at all is cheap.
func (s *Schedule) take(now time.Time) (due []string, pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pause = time.Hour
	for volumeID, e := range s.volumes {
		switch wait := e.due.Sub(now); {
		case e.due.IsZero() || e.running:
		case wait > 0:
			pause = min(pause, wait)
		case s.running[e.group] < perGroup: // else the next that ends wakes Run
			s.running[e.group]++
			e.running, e.runsIn, e.due = true, e.group, time.Time{}
			due = append(due, volumeID)
		}
	}
	return due, pause
}

func (s *Schedule) finish(volumeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.volumes[volumeID] // what runs is not deleted
	e.running = false
	if e.removed {
		delete(s.volumes, volumeID)
	}
	if s.running[e.runsIn]--; s.running[e.runsIn] == 0 {
		delete(s.running, e.runsIn)
	}
	s.notify()
}

func (s *Schedule) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
