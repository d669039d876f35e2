package double

import (
	"slices"
	"sync"
)

// keptRequests is how many of the latest requests are told.
const keptRequests = 10000

// Record is what was asked and answered. Requests Q of one kind K are counted
// together; V is a violation of the cloud's rules.
//
// Invariants:
//  1. No contents of a secret, no key and no token is in it: its types have no
//     place for them.
//  2. What it returns is a copy.
type Record[K comparable, Q, V any] struct {
	kind func(Q) (kind K, items int)

	mu         sync.Mutex
	counts     map[K]*Counted[K]
	requests   []Q
	violations []V
}

// Counted is how many requests of a kind there were, and for how many items.
type Counted[K comparable] struct {
	Kind         K
	Count, Items int
}

// NewRecord returns an empty one. Kind tells what a request is counted as.
func NewRecord[K comparable, Q, V any](kind func(Q) (K, int)) *Record[K, Q, V] {
	return &Record[K, Q, V]{kind: kind, counts: map[K]*Counted[K]{}}
}

// Request adds one. It is to be there before the client has its answer.
func (r *Record[K, Q, V]) Request(q Q) {
	kind, items := r.kind(q)
	r.mu.Lock()
	defer r.mu.Unlock()
	counted := r.counts[kind]
	if counted == nil {
		counted = &Counted[K]{Kind: kind}
		r.counts[kind] = counted
	}
	counted.Count++
	counted.Items += items
	if len(r.requests) >= keptRequests {
		r.requests = slices.Delete(r.requests, 0, len(r.requests)-keptRequests+1)
	}
	r.requests = append(r.requests, q)
}

// Violation adds some.
func (r *Record[K, Q, V]) Violation(found ...V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, found...)
}

// Counts returns all kinds of requests, in no order.
func (r *Record[K, Q, V]) Counts() []Counted[K] {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Counted[K], 0, len(r.counts))
	for _, counted := range r.counts {
		all = append(all, *counted)
	}
	return all
}

// Requests returns the latest, in order.
func (r *Record[K, Q, V]) Requests() []Q {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Violations returns all.
func (r *Record[K, Q, V]) Violations() []V {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.violations)
}

// ResetCalls forgets the requests.
func (r *Record[K, Q, V]) ResetCalls() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts, r.requests = map[K]*Counted[K]{}, nil
}

// ResetViolations forgets those.
func (r *Record[K, Q, V]) ResetViolations() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = nil
}
