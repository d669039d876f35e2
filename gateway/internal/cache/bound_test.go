package cache_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/cache"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// model is a cache as one would write it who has all the time in the world.
type model struct {
	maxBytes int
	// kept has the answer used last at its end.
	kept []modelEntry
}

type modelEntry struct {
	class string
	bytes int
}

func (m *model) bytes() int {
	n := 0
	for _, e := range m.kept {
		n += e.bytes
	}
	return n
}

func (m *model) take(class string) (modelEntry, bool) {
	i := slices.IndexFunc(m.kept, func(e modelEntry) bool { return e.class == class })
	if i < 0 {
		return modelEntry{}, false
	}
	e := m.kept[i]
	m.kept = slices.Delete(m.kept, i, i+1)
	return e, true
}

func (m *model) get(class string) bool {
	e, ok := m.take(class)
	if ok {
		m.kept = append(m.kept, e)
	}
	return ok
}

func (m *model) put(class string, bytes int) {
	m.take(class)
	if bytes > m.maxBytes/4 {
		return
	}
	m.kept = append(m.kept, modelEntry{class, bytes})
	for m.bytes() > m.maxBytes {
		m.kept = m.kept[1:]
	}
}

// Whatever is put, got and dropped in whatever order: the bound holds, what is
// kept is what was used last, and no reference is lost.
func TestBound(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			maxBytes := 8000 + random.IntN(20_000)
			c, m := newCache(t, maxBytes), &model{maxBytes: maxBytes}
			fixed := costOf(t, sized(0))
			var all []*answer.Answer
			for range 1000 {
				class := fmt.Sprint(random.IntN(30))
				switch random.IntN(4) {
				case 0, 1:
					size := random.IntN(random.IntN(8000) + 1)
					all = append(all, put(c, class, sized(size+1), time.Hour))
					m.put(class, fixed+size+1)
				case 2:
					a, ok := c.Get(keyOf(class))
					if ok {
						a.Release()
					}
					if want := m.get(class); ok != want {
						t.Fatalf("an answer for %s: %v, want %v", class, ok, want)
					}
				default:
					c.Drop(keyOf(class))
					m.take(class)
				}
				s := c.Stats()
				if s.Bytes > int64(maxBytes) || s.Bytes != int64(m.bytes()) || s.Entries != len(m.kept) {
					t.Fatalf("%d answers of %d bytes are kept, want %d of %d, and at most %d bytes",
						s.Entries, s.Bytes, len(m.kept), m.bytes(), maxBytes)
				}
			}
			live := 0
			for _, a := range all {
				if !overwritten(a) {
					live++
				}
			}
			if live != len(m.kept) {
				t.Errorf("the contents of %d answers are there, but %d are kept", live, len(m.kept))
			}
			c.Clear()
			if slices.ContainsFunc(all, func(a *answer.Answer) bool { return !overwritten(a) }) {
				t.Error("a reference is left after Clear")
			}
		})
	}
}

func TestCache_ConcurrentSafe(t *testing.T) {
	t.Parallel()
	const maxBytes = 40_000
	c := newCache(t, maxBytes)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var mu sync.Mutex
	var all []*answer.Answer
	var users sync.WaitGroup
	for i := range 8 {
		random := rand.New(rand.NewPCG(uint64(i), 2))
		users.Go(func() {
			for range 500 {
				class := fmt.Sprint(random.IntN(40))
				switch random.IntN(5) {
				case 0, 1:
					a := put(c, class, sized(1+random.IntN(3000)), time.Duration(random.IntN(int(5*time.Millisecond))))
					mu.Lock()
					all = append(all, a)
					mu.Unlock()
				case 2:
					c.Drop(keyOf(class))
				case 3:
					if s := c.Stats(); s.Bytes > maxBytes {
						t.Errorf("%d bytes are kept, %d may be", s.Bytes, maxBytes)
					}
				default:
					if a, ok := c.Get(keyOf(class)); ok {
						if overwritten(a) {
							t.Error("an answer is overwritten that a caller holds")
						}
						a.Release()
					}
				}
			}
		})
	}
	users.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if slices.ContainsFunc(all, func(a *answer.Answer) bool { return !overwritten(a) }) {
		t.Error("a reference is left at the end")
	}
}

