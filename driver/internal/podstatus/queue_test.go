package podstatus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestQueue_IsBounded(t *testing.T) {
	t.Parallel()
	q := newQueue(slog.New(slog.DiscardHandler), 0)
	nothing := func(context.Context) error { return nil }
	for i := range maxQueued {
		if !q.put(fmt.Sprint(i), nothing) {
			t.Fatalf("put %d refused", i)
		}
	}
	if q.put("one more", nothing) {
		t.Error("put beyond the bound accepted")
	}
	if !q.put("7", nothing) {
		t.Error("put of a queued key refused")
	}
}

func TestQueue_OneTaskPerKeyConcurrentSafe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(slog.New(slog.DiscardHandler), 0)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { q.run(ctx); close(ended) }()
		var running, ran atomic.Int32
		for i := range 100 {
			q.put("k", func(context.Context) error {
				if running.Add(1) != 1 {
					t.Error("two tasks of one key at once")
				}
				<-time.After(time.Millisecond)
				running.Add(-1)
				ran.Add(1)
				if i%2 == 0 {
					return errors.New("again")
				}
				return nil
			})
			<-time.After(100 * time.Microsecond)
		}
		<-time.After(time.Hour)
		if ran.Load() == 0 || q.len() != 0 {
			t.Errorf("%d tasks ran, %d are left", ran.Load(), q.len())
		}
		cancel()
		<-ended
		if q.put("late", func(context.Context) error { return nil }) {
			t.Error("put after the end accepted")
		}
	})
}

// That one state cannot be written says nothing of the next.
func TestQueue_NextAfterADrop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(slog.New(slog.DiscardHandler), 0)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { q.run(ctx); close(ended) }()
		ran := 0
		q.put("k", func(context.Context) error {
			<-time.After(time.Second)
			return errDrop
		})
		synctest.Wait()
		q.put("k", func(context.Context) error { ran++; return nil })
		<-time.After(time.Hour)
		left := q.len()
		cancel()
		<-ended
		if ran != 1 || left != 0 {
			t.Errorf("ran %d times, %d left; want once and none", ran, left)
		}
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		attempts int
		most     time.Duration
	}{{1, 500 * time.Millisecond}, {2, time.Second}, {7, 32 * time.Second}, {8, time.Minute}, {19, time.Minute}, {20, 5 * time.Minute}, {1000, 5 * time.Minute}} {
		for range 100 {
			if got := backoff(test.attempts); got < test.most/2 || got > test.most {
				t.Errorf("after %d attempts: %v, want between %v and %v", test.attempts, got, test.most/2, test.most)
			}
		}
	}
}

func TestStatusWriter_RemembersBounded(t *testing.T) {
	t.Parallel()
	w := newStatusWriter(nil, "n1")
	for i := range maxKnown + 10 {
		w.keep(fmt.Sprint(i), written{})
	}
	if n := len(w.known); n != maxKnown {
		t.Errorf("%d remembered, want %d", n, maxKnown)
	}
}

func TestEventWriter_IsBounded(t *testing.T) {
	t.Parallel()
	w := newEventWriter(nil, "n1")
	now := time.Now()
	event := func(uid string) Event { return Event{Pod: Pod{UID: uid}, Reason: ReasonMountFailed} }
	for i := range maxSeries {
		if key, result := w.note(event(fmt.Sprint(i)), now); result != noteDue {
			t.Fatalf("event %d (%s): %v", i, key, result)
		}
	}
	if _, result := w.note(event("new"), now); result != noteFull || len(w.series) != maxSeries {
		t.Errorf("event beyond the bound: %v, %d kept", result, len(w.series))
	}
	if _, result := w.note(event("7"), now); result != noteDue {
		t.Errorf("event that is kept already: %v", result)
	}
	if _, result := w.note(event("new"), now.Add(lateAfter)); result != noteDue || len(w.series) != 1 {
		t.Errorf("once they are old: %v, %d kept; want it due and the others gone", result, len(w.series))
	}
}

// What is new waits for a moment, and of what comes meanwhile the last is
// written, when the first is due.
func TestQueue_Settles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(slog.New(slog.DiscardHandler), time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			q.run(ctx)
		}()
		started := time.Now()
		var written []string
		write := func(state string) task {
			return func(context.Context) error {
				written = append(written, fmt.Sprintf("%s after %v", state, time.Since(started)))
				return nil
			}
		}
		q.put("volume", write("first"))
		<-time.After(900 * time.Millisecond)
		q.put("volume", write("second"))
		<-time.After(time.Second)
		cancel()
		<-done
		if want := []string{"second after 1s"}; !slices.Equal(written, want) {
			t.Errorf("written: %q, want %q", written, want)
		}
	})
}
