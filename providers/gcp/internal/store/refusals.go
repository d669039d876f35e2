package store

import (
	"sync"
	"time"
)

const (
	// refusedFor is how long a refusal is believed. Whoever grants the permission sees
	// it used after that time.
	refusedFor = 10 * time.Minute
	// throttledFor is how long a project is not asked for versions that had too many
	// such requests. It may have 600 a minute, but 90,000 that read:
	// https://cloud.google.com/secret-manager/quotas
	throttledFor = time.Minute
	// maxRefusals bounds what is remembered.
	maxRefusals = 1024
)

// refusal is a project that does not tell versions: one identity or, where that is
// not said, nobody.
type refusal struct {
	project  string
	identity string
	everyone bool
}

// refusals remembers where versions cannot be asked for, so that requests which only
// save others are not made in vain.
//
// Its invariants:
//  1. A refusal for an identity holds for no other.
//  2. It is forgotten when its time is over.
//  3. There are at most maxRefusals; the one that would be forgotten next goes.
type refusals struct {
	mu    sync.Mutex
	until map[refusal]time.Time
}

func newRefusals() *refusals { return &refusals{until: make(map[refusal]time.Time)} }

// have reports whether an identity is not to ask a project.
func (r *refusals) have(identity, project string) bool {
	return r.has(refusal{project: project, identity: identity}) || r.has(refusal{project: project, everyone: true})
}

func (r *refusals) has(what refusal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.until[what]
	if ok && !time.Now().Before(until) {
		delete(r.until, what)
		return false
	}
	return ok
}

// deny remembers that an identity may not ask.
func (r *refusals) deny(identity, project string) {
	r.add(refusal{project: project, identity: identity}, refusedFor)
}

// throttle remembers that a project is asked too much.
func (r *refusals) throttle(project string) {
	r.add(refusal{project: project, everyone: true}, throttledFor)
}

func (r *refusals) add(what refusal, period time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.until[what]; !known && len(r.until) >= maxRefusals {
		var next refusal
		for one, until := range r.until {
			if first, ok := r.until[next]; !ok || until.Before(first) {
				next = one
			}
		}
		delete(r.until, next)
	}
	r.until[what] = time.Now().Add(period)
}
