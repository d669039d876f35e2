// Package cache keeps answers in memory: as many as fit into a bound, and each no
// longer than it is of use. What it drops is overwritten, as soon as nobody else
// holds it.
package cache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/key"
)

const (
	// entryOverhead is what a kept answer takes beside its contents and
	// messages: its key, of which the texts alone may be some hundred bytes, its
	// places in map and schedule, and the response. Measured, and rounded up.
	entryOverhead = 1 << 10
	// messageOverhead is what each file, object and lease of an answer takes
	// beside its contents: without it, many small ones would take ten times
	// what they are counted as. Measured.
	messageOverhead = 128
	// largestShare is the part of the bound that one answer may take, so that
	// one that is large does not cost all others their places.
	largestShare = 4
)

// Config says how much is kept.
type Config struct {
	// MaxBytes bounds the memory that kept answers take. Required. An answer
	// that takes more than a quarter of it is not kept.
	MaxBytes int
}

// Evictions counts answers that were dropped, by the reason.
type Evictions struct {
	// Size counts those that made room for another one.
	Size uint64
	// Age counts those whose time was over.
	Age uint64
	// Dropped counts those that Drop was called for.
	Dropped uint64
}

// Stats is what a cache holds and held.
type Stats struct {
	Entries  int
	Bytes    int64
	MaxBytes int64
	// Evictions are those since the start. An answer that a newer one replaces
	// is not counted.
	Evictions Evictions
	// TooLarge counts answers that were not kept because of their size.
	TooLarge uint64
}

// Cache keeps answers by key. It is safe for concurrent use.
//
// Invariants:
//  1. mu guards all below it, and is never held over the release of an answer.
//  2. byKey, the ring of recent and due hold the same entries, and bytes is the
//     sum of what they take. It is never more than the bound.
//  3. The cache holds one reference to each answer that it keeps, and none to
//     any other. Whoever takes an entry out releases that.
//  4. An answer is served only before its time is over, whether or not Run has
//     come to drop it. A time that is over does not begin again.
//  5. An answer never takes the place of one that was fetched later. Otherwise a
//     new answer ends the old one's time, even if it is not kept itself.
//  6. recent is in order of use, the entry used last first; due has the entry
//     whose time ends first at its top.
//  7. After Run nothing is kept.
type Cache struct {
	maxBytes int
	// sooner tells Run that an entry is due before all others.
	sooner chan struct{}

	mu     sync.Mutex
	byKey  map[key.Key]*entry
	recent entry // the ring's fixed point
	due    schedule
	bytes  int
	ended  bool
	stats  Stats
}

// entry is a kept answer.
type entry struct {
	key    key.Key
	answer *answer.Answer
	bytes  int
	// end is when its time is over, and place where it is in the schedule.
	end   time.Time
	place int
	// newer and older are its neighbours in the ring. What was taken out is a
	// list by older.
	newer, older *entry
}

// New returns an empty cache.
func New(cfg Config) (*Cache, error) {
	if cfg.MaxBytes <= 0 {
		return nil, errors.New("cache: the memory for kept answers must be more than 0 bytes")
	}
	c := &Cache{
		maxBytes: cfg.MaxBytes,
		sooner:   make(chan struct{}, 1),
		byKey:    map[key.Key]*entry{},
	}
	c.recent.newer, c.recent.older = &c.recent, &c.recent
	return c, nil
}

// Get returns the answer that is kept for a key, with a reference that is the
// caller's. Whether it is fresh enough is the caller's to judge.
func (c *Cache) Get(k key.Key) (*answer.Answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[k]
	if !ok || !time.Now().Before(e.end) {
		return nil, false // Run drops what is due
	}
	c.unlink(e)
	c.link(e)
	return e.answer.Retain(), true
}

// Put keeps an answer until it is keepFor old, in place of the one that was kept
// for the key before, and drops what was not used for longest where there is no
// room. The caller's reference stays the caller's.
func (c *Cache) Put(k key.Key, a *answer.Answer, keepFor time.Duration) {
	e := &entry{key: k, answer: a, bytes: cost(a), end: a.FetchedAt().Add(keepFor)}
	c.mu.Lock()
	out, next := c.putLocked(e, time.Now())
	c.mu.Unlock()
	release(out)
	if next {
		c.wake()
	}
}

