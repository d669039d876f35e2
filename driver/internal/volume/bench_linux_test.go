package volume

import (
	"fmt"
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

// BenchmarkState110 looks at the 110 volumes of a full node, as kubelet has it
// done about once a minute: at such as are remembered, and at such as are not.
func BenchmarkState110(b *testing.B) {
	m, root := newManager(b, Config{})
	targets := make([]string, 110)
	for i := range targets {
		targets[i] = fmt.Sprintf("%s-%d", targetIn(root), i)
		mustPublish(b, m, Spec{Target: targets[i], Files: fiveFiles()})
	}
	for name, prepare := range map[string]func(target string){
		"remembered": func(target string) { mustBeRemembered(b, m, target) },
		"forgotten":  m.seen.forget,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for _, target := range targets {
					prepare(target)
				}
				b.StartTimer()
				for _, target := range targets {
					mustState(b, m, target, Complete)
				}
			}
		})
	}
}
