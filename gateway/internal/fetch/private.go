package fetch

import (
	"sync"

	"github.com/postern-dev/postern/gateway/internal/key"
)

// maxPrivate bounds what is remembered, at some 200 bytes each: far more than
// the classes that a node's pods use.
const maxPrivate = 4096

// private remembers the keys whose answers turned out to be for one volume
// only. Fetches of such a key do not wait for one another.
//
// Invariants:
//  1. It holds at most maxPrivate keys. What is forgotten costs the followers of
//     one fetch a wait.
//  2. It holds only shared keys.
type private struct {
	mu   sync.Mutex
	keys map[key.Key]struct{}
}

func (p *private) has(k key.Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.keys[k]
	return ok
}

// learn notes whether the last answer of a key was for one volume only.
func (p *private) learn(k key.Key, isPrivate bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k = k.Shared()
	if !isPrivate {
		delete(p.keys, k)
		return
	}
	if p.keys == nil {
		p.keys = map[key.Key]struct{}{}
	}
	if _, ok := p.keys[k]; !ok && len(p.keys) >= maxPrivate {
		for other := range p.keys { // any
			delete(p.keys, other)
			break
		}
	}
	p.keys[k] = struct{}{}
}
