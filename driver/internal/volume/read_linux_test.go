package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// mustRead checks what Read returns, each file as "path mode contents".
func mustRead(tb testing.TB, m *Manager, target string, want ...string) {
	tb.Helper()
	files, err := m.Read(target)
	if err != nil {
		tb.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, fmt.Sprintf("%s %04o %s", f.Path, f.Mode, f.Contents.Reveal()))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Fatalf("Read (-want +got):\n%s", diff)
	}
}

func mustNotRead(tb testing.TB, m *Manager, target string, want error) {
	tb.Helper()
	if files, err := m.Read(target); !errors.Is(err, want) || files != nil {
		tb.Errorf("Read: %d files, %v; want %v", len(files), err, want)
	}
}

func TestManager_Read(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			mustNotRead(t, m, target, ErrNotMounted) // not even its parent exists
			volumetest.WriteFile(t, filepath.Join(target, "..x", "a"), "x", 0o644)
			volumetest.Symlink(t, "..x", filepath.Join(target, "..data"))
			mustNotRead(t, m, target, ErrNotMounted) // a directory on the node's disk
			gid := int64(7)
			spec := Spec{Target: target, GID: &gid, Files: []File{
				{Path: "d/b", Mode: 0o600, Contents: volumetest.Content("2")}, volumetest.File("a", "1"),
			}}
			mustPublish(t, m, spec)
			mustRead(t, m, target, "a 0644 1", "d/b 0640 2")
			// What was read is what there is.
			spec.Files, _ = m.Read(target)
			mustUpdate(t, m, spec, false)
			spec.Files = spec.Files[1:]
			mustUpdate(t, m, spec, true)
			mustRead(t, m, target, "d/b 0640 2")
			mustUnpublish(t, m, target)
			mustNotRead(t, m, target, ErrNotMounted)
			mustNotRead(t, m, m.cfg.Root+"x", ErrTarget)
		})
	}
}

func TestManager_ReadUpstreamVolume(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			upstreamVolume(t, target)
			mustRead(t, m, target, "a 0644 1", "d/b 0400 2")
			volumetest.WriteFile(t, filepath.Join(target, "..data", "large"), strings.Repeat("x", fileset.PageSize), 0o644)
			m.cfg.Size = 2 * fileset.PageSize
			mustNotRead(t, m, target, fileset.ErrTooLarge)
			m.cfg.Size, m.cfg.Inodes = DefaultSize, 3
			mustNotRead(t, m, target, fileset.ErrTooLarge)
		})
	}
}

// What is no volume with a revision is not read, and nothing outside one.
func TestManager_ReadRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, target string)
		want    error
	}{
		"empty": {func(t *testing.T, target string) {
			t.Helper()
			volumetest.MountTmpfs(t, target, "")
		}, ErrIncomplete},
		"provider-written": {func(t *testing.T, target string) {
			t.Helper()
			volumetest.MountTmpfs(t, target, "")
			volumetest.WriteFile(t, filepath.Join(target, "a"), "1", 0o644)
		}, ErrIncomplete},
		"foreign": {func(t *testing.T, target string) {
			t.Helper()
			if err := errors.Join(os.MkdirAll(target, 0o750), unix.Mount("proc", target, "proc", 0, "")); err != nil {
				t.Fatal(err)
			}
		}, ErrForeignMount},
		"broken": {func(t *testing.T, target string) {
			t.Helper()
			volumetest.MountBroken(t, target)
		}, ErrNotMounted},
		"revision outside": {func(t *testing.T, target string) {
			t.Helper()
			outside := t.TempDir()
			volumetest.WriteFile(t, filepath.Join(outside, "precious"), "x", 0o644)
			volumetest.MountTmpfs(t, target, "")
			volumetest.Symlink(t, outside, filepath.Join(target, "..x"))
			volumetest.Symlink(t, "..x", filepath.Join(target, "..data"))
		}, ErrIncomplete},
		"data link outside": {func(t *testing.T, target string) {
			t.Helper()
			volumetest.WriteFile(t, filepath.Join(filepath.Dir(target), "..x", "precious"), "x", 0o644)
			volumetest.MountTmpfs(t, target, "")
			volumetest.Symlink(t, "../..x", filepath.Join(target, "..data"))
		}, ErrIncomplete},
	} {
		for _, api := range apis {
			t.Run(name+" "+api.name, func(t *testing.T) {
				t.Parallel()
				m, target := api.manager(t)
				tc.prepare(t, target)
				mustNotRead(t, m, target, tc.want)
			})
		}
	}
}

// While a volume is refreshed, taken away and put in place again, Read returns
// all of its files or none.
func TestManager_ReadConcurrentSafe(t *testing.T) {
	t.Parallel()
	m, root := newManager(t, Config{})
	target := targetIn(root)
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		defer close(done)
		for n := range revisions {
			spec := Spec{Target: target, Files: numbered(2 * n)}
			err := m.Publish(t.Context(), spec)
			if err == nil {
				spec.Files = numbered(2*n + 1)
				_, err = m.Update(t.Context(), spec)
			}
			if err == nil {
				err = m.Unpublish(t.Context(), target)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer writer.Wait()
	for whole := 0; ; {
		select {
		case <-done:
			if whole == 0 {
				t.Error("Read never returned the files")
			}
			return
		default:
		}
		files, err := m.Read(target)
		if err != nil {
			if !errors.Is(err, ErrNotMounted) && !errors.Is(err, ErrIncomplete) {
				t.Fatal(err)
			}
			continue
		}
		whole++
		mustBeNumbered(t, files)
	}
}

// mustBeNumbered checks that files are those of one revision; see numbered.
func mustBeNumbered(t *testing.T, files []File) {
	t.Helper()
	number := 0
	if _, err := fmt.Sscan(string(files[0].Contents.Reveal()), &number); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, f := range numbered(number) {
		want[f.Path] = fmt.Sprint(number)
	}
	got := map[string]string{}
	for _, f := range files {
		got[f.Path] = string(f.Contents.Reveal())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("Read (-want +got):\n%s", diff)
	}
}
