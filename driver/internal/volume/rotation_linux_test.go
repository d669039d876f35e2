package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

const rotations = 1000

// rotated is a volume after n rotations. Each differs from the one before in one
// thing: other contents, another mode, another group, a file more, a file less.
// The files of one rotation agree in the first three.
func rotated(target string, n int) Spec {
	step := func(at int) int { return (n + 5 - at) / 5 } // grows by one at each n of which n%5 is at
	mode := []fs.FileMode{0o440, 0o444}[step(1)%2]
	gid := int64(100 + step(2)%2)
	spec := Spec{Target: target, GID: &gid}
	paths := []string{"left", "m/1", "m/2", "z/right"}
	if n%5 == 3 {
		paths = append(paths, "extra")
	}
	for _, path := range paths {
		spec.Files = append(spec.Files, File{Path: path, Mode: mode, Contents: volumetest.Content(fmt.Sprint(step(0)))})
	}
	return spec
}

// aspect is what the files of one rotation agree in.
type aspect struct {
	contents string
	mode     fs.FileMode
	gid      uint32
}

// readPair reads two files one after the other.
func readPair(open func(name string) (*os.File, error)) (pair [2]aspect, err error) {
	for i, name := range []string{"left", "z/right"} {
		f, err := open(name)
		if err != nil {
			return pair, err
		}
		contents, err := io.ReadAll(f)
		info, statErr := f.Stat()
		if err := errors.Join(err, statErr, f.Close()); err != nil {
			return pair, err
		}
		pair[i] = aspect{string(contents), info.Mode(), info.Sys().(*syscall.Stat_t).Gid}
	}
	return pair, nil
}

// A pairReader reads two files of one rotation, or reports false if the volume
// was rotated meanwhile so that it has to read again.
type pairReader func(target string) (pair [2]aspect, ok bool, err error)

// readHeld follows ..data once and reads below what it led to.
func readHeld(target string) (pair [2]aspect, ok bool, err error) {
	dir, err := os.OpenRoot(filepath.Join(target, "..data"))
	if errors.Is(err, fs.ErrNotExist) {
		_, err := os.Lstat(filepath.Join(target, "..data"))
		return pair, false, err // what it led to is gone, it is not
	}
	if err != nil {
		return pair, false, err
	}
	defer func() { _ = dir.Close() }()
	pair, err = readPair(dir.Open)
	if errors.Is(err, fs.ErrNotExist) && removing(target, dir) {
		return pair, false, nil
	}
	return pair, err == nil, err
}

// readByName reads by the names at the top, and looks whether ..data led to the
// same before and after.
func readByName(target string) (pair [2]aspect, ok bool, err error) {
	data := filepath.Join(target, "..data")
	before, err := os.Readlink(data)
	if err != nil {
		return pair, false, err
	}
	pair, readErr := readPair(func(name string) (*os.File, error) { return os.Open(filepath.Join(target, name)) })
	after, err := os.Readlink(data)
	if err != nil {
		return pair, false, err
	}
	if before != after {
		return pair, false, nil
	}
	return pair, readErr == nil, readErr
}

// Readers of two files of a volume that is rotated see both of one rotation, in
// contents, mode and group. ..data is swapped once for each rotation, and nothing
// is touched by a refresh that brings nothing new.
func TestManager_RotationConcurrentSafe(t *testing.T) {
	t.Parallel()
	m, root := newManager(t, Config{})
	target := targetIn(root)
	mustPublish(t, m, rotated(target, 0))
	watch := newWatch(t, target)

	var stop atomic.Bool
	var readers sync.WaitGroup
	finish := func() {
		stop.Store(true)
		readers.Wait()
	}
	defer finish()
	for _, read := range []pairReader{readHeld, readByName} {
		readers.Go(func() {
			seen := map[aspect]bool{}
			for !stop.Load() {
				pair, ok, err := read(target)
				if err != nil || ok && pair[0] != pair[1] {
					t.Errorf("read %+v, %v", pair, err)
					return
				}
				if ok {
					seen[pair[0]] = true
				}
			}
			if len(seen) < rotations/100 {
				t.Errorf("a reader saw only %d of %d rotations", len(seen), rotations)
			}
		})
	}
	for n := range rotations {
		spec := rotated(target, n+1)
		mustUpdate(t, m, spec, true)
		watch.mustHaveSeenSwaps(t, 1)
		if n%7 == 0 {
			before := touched(t, target)
			mustUpdate(t, m, spec, false)
			watch.mustHaveSeenSwaps(t, 0)
			if diff := cmp.Diff(before, touched(t, target)); diff != "" {
				t.Fatalf("a refresh that brings nothing new (-before +after):\n%s", diff)
			}
		}
		if t.Failed() {
			break
		}
	}
	finish()
	mustRead(t, m, target, "left 0440 201", "m/1 0440 201", "m/2 0440 201", "z/right 0440 201")
}

// touched tells which inodes a volume has and when they last changed.
func touched(t *testing.T, target string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(target, func(path string, _ fs.DirEntry, err error) error {
		var stat unix.Stat_t
		if err := errors.Join(err, unix.Lstat(path, &stat)); err != nil {
			return err
		}
		found[path] = fmt.Sprint(stat.Ino, stat.Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// watch is what a program sees that waits for changes of a volume.
type watch struct{ fd int }

func newWatch(t *testing.T, target string) *watch {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	const changes = unix.IN_CREATE | unix.IN_MOVE | unix.IN_DELETE | unix.IN_ATTRIB | unix.IN_MODIFY | unix.IN_CLOSE_WRITE
	if _, err := unix.InotifyAddWatch(fd, target, changes); err != nil {
		t.Fatal(err)
	}
	return &watch{fd}
}

// mustHaveSeenSwaps checks how often ..data was replaced since the last call, by
// a rename and not otherwise; if never, that nothing at all happened at the top.
func (w *watch) mustHaveSeenSwaps(t *testing.T, want int) {
	t.Helper()
	events := w.read(t)
	swaps := 0
	for _, e := range events {
		if e.name != "..data" {
			continue
		}
		if e.mask != unix.IN_MOVED_TO {
			t.Errorf("..data was not replaced but had event %#x", e.mask)
		}
		swaps++
	}
	if swaps != want || want == 0 && len(events) > 0 {
		t.Fatalf("events %+v, want ..data to be replaced %d times", events, want)
	}
}

// event is what happened to a name.
type event struct {
	mask uint32
	name string
}

// read returns the events that are there.
func (w *watch) read(t *testing.T) (events []event) {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Read(w.fd, buf)
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for rest := buf[:n]; len(rest) > 0; {
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
		events = append(events, event{
			mask: binary.NativeEndian.Uint32(rest[4:]),
			name: unix.ByteSliceToString(rest[unix.SizeofInotifyEvent:end]),
		})
		rest = rest[end:]
	}
	return events
}
