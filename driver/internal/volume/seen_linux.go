package volume

import (
	"sync"
	"time"

	"github.com/postern-dev/postern/driver/internal/mount"
)

// settled is how long ago a volume must have changed last to be remembered: much
// longer than a step of the clock that the kernel stamps changes with, so that
// the next change has another stamp.
const settled = time.Second

// seen remembers the volumes that were found complete, so that to see that one
// still is takes two system calls and not forty: kubelet asks for each about once
// a minute. Nothing depends on it: what is not remembered, or has changed since,
// is looked at. The zero value is ready.
//
// Invariants:
//  1. A volume is remembered by stamps that were taken of the very directories
//     in which it was then found complete, and before that.
//  2. A target is remembered until Unpublish, or until it is found changed.
type seen struct {
	mu       sync.Mutex
	byTarget map[string]sight
}

// sight is what all that makes a volume complete looks like: its top directory,
// with the links in it, and the revision that ..data names, with the names in it.
// The zero value is of what cannot be remembered.
type sight struct{ top, revision mount.Stamp }

// Where the directories are in a volume. The dots at the end have ..data followed.
const (
	topPath      = "."
	revisionPath = "..data/."
)

// lookAt returns what there is at a place now.
func (m *Manager) lookAt(at *mount.Place) sight {
	if m.cfg.ForceFallback {
		return sight{}
	}
	// The time first: what changes from now on is not settled.
	limit := time.Now().Add(-settled)
	top, ok := at.StampOf(topPath)
	if !ok || top.Changed().After(limit) {
		return sight{}
	}
	revision, ok := at.StampOf(revisionPath)
	if !ok || revision.Changed().After(limit) {
		return sight{}
	}
	return sight{top, revision}
}

// unchanged reports whether the volume at target is remembered and still as it
// was. If it has changed, it is forgotten.
func (s *seen) unchanged(target string) bool {
	s.mu.Lock()
	before, ok := s.byTarget[target]
	s.mu.Unlock()
	if !ok {
		return false
	}
	if top, ok := mount.StampOf(target); ok && top == before.top {
		if revision, ok := mount.StampOf(target + "/" + revisionPath); ok && revision == before.revision {
			return true
		}
	}
	s.forget(target)
	return false
}

func (s *seen) remember(target string, complete sight) {
	if complete == (sight{}) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byTarget == nil {
		s.byTarget = make(map[string]sight)
	}
	s.byTarget[target] = complete
}

func (s *seen) forget(target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byTarget, target)
}
