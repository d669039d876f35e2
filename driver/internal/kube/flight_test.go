package kube

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

func TestFlights_OneWaiterLeavesAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var group flights[int]
		release := make(chan struct{})
		call := func(ctx context.Context) (int, error) {
			select {
			case <-release:
				return 42, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		leaving, leave := context.WithCancel(t.Context())
		var first, second error
		var value int
		var waiters sync.WaitGroup
		waiters.Go(func() { _, first = group.do(leaving, "k", call) })
		synctest.Wait()
		waiters.Go(func() { value, second = group.do(t.Context(), "k", call) })
		synctest.Wait()
		leave()
		synctest.Wait()
		if !errors.Is(first, context.Canceled) {
			t.Errorf("who left: got %v, want canceled", first)
		}
		close(release)
		waiters.Wait()
		if second != nil || value != 42 {
			t.Errorf("who stayed: got %d, %v, want 42", value, second)
		}
	})
}

func TestFlights_LastWaiterCancelsAndNobodyJoinsThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var group flights[int]
		leaving, leave := context.WithCancel(t.Context())
		lingering, linger := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := group.do(leaving, "k", func(ctx context.Context) (int, error) {
				<-ctx.Done()
				<-lingering // a call that takes its time to end
				return 0, ctx.Err()
			})
			linger <- err
		}()
		synctest.Wait()
		leave()
		if err := <-linger; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want canceled", err)
		}
		value, err := group.do(t.Context(), "k", func(context.Context) (int, error) { return 7, nil })
		if err != nil || value != 7 {
			t.Errorf("after the cancelled one: got %d, %v, want 7", value, err)
		}
		close(lingering)
	})
}

func TestFlights_ConcurrentSafe(t *testing.T) {
	t.Parallel()
	var group flights[int]
	var callers sync.WaitGroup
	for i := range 200 {
		callers.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%3 == 0 {
				cancel()
			}
			value, err := group.do(ctx, "k", func(context.Context) (int, error) {
				return 1, nil
			})
			if err == nil && value != 1 {
				t.Errorf("got %d, want 1", value)
			}
		})
	}
	callers.Wait()
	group.mu.Lock()
	defer group.mu.Unlock()
	if len(group.byKey) != 0 {
		t.Errorf("%d calls are left", len(group.byKey))
	}
}
