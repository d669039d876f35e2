package aws

import (
	"cmp"
	"slices"
	"sync"

	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/models"
)

// keptRequests is how many of the latest requests are told.
const keptRequests = 10000

// record is what was asked and answered.
//
// Invariants:
//  1. A request is recorded before its answer is sent.
//  2. No contents of a secret, no key and no token is in it.
type record struct {
	mu         sync.Mutex
	calls      map[control.Call]*control.Call // by all but the counts
	requests   []control.Request
	violations []control.Violation
}

func newRecord() *record { return &record{calls: map[control.Call]*control.Call{}} }

func (r *record) request(q control.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := control.Call{Service: q.Service, Operation: q.Operation, Region: q.Region, Role: q.Role, Code: q.Code}
	call := r.calls[key]
	if call == nil {
		clone := key
		call = &clone
		r.calls[key] = call
	}
	call.Count++
	call.Items += len(q.Items)
	if len(r.requests) >= keptRequests {
		r.requests = slices.Delete(r.requests, 0, len(r.requests)-keptRequests+1)
	}
	r.requests = append(r.requests, q)
}

func (r *record) violation(e *exchange, side string, found ...models.Violation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range found {
		r.violations = append(r.violations, control.Violation{
			Service: e.service, Operation: e.operation, Side: side, Path: v.Path, Problem: v.Problem,
		})
	}
}

func (r *record) allCalls() []control.Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]control.Call, 0, len(r.calls))
	for _, call := range r.calls {
		all = append(all, *call)
	}
	slices.SortFunc(all, func(a, b control.Call) int {
		return cmp.Or(
			cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Region, b.Region),
			cmp.Compare(a.Role, b.Role), cmp.Compare(a.Code, b.Code),
		)
	})
	return all
}

func (r *record) allRequests() []control.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

func (r *record) allViolations() []control.Violation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.violations)
}

func (r *record) resetCalls() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls, r.requests = map[control.Call]*control.Call{}, nil
}

func (r *record) resetViolations() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = nil
}
