package double

import (
	"net/http"
	"slices"
	"sync"
	"time"
)

// Kinds of faults that all doubles know.
const (
	Throttle    = "throttle"
	ErrorAnswer = "error"
	Unavailable = "unavailable"
	Hang        = "hang"
	Close       = "close"
	Garbage     = "garbage"
	Latency     = "latency"
)

// Limits say for which of the requests that it matches a fault is.
type Limits struct {
	// After is how many requests pass first.
	After *int
	// Count is for how many requests; 0 until the faults are cleared.
	Count *int
}

// Faults are what goes wrong. F is the double's own kind of fault.
//
// Invariants:
//  1. Each request takes one fault at most: the first that matches it.
//  2. What hangs waits for a channel that is closed when the faults are cleared.
type Faults[F any] struct {
	limits func(*F) Limits

	mu    sync.Mutex
	list  []*F
	ended chan struct{}
}

// NewFaults returns none yet.
func NewFaults[F any](limits func(*F) Limits) *Faults[F] {
	return &Faults[F]{limits: limits, ended: make(chan struct{})}
}

// Add puts one behind those that are there.
func (f *Faults[F]) Add(fault F) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, &fault)
}

// Clear ends all, and lets go what hangs.
func (f *Faults[F]) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
	close(f.ended)
	f.ended = make(chan struct{})
}

// Take returns the fault of a request, and a channel that is closed when the
// faults end.
func (f *Faults[F]) Take(matches func(*F) bool) (fault F, ended <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, candidate := range f.list {
		if !matches(candidate) {
			continue
		}
		limits := f.limits(candidate)
		if *limits.After > 0 {
			*limits.After--
			continue
		}
		taken := *candidate
		if *limits.Count == 1 {
			f.list = slices.Delete(f.list, i, i+1)
		} else if *limits.Count > 1 {
			*limits.Count--
		}
		return taken, f.ended, true
	}
	return fault, nil, false
}

// Injection is a fault on its way to a client.
type Injection struct {
	Kind    string
	Latency time.Duration
	// Ended is closed when the faults end.
	Ended <-chan struct{}
	// Note records what the request gets: its status, or 0, and the fault's kind.
	Note func(status int, kind string)
}

// Do does to a request what the fault wants, and tells whether that was all.
func (i Injection) Do(w http.ResponseWriter, r *http.Request) (answered bool) {
	if i.Latency > 0 {
		timer := time.NewTimer(i.Latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-i.Ended:
		case <-r.Context().Done():
		}
	}
	switch i.Kind {
	case Hang:
		i.Note(0, Hang)
		select {
		case <-i.Ended:
		case <-r.Context().Done():
		}
		hangUp(w)
	case Close:
		i.Note(0, Close)
		hangUp(w)
	case Garbage:
		i.Note(http.StatusOK, Garbage)
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<html>a proxy's page")) // a client that is gone needs no answer
	default:
		return false
	}
	return true
}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = connection.Close()
	}
}
