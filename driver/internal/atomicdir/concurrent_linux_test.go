package atomicdir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// However often and fast the revision is swapped while Complete looks, a
// complete directory is never taken for an incomplete one.
func TestComplete_SwapsConcurrentSafe(t *testing.T) {
	t.Parallel()
	const looks = 20000
	dir := newDir(t)
	swap := func(n int) error {
		revision := fmt.Sprintf("..%d", n)
		return errors.Join(
			os.Mkdir(filepath.Join(dir.path, revision), 0o755),
			os.WriteFile(filepath.Join(dir.path, revision, "a"), nil, 0o600),
			os.Symlink(revision, filepath.Join(dir.path, "..data_tmp")),
			os.Rename(filepath.Join(dir.path, "..data_tmp"), filepath.Join(dir.path, "..data")),
			os.RemoveAll(filepath.Join(dir.path, fmt.Sprintf("..%d", n-1))),
		)
	}
	if err := errors.Join(swap(0), os.Symlink("..data/a", filepath.Join(dir.path, "a"))); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var writer sync.WaitGroup
	swaps := 0
	writer.Go(func() {
		for !stop.Load() {
			swaps++
			if err := swap(swaps); err != nil {
				t.Error(err)
				return
			}
		}
	})
	finish := func() {
		stop.Store(true)
		writer.Wait()
	}
	defer finish()
	for range looks {
		dir.mustBeComplete(t, true)
	}
	finish()
	if swaps < looks/100 {
		t.Errorf("only %d swaps during %d looks", swaps, looks)
	}
}
