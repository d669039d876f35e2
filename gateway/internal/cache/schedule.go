package cache

import (
	"container/heap"
	"time"
)

// schedule is a heap of entries, the one whose time ends first at the top.
type schedule []*entry

func (s *schedule) add(e *entry) { heap.Push(s, e) }

func (s *schedule) remove(e *entry) { heap.Remove(s, e.place) }

func (s *schedule) move(e *entry, end time.Time) {
	e.end = end
	heap.Fix(s, e.place)
}

// Len implements [heap.Interface].
func (s *schedule) Len() int { return len(*s) }

// Less implements [heap.Interface].
func (s *schedule) Less(i, j int) bool { return (*s)[i].end.Before((*s)[j].end) }

// Swap implements [heap.Interface].
func (s *schedule) Swap(i, j int) {
	all := *s
	all[i], all[j] = all[j], all[i]
	all[i].place, all[j].place = i, j
}

// Push implements [heap.Interface].
func (s *schedule) Push(x any) {
	e := x.(*entry) // only add calls it
	e.place = len(*s)
	*s = append(*s, e)
}

// Pop implements [heap.Interface].
func (s *schedule) Pop() any {
	all := *s
	last := len(all) - 1
	e := all[last]
	all[last] = nil
	*s = all[:last]
	return e
}