// Extend keeps what is kept for a key until it is at least keepFor old.
func (c *Cache) Extend(k key.Key, keepFor time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[k]
	if !ok || !time.Now().Before(e.end) {
		return
	}
	if end := e.answer.FetchedAt().Add(keepFor); end.After(e.end) {
		c.due.move(e, end)
	}
}

// Shorten keeps what is kept for a key until it is keepFor old, and no longer.
func (c *Cache) Shorten(k key.Key, keepFor time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[k]
	if !ok {
		return
	}
	if end := e.answer.FetchedAt().Add(keepFor); end.Before(e.end) {
		c.due.move(e, end)
		c.wake()
	}
}

// Drop forgets what is kept for a key.
func (c *Cache) Drop(k key.Key) {
	c.mu.Lock()
	e, ok := c.byKey[k]
	if ok {
		c.takeLocked(e)
		c.stats.Evictions.Dropped++
	}
	c.mu.Unlock()
	release(e)
}

// Clear forgets all.
func (c *Cache) Clear() {
	c.mu.Lock()
	out := c.clearLocked()
	c.mu.Unlock()
	release(out)
}

// Run drops answers as their time ends, until ctx does. Then it clears the cache,
// and nothing is kept any more.
func (c *Cache) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.sooner:
		case <-ctx.Done():
			c.end()
			return nil
		}
		timer.Stop()
		if wait, ok := c.expire(time.Now()); ok {
			timer.Reset(wait)
		}
	}
}

// Stats returns what the cache holds, and held.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Entries, s.Bytes, s.MaxBytes = len(c.byKey), int64(c.bytes), int64(c.maxBytes)
	return s
}

// putLocked takes e in. It returns what it took out, and whether e is due before
// all others.
func (c *Cache) putLocked(e *entry, now time.Time) (out *entry, next bool) {
	if c.ended {
		return nil, false
	}
	if old, ok := c.byKey[e.key]; ok {
		if e.answer.FetchedAt().Before(old.answer.FetchedAt()) {
			return nil, false
		}
		c.takeLocked(old)
		out = old
	}
	if e.bytes > c.maxBytes/largestShare {
		c.stats.TooLarge++
		return out, false
	}
	if !now.Before(e.end) {
		return out, false
	}
	for c.bytes > c.maxBytes-e.bytes {
		oldest := c.recent.newer
		c.takeLocked(oldest)
		c.stats.Evictions.Size++
		oldest.older, out = out, oldest
	}
	e.answer.Retain()
	c.byKey[e.key] = e
	c.bytes += e.bytes
	c.link(e)
	c.due.add(e)
	return out, c.due[0] == e
}

// expire drops what is due, and returns how long it is until the next one is.
func (c *Cache) expire(now time.Time) (wait time.Duration, ok bool) {
	var out *entry
	c.mu.Lock()
	for len(c.due) > 0 && !now.Before(c.due[0].end) {
		e := c.due[0]
		c.takeLocked(e)
		c.stats.Evictions.Age++
		e.older, out = out, e
	}
	if ok = len(c.due) > 0; ok {
		wait = c.due[0].end.Sub(now)
	}
	c.mu.Unlock()
	release(out)
	return wait, ok
}

func (c *Cache) end() {
	c.mu.Lock()
	c.ended = true
	out := c.clearLocked()
	c.mu.Unlock()
	release(out)
}

func (c *Cache) clearLocked() (out *entry) {
	for _, e := range c.byKey {
		c.takeLocked(e)
		e.older, out = out, e
	}
	return out
}

// takeLocked takes an entry out, with its reference.
func (c *Cache) takeLocked(e *entry) {
	delete(c.byKey, e.key)
	c.bytes -= e.bytes
	c.due.remove(e)
	c.unlink(e)
}

func (c *Cache) link(e *entry) {
	e.newer, e.older = &c.recent, c.recent.older
	e.newer.older, e.older.newer = e, e
}

func (*Cache) unlink(e *entry) {
	e.newer.older, e.older.newer = e.older, e.newer
	e.newer, e.older = nil, nil
}

// wake tells Run to look again.
func (c *Cache) wake() {
	select {
	case c.sooner <- struct{}{}:
	default: // it has been told
	}
}

// release gives the references of entries back that were taken out.
func release(out *entry) {
	for ; out != nil; out = out.older {
		out.answer.Release()
	}
}

// cost is what an answer takes in memory.
func cost(a *answer.Answer) int {
	r := a.Response()
	messages := len(r.GetFiles()) + len(r.GetObjects()) + len(r.GetLeases())
	return a.Size() + messages*messageOverhead + entryOverhead
}