// What is counted for an answer is no less than what it takes, also where an
// answer is not much more than its messages. It runs alone.
func TestCountedBytes(t *testing.T) { //nolint:paralleltest // it measures the process's memory
	const kept = 300
	shapes := map[string]struct{ files, objects, size int }{
		"small":        {1, 1, 10},
		"usual":        {5, 5, 1000},
		"many files":   {500, 1, 3},
		"many objects": {1, 500, 3},
	}
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		shape := shapes[name]
		t.Run(name, func(t *testing.T) {
			wire, err := proto.Marshal(shaped(shape.files, shape.objects, shape.size))
			if err != nil {
				t.Fatal(err)
			}
			c := newCache(t, 1<<30)
			before := heapInUse()
			for i := range kept {
				response := new(providerv1.FetchResponse)
				if err := proto.Unmarshal(wire, response); err != nil {
					t.Fatal(err)
				}
				put(c, fmt.Sprint(i), answer.New(response, time.Now()), time.Hour)
			}
			takes, counted := int64(heapInUse())-int64(before), c.Stats().Bytes
			if takes > counted {
				t.Errorf("%d answers take %d bytes and are counted as %d", kept, takes, counted)
			}
			if counted > 4*takes {
				t.Errorf("%d answers take %d bytes and are counted as %d: that many are not", kept, takes, counted)
			}
			runtime.KeepAlive(c)
		})
	}
}

func shaped(files, objects, size int) *providerv1.FetchResponse {
	r := new(providerv1.FetchResponse)
	for i := range files {
		r.Files = append(r.Files, &secretv1.File{Path: fmt.Sprintf("file-%05d", i), Contents: make([]byte, size)})
	}
	for i := range objects {
		r.Objects = append(r.Objects, &secretv1.ObjectVersion{Id: fmt.Sprintf("file-%05d", i), Version: "1"})
	}
	return r
}

func heapInUse() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one put aside
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// A hit costs nothing that has to be collected. It runs alone.
func TestGet_Allocations(t *testing.T) { //nolint:paralleltest // it counts the process's allocations
	c := newCache(t, plenty)
	put(c, "a", sized(10), time.Hour)
	k := keyOf("a")
	if n := testing.AllocsPerRun(100, func() {
		a, _ := c.Get(k)
		a.Release()
	}); n != 0 {
		t.Errorf("Get makes %v allocations, want none", n)
	}
}

const benchmarkEntries = 10_000

func benchmarkCache(b *testing.B) *cache.Cache {
	b.Helper()
	c := newCache(b, benchmarkEntries*costOf(b, sized(100)))
	for i := range benchmarkEntries {
		put(c, fmt.Sprint(i), sized(100), time.Hour)
	}
	if n := c.Stats().Entries; n != benchmarkEntries {
		b.Fatalf("%d entries", n)
	}
	b.ReportAllocs()
	return c
}

// BenchmarkGet is a hit among 10,000 answers.
func BenchmarkGet(b *testing.B) {
	c := benchmarkCache(b)
	k := keyOf("5000")
	for b.Loop() {
		a, ok := c.Get(k)
		if !ok {
			b.Fatal("it is not kept")
		}
		a.Release()
	}
}

// BenchmarkPut replaces one of 10,000 answers, or makes room for a new one.
func BenchmarkPut(b *testing.B) {
	for _, classes := range []int{benchmarkEntries, 10 * benchmarkEntries} {
		b.Run(fmt.Sprintf("of %d", classes), func(b *testing.B) {
			c := benchmarkCache(b)
			keys := make([]string, classes)
			for i := range keys {
				keys[i] = fmt.Sprint(i)
			}
			a := sized(100)
			next := 0
			for b.Loop() {
				c.Put(keyOf(keys[next]), a, time.Hour)
				next = (next + 1) % classes
			}
		})
	}
}
