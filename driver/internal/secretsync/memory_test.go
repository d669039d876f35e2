package secretsync

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/internal/redact"
)

// size counts what is remembered, of each kind.
func (m *memory) size() [4]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return [4]int{len(m.volumes), len(m.classes), len(m.namespaces), len(m.secrets)}
}

func TestMemory_Forget(t *testing.T) {
	t.Parallel()
	m := newMemory()
	app, billing := classKey{"shop", "app"}, classKey{"shop", "billing"}
	for i := range 3 {
		m.enter(fmt.Sprint("app-", i), app, revision{"u", 1})
	}
	m.enter("billing-0", billing, revision{"v", 1})
	m.list("shop", map[string][]string{"app": {"old"}})
	m.see(secretKey{"shop", "db"}, sighting{class: app})
	m.see(secretKey{"shop", "invoices"}, sighting{class: billing})
	m.see(secretKey{"shop", "nobody's"}, sighting{class: classKey{"shop", "gone"}})
	if diff := cmp.Diff([4]int{4, 2, 1, 2}, m.size()); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	for i := range 3 {
		m.forget(fmt.Sprint("app-", i))
		m.forget(fmt.Sprint("app-", i))
	}
	if diff := cmp.Diff([4]int{1, 1, 1, 1}, m.size()); diff != "" {
		t.Errorf("without app (-want +got):\n%s", diff)
	}
	m.forget("billing-0")
	if diff := cmp.Diff([4]int{}, m.size()); diff != "" {
		t.Errorf("without any (-want +got):\n%s", diff)
	}
}

// A volume whose class is another one is a new volume.
func TestMemory_ClassOfVolumeChanges(t *testing.T) {
	t.Parallel()
	m := newMemory()
	if m.enter("v", classKey{"shop", "app"}, revision{"u", 1}) || !m.enter("v", classKey{"shop", "app"}, revision{"u", 1}) {
		t.Error("the second time is the same, the first is not")
	}
	if m.enter("v", classKey{"shop", "app"}, revision{"u", 2}) {
		t.Error("another state of the class is not the same")
	}
	m.setShare("v", "db", share{synced: true})
	if m.enter("v", classKey{"shop", "billing"}, revision{"u", 2}) {
		t.Error("another class is not the same")
	}
	if _, ok := m.share("v", "db"); ok || m.size() != [4]int{1, 1, 1, 0} {
		t.Errorf("kept of the class before: %v", m.size())
	}
}

// A Sync that is behind, of an earlier state of the class, removes nothing and
// does not count for what the class asks for.
func TestMemory_Declare(t *testing.T) {
	t.Parallel()
	m := newMemory()
	app := classKey{"shop", "app"}
	m.enter("v", app, revision{"u", 2})
	if gone := m.declare(app, revision{"u", 2}, map[string]bool{"new": true}); gone != nil {
		t.Errorf("gone at first: %v", gone)
	}
	if gone := m.declare(app, revision{"u", 1}, map[string]bool{"old": true}); gone != nil {
		t.Errorf("gone for who is behind: %v", gone)
	}
	if diff := cmp.Diff([]string{"new"}, m.declare(app, revision{"u", 3}, map[string]bool{"newer": true})); diff != "" {
		t.Errorf("gone (-want +got):\n%s", diff)
	}
}

func TestMemory_Bounded(t *testing.T) {
	t.Parallel()
	m := newMemory()
	for i := range maxVolumes + 100 {
		m.enter(fmt.Sprint(i), classKey{fmt.Sprint("n", i), "app"}, revision{})
	}
	if diff := cmp.Diff([4]int{maxVolumes, maxVolumes, maxVolumes, 0}, m.size()); diff != "" {
		t.Errorf("size (-want +got):\n%s", diff)
	}
}

// TestHasher_Sum: each part counts, and what says only when does not.
func TestHasher_Sum(t *testing.T) {
	t.Parallel()
	h := newHasher()
	sumOf := func(change func(*content)) digest {
		c := &content{
			kind: "Opaque", labels: map[string]string{"a": "b"}, annotations: map[string]string{"c": "d", annotationFetchedAt: "x", annotationRevision: "y"},
			data: map[string]redact.Bytes{"k": redact.NewBytes([]byte("v")), "empty": {}},
		}
		change(c)
		return h.sum(c)
	}
	same := sumOf(func(*content) {})
	seen := map[digest]string{same: "nothing"}
	for name, change := range map[string]func(*content){
		"kind":                  func(c *content) { c.kind = "other" },
		"label":                 func(c *content) { c.labels["a"] = "c" },
		"no label":              func(c *content) { delete(c.labels, "a") },
		"annotation":            func(c *content) { c.annotations["c"] = "e" },
		"label to annotation":   func(c *content) { c.annotations["a"] = "b"; delete(c.labels, "a") },
		"value":                 func(c *content) { c.data["k"] = redact.NewBytes([]byte("w")) },
		"no empty key":          func(c *content) { delete(c.data, "empty") },
		"boundary key to value": func(c *content) { delete(c.data, "k"); c.data["kv"] = redact.Bytes{} },
	} {
		sum := sumOf(change)
		if other, taken := seen[sum]; taken {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[sum] = name
	}
	if sumOf(func(c *content) {
		c.annotations[annotationFetchedAt], c.annotations[annotationRevision] = "later", "next"
	}) != same {
		t.Error("when it was fetched, or the state of the class, counts")
	}
	if other := newHasher(); other.sum(&content{}) == h.sum(&content{}) {
		t.Error("two processes have one key")
	}
}

func TestListObjects(t *testing.T) {
	t.Parallel()
	if got := listObjects([]string{"b", "a", "b"}); got != "a,b" {
		t.Errorf("got %q", got)
	}
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("object-%03d", i))
	}
	got := listObjects(many)
	if len(got) > maxObjectsText+20 || !strings.HasPrefix(got, "object-000,object-001,") || !strings.HasSuffix(got, " and 907 more") {
		t.Errorf("got %d characters: %s", len(got), got)
	}
	if got := listObjects([]string{strings.Repeat("x", 2*maxObjectsText)}); got != "and 1 more" {
		t.Errorf("got %q", got)
	}
}

func TestRevision(t *testing.T) {
	t.Parallel()
	r := revision{"u", 7}
	if got := parseRevision(r.String()); got != r {
		t.Errorf("%v parsed is %v", r, got)
	}
	for _, text := range []string{"", "u", "u/", "u/x"} {
		if got := parseRevision(text); got != (revision{}) {
			t.Errorf("%q is %v", text, got)
		}
	}
	if !(revision{"u", 6}).before(r) || r.before(r) || (revision{"v", 6}).before(r) {
		t.Error("only an earlier state of the same class is before")
	}
	at := time.Now().Round(0)
	if got := parseTime(formatTime(at)); !got.Equal(at) {
		t.Errorf("%v written and read is %v", at, got)
	}
}
