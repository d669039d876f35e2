package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/postern-dev/postern/internal/rpc"
)

// What a handler overwrites after its reply has reached the client whole.
func TestAfterReply(t *testing.T) {
	t.Parallel()
	var overwritten atomic.Int64
	r := run(t, func(ctx context.Context, in string) (string, error) {
		contents := bytes.Repeat([]byte(in), 10_000)
		if !rpc.AfterReply(ctx, func() {
			clear(contents)
			overwritten.Add(1)
		}) {
			t.Error("the call is not one of a server's")
		}
		// The response shares its memory with contents.
		return unsafe.String(unsafe.SliceData(contents), len(contents)), nil
	}, nil)
	const callers, calls = 8, 50
	var wait sync.WaitGroup
	for range callers {
		wait.Go(func() {
			for range calls {
				got, err := r.call(t.Context(), "secret")
				if err != nil || got != strings.Repeat("secret", 10_000) {
					t.Errorf("got %d bytes that begin with %.12q, %v", len(got), got, err)
					return
				}
			}
		})
	}
	wait.Wait()
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	r.done <- nil
	if got := overwritten.Load(); got != callers*calls {
		t.Errorf("%d replies were followed up, want %d", got, callers*calls)
	}
}

// A call that fails is over too, and functions are called in their order.
func TestAfterReply_Failure(t *testing.T) {
	t.Parallel()
	var order []int
	done := make(chan struct{})
	r := run(t, func(ctx context.Context, _ string) (string, error) {
		rpc.AfterReply(ctx, func() { order = append(order, 1) })
		rpc.AfterReply(ctx, func() {
			order = append(order, 2)
			close(done)
		})
		return "", errors.New("fails")
	}, nil)
	if _, err := r.call(t.Context(), ""); err == nil {
		t.Error("the call did not fail")
	}
	<-done
	if len(order) != 2 || order[0] != 1 {
		t.Errorf("called in the order %v", order)
	}
}

func TestAfterReply_Elsewhere(t *testing.T) {
	t.Parallel()
	if rpc.AfterReply(t.Context(), func() { t.Error("called") }) {
		t.Error("a call of nobody's is followed up")
	}
}
