package volume

import (
	"testing"
	"time"
)

// BenchmarkPublishFiveFiles publishes and removes a volume. The metric
// publish-ns/op is the publish alone.
func BenchmarkPublishFiveFiles(b *testing.B) {
	for _, api := range apis {
		b.Run(api.name, func(b *testing.B) {
			m, root := newManager(b, Config{ForceFallback: api.fallback})
			spec := Spec{Target: targetIn(root), Files: fiveFiles()}
			b.ReportAllocs()
			var publishing time.Duration
			for b.Loop() {
				start := time.Now()
				if err := m.Publish(b.Context(), spec); err != nil {
					b.Fatal(err)
				}
				publishing += time.Since(start)
				if err := m.Unpublish(b.Context(), spec.Target); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(publishing.Nanoseconds())/float64(b.N), "publish-ns/op")
		})
	}
}

// BenchmarkUpdateUnchanged compares a volume with what it should be.
func BenchmarkUpdateUnchanged(b *testing.B) {
	m, root := newManager(b, Config{})
	spec := Spec{Target: targetIn(root), Files: fiveFiles()}
	mustPublish(b, m, spec)
	b.ReportAllocs()
	for b.Loop() {
		if changed, err := m.Update(b.Context(), spec); err != nil || changed {
			b.Fatalf("Update: changed %v, %v", changed, err)
		}
	}
}

// BenchmarkUpdateChanged writes a new revision each time.
func BenchmarkUpdateChanged(b *testing.B) {
	m, root := newManager(b, Config{})
	specs := []Spec{
		{Target: targetIn(root), Files: fiveFiles()},
		{Target: targetIn(root), Files: fiveFiles()[:4]},
	}
	mustPublish(b, m, specs[1])
	b.ReportAllocs()
	next := 0
	for b.Loop() {
		if changed, err := m.Update(b.Context(), specs[next%2]); err != nil || !changed {
			b.Fatalf("Update: changed %v, %v", changed, err)
		}
		next++
	}
}
