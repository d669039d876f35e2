package keyvault

import (
	"sync"

	"golang.org/x/sync/semaphore"
)

// limits has that of each vault which somebody reads from.
//
// Its invariants:
//  1. All who read from a vault at the same time have the same limit.
//  2. A limit is forgotten when nobody reads from its vault any more.
type limits struct {
	concurrency int

	mu    sync.Mutex
	byURL map[string]*limit
}

// limit is how many requests one vault gets at a time. Turns come in the order in
// which they were asked for.
type limit struct {
	url   string
	turns *semaphore.Weighted
	// users is the limits' own.
	users int
}

func newLimits(concurrency int) *limits {
	return &limits{concurrency: concurrency, byURL: make(map[string]*limit)}
}

// enter returns a vault's limit, to be left again.
func (l *limits) enter(url string) *limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, ok := l.byURL[url]
	if !ok {
		one = &limit{url: url, turns: semaphore.NewWeighted(int64(l.concurrency))}
		l.byURL[url] = one
	}
	one.users++
	return one
}

func (l *limits) leave(one *limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(l.byURL, one.url)
	}
}
