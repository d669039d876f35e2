package keylock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/postern-dev/postern/driver/internal/keylock"
)

func TestLocks_OneHolderPerKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var locks keylock.Locks
		unlock, err := locks.Lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		entered := false
		go func() {
			unlockSecond, err := locks.Lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			entered = true
			unlockSecond()
		}()
		synctest.Wait()
		if entered {
			t.Fatal("a second caller holds the key")
		}
		unlock()
		synctest.Wait()
		if !entered {
			t.Fatal("the waiter did not get the key")
		}
	})
}

func TestLocks_KeysAreIndependent(t *testing.T) {
	t.Parallel()
	var locks keylock.Locks
	for _, key := range []string{"a", "b"} {
		unlock, err := locks.Lock(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
	}
}

func TestLocks_WaiterLeavesWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var locks keylock.Locks
		unlock, err := locks.Lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		gone := errors.New("the pod is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		result := make(chan error, 1)
		go func() {
			_, err := locks.Lock(ctx, "a")
			result <- err
		}()
		synctest.Wait()
		cancel(gone)
		if err := <-result; !errors.Is(err, gone) {
			t.Fatalf("Lock: %v, want %v", err, gone)
		}
		unlock()
		again, err := locks.Lock(t.Context(), "a")
		if err != nil {
			t.Fatalf("the key is not free: %v", err)
		}
		again()
	})
}
