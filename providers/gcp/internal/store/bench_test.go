package store

import (
	"fmt"
	"testing"
)

// BenchmarkRead reads 20 secrets of an endpoint that is connected to already. The
// service is in the same process, and TLS in between.
func BenchmarkRead(b *testing.B) {
	m := &memoryGoogle{}
	var refs []Ref
	for i := range 20 {
		m.secrets = append(m.secrets, secretOf(fmt.Sprint("s", i), 1))
		refs = append(refs, refTo(fmt.Sprint("s", i), "latest"))
	}
	w := newWorld(b, m, Config{})
	w.read(b, as("web"), refs...)
	b.ReportAllocs()
	for b.Loop() {
		if answers := w.read(b, as("web"), refs...); answers[19].Err != nil {
			b.Fatal(answers[19].Err)
		}
		w.operations()
	}
}
