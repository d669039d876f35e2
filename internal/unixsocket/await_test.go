package unixsocket_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/internal/unixsocket"
)

// TestAwait: the directory comes later, and what waiting cannot mend is an
// error at once.
func TestAwait(t *testing.T) {
	t.Parallel()
	base := openDir(t)
	path := filepath.Join(base, "d", "x.sock")
	told := make(chan error, 16)
	type result struct {
		l   net.Listener
		err error
	}
	results := make(chan result, 1)
	go func() {
		l, err := unixsocket.Await(t.Context(), unixsocket.ListenConfig{Path: path}, func(why error) { told <- why })
		results <- result{l, err}
	}()
	if why := <-told; !errors.Is(why, os.ErrNotExist) {
		t.Errorf("it waits because of %v", why)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer func() { _ = r.l.Close() }()
	if len(told) != 0 {
		t.Errorf("told again: %v", <-told)
	}
	_, err := unixsocket.Await(t.Context(), unixsocket.ListenConfig{Path: path}, func(why error) { t.Errorf("it waits: %v", why) })
	if !errors.Is(err, unixsocket.ErrInUse) {
		t.Errorf("error = %v, want ErrInUse", err)
	}
}

// TestAwait_TellsOnce: however long it takes, what it waits for is told once.
func TestAwait_TellsOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "d", "x.sock")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		told := 0
		_, err := unixsocket.Await(ctx, unixsocket.ListenConfig{Path: path}, func(error) { told++ })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("error = %v, want DeadlineExceeded and what was missing", err)
		}
		if told != 1 {
			t.Errorf("told %d times", told)
		}
	})
}
