package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

const (
	revisions = 200
	pairs     = 8
)

// numbered is a revision whose files all hold its number, among them one that
// comes and goes.
func numbered(n int) []File {
	files := []File{volumetest.File("last", fmt.Sprint(n))}
	for i := range pairs {
		files = append(files, volumetest.File(fmt.Sprintf("%d", i), fmt.Sprint(n)), volumetest.File(fmt.Sprintf("d/%d", i), fmt.Sprint(n)))
	}
	if n%2 == 1 {
		files = append(files, volumetest.File("odd", fmt.Sprint(n)))
	}
	return files
}

// readWhole reads all files of the revision that ..data names now, and
// reports false if it was removed meanwhile.
func readWhole(target string) (bool, error) {
	dir, err := os.OpenRoot(filepath.Join(target, "..data"))
	if errors.Is(err, fs.ErrNotExist) {
		// The revision can go after ..data was followed, ..data itself not.
		_, err := os.Lstat(filepath.Join(target, "..data"))
		return false, err
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = dir.Close() }()
	want, err := dir.ReadFile("last")
	for i := 0; i < 2*pairs && err == nil; i++ {
		name := fmt.Sprintf("%d", i/2)
		if i%2 == 1 {
			name = "d/" + name
		}
		var got []byte
		if got, err = dir.ReadFile(name); err == nil && string(got) != string(want) {
			return false, fmt.Errorf("revision %s holds %s at %s", want, got, name)
		}
	}
	if errors.Is(err, fs.ErrNotExist) && removing(target, dir) {
		return false, nil
	}
	return err == nil, err
}

// removing reports whether a directory is no longer the volume's revision.
func removing(target string, dir *os.Root) bool {
	mine, err := dir.Stat(".")
	if err != nil {
		return true
	}
	current, err := os.Stat(filepath.Join(target, "..data"))
	return err != nil || !os.SameFile(mine, current)
}

// Readers that hold on to ..data see one revision and nothing else, and a name
// of every revision can be opened at any time.
func TestManager_UpdateReadersConcurrentSafe(t *testing.T) {
	t.Parallel()
	m, root := newManager(t, Config{})
	target := targetIn(root)
	mustPublish(t, m, Spec{Target: target, Files: numbered(0)})
	var stop atomic.Bool
	var whole, named atomic.Int64
	var readers sync.WaitGroup
	finish := func() {
		stop.Store(true)
		readers.Wait()
	}
	defer finish()
	for range 3 {
		readers.Go(func() {
			for !stop.Load() {
				ok, err := readWhole(target)
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					whole.Add(1)
				}
			}
		})
	}
	readers.Go(func() {
		for !stop.Load() {
			before, _ := os.Readlink(filepath.Join(target, "..data"))
			_, err := os.ReadFile(filepath.Join(target, "d", "0"))
			after, _ := os.Readlink(filepath.Join(target, "..data"))
			if before == "" || after == "" {
				t.Error("..data is missing")
				return
			}
			// The path can lead into a revision that is replaced meanwhile.
			if err != nil && before == after {
				t.Error(err)
				return
			}
			named.Add(1)
		}
	})
	readers.Go(func() {
		for !stop.Load() {
			if state, err := m.State(target); state != Complete || err != nil {
				t.Errorf("State: %v, %v", state, err)
				return
			}
		}
	})
	for n := range revisions {
		mustUpdate(t, m, Spec{Target: target, Files: numbered(n + 1)}, true)
		if t.Failed() {
			break
		}
	}
	finish()
	if whole.Load() == 0 || named.Load() == 0 {
		t.Errorf("readers saw %d whole revisions and %d files", whole.Load(), named.Load())
	}
}

// Calls for one target do not disturb each other, whatever their order.
func TestManager_SameTargetConcurrentSafe(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			var calls sync.WaitGroup
			for worker := range 6 {
				calls.Go(func() {
					for n := range 20 {
						spec := Spec{Target: target, Files: numbered(n)}
						var err error
						switch (worker + n) % 4 {
						case 0, 1:
							err = m.Publish(t.Context(), spec)
						case 2:
							if _, err = m.Update(t.Context(), spec); errors.Is(err, ErrNotMounted) {
								err = nil
							}
						case 3:
							err = m.Unpublish(t.Context(), target)
						}
						if err != nil {
							t.Errorf("worker %d, round %d: %v", worker, n, err)
						}
					}
				})
			}
			calls.Wait()
			mustPublish(t, m, Spec{Target: target, Files: numbered(1)})
			if mounts := volumetest.Mounts(t, m.cfg.Root); len(mounts) != 1 {
				t.Errorf("mounts: %v", mounts)
			}
			mustUnpublish(t, m, target)
		})
	}
}

// Many volumes at once, as at the start of a node.
func TestManager_ManyTargetsConcurrentSafe(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			var calls sync.WaitGroup
			for n := range 50 {
				calls.Go(func() {
					path := fmt.Sprintf("%s-%d", target, n)
					if err := m.Publish(t.Context(), Spec{Target: path, Files: numbered(n)}); err != nil {
						t.Error(err)
					}
					if state, err := m.State(path); state != Complete || err != nil {
						t.Errorf("State: %v, %v", state, err)
					}
					if err := m.Unpublish(t.Context(), path); err != nil {
						t.Error(err)
					}
				})
			}
			calls.Wait()
			mustHaveNoMounts(t, m)
		})
	}
}
