package keyvault

import "testing"

// BenchmarkRead reads 20 secrets of a vault that is known already.
func BenchmarkRead(b *testing.B) {
	objects, refs := manySecrets(20)
	m := &memoryVault{objects: objects}
	s := m.store()
	b.ReportAllocs()
	for b.Loop() {
		answers, err := s.Read(b.Context(), as("web"), refs)
		if err != nil || answers[19].Err != nil {
			b.Fatal(err, answers[19].Err)
		}
		m.operations()
	}
}
