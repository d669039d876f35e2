package cache_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/cache"
	"github.com/postern-dev/postern/gateway/internal/key"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const plenty = 1 << 20

func newCache(t testing.TB, maxBytes int) *cache.Cache {
	t.Helper()
	c, err := cache.New(cache.Config{MaxBytes: maxBytes})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func keyOf(class string) key.Key {
	return key.Key{Provider: "vault", Namespace: "default", ServiceAccount: "web", SecretProviderClass: class}
}

// sized is an answer of one file of n bytes, none of which is 0.
func sized(n int) *answer.Answer { return fetched(n, time.Now()) }

func fetched(n int, at time.Time) *answer.Answer {
	return answer.New(&providerv1.FetchResponse{
		Files:   []*secretv1.File{{Path: "password", Contents: bytes.Repeat([]byte{'x'}, n)}},
		Objects: []*secretv1.ObjectVersion{{Id: "password", Version: "1"}},
	}, at)
}

// costOf is what a cache counts for an answer.
func costOf(t testing.TB, a *answer.Answer) int {
	t.Helper()
	c := newCache(t, plenty<<8)
	defer c.Clear()
	c.Put(keyOf("a"), a, time.Hour)
	return int(c.Stats().Bytes)
}

// put keeps an answer that only the cache has a reference to then.
func put(c *cache.Cache, class string, a *answer.Answer, keepFor time.Duration) *answer.Answer {
	c.Put(keyOf(class), a, keepFor)
	a.Release()
	return a
}

func overwritten(a *answer.Answer) bool {
	contents := a.Response().GetFiles()[0].GetContents()
	return bytes.Equal(contents, make([]byte, len(contents)))
}

// keeps fails the test unless these are the classes for which an answer is kept.
// It looks at them in this order, so the last one is that used last.
func keeps(t *testing.T, c *cache.Cache, classes ...string) {
	t.Helper()
	for _, class := range classes {
		a, ok := c.Get(keyOf(class))
		if !ok {
			t.Errorf("no answer is kept for %s", class)
			continue
		}
		if overwritten(a) {
			t.Errorf("the answer for %s is overwritten", class)
		}
		a.Release()
	}
	if n := c.Stats().Entries; n != len(classes) {
		t.Errorf("%d answers are kept, want those of %v", n, classes)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	for _, maxBytes := range []int{0, -1} {
		const want = "cache: the memory for kept answers must be more than 0 bytes"
		if _, err := cache.New(cache.Config{MaxBytes: maxBytes}); err == nil || err.Error() != want {
			t.Errorf("with %d bytes: %v, want %q", maxBytes, err, want)
		}
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	c := newCache(t, plenty)
	if _, ok := c.Get(keyOf("a")); ok {
		t.Error("an empty cache has an answer")
	}
	a := sized(10)
	c.Put(keyOf("a"), a, time.Minute)
	got, ok := c.Get(keyOf("a"))
	if !ok || got != a {
		t.Fatal("another answer came back")
	}
	other := keyOf("a")
	other.ServiceAccount = "api"
	if _, ok := c.Get(other); ok {
		t.Error("another service account's key has an answer")
	}
	a.Release()
	c.Drop(keyOf("a"))
	if overwritten(got) {
		t.Error("the answer was overwritten while a caller holds it")
	}
	got.Release()
	if !overwritten(got) {
		t.Error("there is a reference too many")
	}
}

func TestPut_LeastRecentlyUsedGoes(t *testing.T) {
	t.Parallel()
	const size = 100
	each := costOf(t, sized(size))
	c := newCache(t, 6*each)
	first := map[string]*answer.Answer{}
	for _, class := range []string{"a", "b", "c", "d", "e", "f"} {
		first[class] = put(c, class, sized(size), time.Minute)
	}
	keeps(t, c, "b", "a", "d", "c", "f", "e")
	put(c, "g", sized(size), time.Minute)
	keeps(t, c, "d", "a", "c", "f", "e", "g")
	put(c, "d", sized(size), time.Minute) // is a use too
	put(c, "h", sized(size), time.Minute)
	keeps(t, c, "c", "d", "f", "e", "g", "h")
	// One more byte, and two have to go.
	put(c, "i", sized(size+1), time.Minute)
	keeps(t, c, "f", "e", "g", "h", "i")
	for class, want := range map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": false, "f": false} {
		if overwritten(first[class]) != want {
			t.Errorf("the first answer of %s is overwritten: %v, want %v", class, !want, want)
		}
	}
	want := cache.Stats{Entries: 5, Bytes: int64(5*each + 1), MaxBytes: int64(6 * each), Evictions: cache.Evictions{Size: 4}}
	if got := c.Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestPut_EvictedWhileHeld(t *testing.T) {
	t.Parallel()
	const size = 100
	c := newCache(t, 4*costOf(t, sized(size)))
	held := put(c, "a", sized(size), time.Minute)
	if _, ok := c.Get(keyOf("a")); !ok {
		t.Fatal("the answer is not kept")
	}
	for i := range 4 {
		put(c, fmt.Sprint(i), sized(size), time.Minute)
	}
	keeps(t, c, "0", "1", "2", "3")
	if overwritten(held) {
		t.Error("an evicted answer was overwritten while a caller holds it")
	}
	held.Release()
	if !overwritten(held) {
		t.Error("an evicted answer was not overwritten when its last holder was done")
	}
}

func TestPut_TooLarge(t *testing.T) {
	t.Parallel()
	const size = 5000
	each := costOf(t, sized(size))
	c := newCache(t, 4*each)
	put(c, "other", sized(10), time.Minute)
	put(c, "a", sized(size), time.Minute)
	keeps(t, c, "other", "a")
	old, _ := c.Get(keyOf("a"))
	large := put(c, "a", sized(size+1), time.Minute)
	keeps(t, c, "other")
	old.Release()
	if !overwritten(large) || !overwritten(old) {
		t.Error("there is a reference left of an answer that is not kept")
	}
	if s := c.Stats(); s.TooLarge != 1 || s.Evictions != (cache.Evictions{}) {
		t.Errorf("stats %+v, want 1 too large and no eviction", s)
	}
}

func TestPut_Replaces(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := newCache(t, plenty)
	old := put(c, "a", fetched(10, now), time.Minute)
	renewed := put(c, "a", fetched(20, now), time.Minute)
	if !overwritten(old) || overwritten(renewed) {
		t.Error("the second answer did not take the place of the first")
	}
	if got, want := c.Stats().Bytes, int64(costOf(t, fetched(20, now))); got != want {
		t.Errorf("%d bytes are counted, want %d", got, want)
	}
	// An answer that was longer on its way.
	late := put(c, "a", fetched(30, now.Add(-time.Second)), time.Minute)
	if !overwritten(late) || overwritten(renewed) {
		t.Error("an older answer took the place of a newer one")
	}
	// One of which nothing may be kept says all the same that the old one is of
	// no use any more.
	put(c, "a", fetched(40, now), 0)
	keeps(t, c)
	if !overwritten(renewed) {
		t.Error("the answer that was replaced is still there")
	}
	if e := c.Stats().Evictions; e != (cache.Evictions{}) {
		t.Errorf("evictions %+v, want none", e)
	}
}

// An answer may be put twice, such as one that two callers bring.
func TestPut_Again(t *testing.T) {
	t.Parallel()
	c, a := newCache(t, plenty), sized(10)
	c.Put(keyOf("a"), a, time.Minute)
	put(c, "a", a, time.Minute)
	keeps(t, c, "a")
	c.Drop(keyOf("a"))
	if !overwritten(a) {
		t.Error("there is a reference too many")
	}
}

// A confirmed answer lives on the contents of the one that it replaces.
func TestPut_Confirmed(t *testing.T) {
	t.Parallel()
	c := newCache(t, plenty)
	old := put(c, "a", sized(10), time.Minute)
	held, _ := c.Get(keyOf("a"))
	renewed := put(c, "a", held.Confirmed(&providerv1.FetchResponse{NotModified: true}, time.Now()), time.Minute)
	held.Release()
	keeps(t, c, "a")
	if got, ok := c.Get(keyOf("a")); !ok || got != renewed {
		t.Error("the answer that was confirmed is kept, want the one that confirms it")
	} else {
		got.Release()
	}
	c.Drop(keyOf("a"))
	if !overwritten(old) {
		t.Error("there is a reference too many")
	}
}

func TestDrop(t *testing.T) {
	t.Parallel()
	c := newCache(t, plenty)
	a := put(c, "a", sized(10), time.Minute)
	put(c, "b", sized(10), time.Minute)
	c.Drop(keyOf("a"))
	c.Drop(keyOf("a"))
	c.Drop(keyOf("x"))
	keeps(t, c, "b")
	if !overwritten(a) {
		t.Error("the dropped answer is still there")
	}
	if e := c.Stats().Evictions; e != (cache.Evictions{Dropped: 1}) {
		t.Errorf("evictions %+v, want one that was dropped", e)
	}
}

func TestClear(t *testing.T) {
	t.Parallel()
	c := newCache(t, plenty)
	var all []*answer.Answer
	for i := range 10 {
		all = append(all, put(c, fmt.Sprint(i), sized(10), time.Minute))
	}
	c.Clear()
	keeps(t, c)
	for _, a := range all {
		if !overwritten(a) {
			t.Error("an answer is still there")
		}
	}
	if s := c.Stats(); s != (cache.Stats{MaxBytes: plenty}) {
		t.Errorf("stats %+v, want none", s)
	}
	put(c, "a", sized(10), time.Minute)
	keeps(t, c, "a")
}
