package budget_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-dev/postern/gateway/internal/budget"
)

// BenchmarkAcquire is what a call costs that need not wait.
func BenchmarkAcquire(b *testing.B) {
	w := newWorld(b, budget.Limits{})
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		leave, err := w.Acquire(ctx, vault, "store")
		if err != nil {
			b.Fatal(err)
		}
		leave.Done(nil)
	}
}

// BenchmarkAcquire_Parallel is the same, of many callers and two providers.
func BenchmarkAcquire_Parallel(b *testing.B) {
	w := newWorld(b, budget.Limits{})
	b.ReportAllocs()
	var callers atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		name := fmt.Sprint(callers.Add(1) % 2)
		for pb.Next() {
			leave, err := w.Acquire(b.Context(), name, "store")
			if err != nil {
				b.Error(err)
				return
			}
			leave.Done(nil)
		}
	})
}
