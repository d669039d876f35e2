package aws

import (
	"cmp"
	"slices"

	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/models"
	"github.com/postern-dev/postern/test/double"
)

// record is what was asked and answered.
type record struct {
	*double.Record[control.Call, control.Request, control.Violation]
}

func newRecord() record {
	return record{double.NewRecord[control.Call, control.Request, control.Violation](func(q control.Request) (control.Call, int) {
		return control.Call{Service: q.Service, Operation: q.Operation, Region: q.Region, Role: q.Role, Code: q.Code}, len(q.Items)
	})}
}

func (r record) violation(e *exchange, side string, found ...models.Violation) {
	for _, v := range found {
		r.Violation(control.Violation{Service: e.service, Operation: e.operation, Side: side, Path: v.Path, Problem: v.Problem})
	}
}

// calls are the counts, in order.
func (s *Server) calls() []control.Call {
	all := []control.Call{}
	for _, counted := range s.record.Counts() {
		call := counted.Kind
		call.Count, call.Items = counted.Count, counted.Items
		all = append(all, call)
	}
	slices.SortFunc(all, func(a, b control.Call) int {
		return cmp.Or(
			cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Region, b.Region),
			cmp.Compare(a.Role, b.Role), cmp.Compare(a.Code, b.Code),
		)
	})
	return all
}
