package store

import (
	"sync"
	"time"
)

const (
	// refusalFor is how long a refusal is believed. Whoever grants the permission
	// sees it used after that time.
	refusalFor = 10 * time.Minute
	// maxRefusals bounds what is remembered.
	maxRefusals = 1024
)

// refusal is something that an identity may not do in a region: with one object,
// or, where that is empty, with any.
type refusal struct {
	identity, region, operation, object string
}

// refusals remembers what identities may not do, so that requests which only save
// others are not made in vain.
//
// Its invariants:
//  1. A refusal holds for the identity that got it, in that region, and no other.
//  2. It is forgotten after refusalFor.
//  3. There are at most maxRefusals; the oldest goes.
type refusals struct {
	mu    sync.Mutex
	since map[refusal]time.Time
}

func newRefusals() *refusals { return &refusals{since: make(map[refusal]time.Time)} }

func (r *refusals) has(what refusal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	since, ok := r.since[what]
	if ok && time.Since(since) >= refusalFor {
		delete(r.since, what)
		return false
	}
	return ok
}

// add remembers a refusal. It reports whether that is news.
func (r *refusals) add(what refusal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.since[what]
	if !known && len(r.since) >= maxRefusals {
		r.makeRoom()
	}
	r.since[what] = time.Now()
	return !known
}

// makeRoom forgets what is not believed any more, and at least the oldest.
func (r *refusals) makeRoom() {
	var oldest refusal
	for what, since := range r.since {
		if first, ok := r.since[oldest]; !ok || since.Before(first) {
			oldest = what
		}
	}
	delete(r.since, oldest)
	for what, since := range r.since {
		if time.Since(since) >= refusalFor {
			delete(r.since, what)
		}
	}
}
