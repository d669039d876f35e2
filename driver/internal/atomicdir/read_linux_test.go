package atomicdir_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/driver/internal/atomicdir"
	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// limits are just enough for two pages, in five files and directories.
var limits = atomicdir.Limits{Bytes: 2*fileset.PageSize + 100, Inodes: 5}

// shown describes files as "path mode contents".
func shown(files []fileset.File) []string {
	var all []string
	for _, f := range files {
		all = append(all, fmt.Sprintf("%s %04o %s", f.Path, f.Mode, f.Contents.Reveal()))
	}
	return all
}

func TestRead(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		damage string // see edit
		want   []string
	}{
		"whole":               {"", []string{"a 0640 1", "d/b 0644 2"}},
		"top link missing":    {"rm a", []string{"a 0640 1", "d/b 0644 2"}},
		"stray at the top":    {"write z 9; write ..2020/z 9", []string{"a 0640 1", "d/b 0644 2"}},
		"file missing":        {"rm ..data/a", []string{"d/b 0644 2"}},
		"by path":             {"rm ..data/a; write ..data/d.x 3", []string{"d.x 0644 3", "d/b 0644 2"}},
		"empty file":          {"rm ..data/d; write ..data/d", []string{"a 0640 1", "d 0644 "}},
		"all files missing":   {"rm ..data/a; rm ..data/d", nil},
		"no data link":        {"rm ..data", nil},
		"data link astray":    {"rm ..data; ln ..data ..gone", nil},
		"data link outside":   {"rm ..data; ln ..data ../..", nil},
		"data is a directory": {"rm ..data; write ..data/a 9", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			dir.mustRefresh(t, newSet(t, nil,
				volumetest.File("d/b", "2"), fileset.File{Path: "a", Mode: 0o640, Contents: volumetest.Content("1")}), true)
			edit(t, dir.path, tc.damage)
			files, err := atomicdir.Read(dir.root, limits)
			if diff := cmp.Diff(tc.want, shown(files)); diff != "" || err != nil {
				t.Errorf("Read: %v, files (-want +got):\n%s", err, diff)
			}
		})
	}
}

// What is no file of a volume is neither followed, waited for nor left out.
func TestRead_Refuses(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "precious")
	volumetest.WriteFile(t, outside, "precious", 0o644)
	const other = `file "x" is neither a file nor a directory`
	for name, tc := range map[string]struct {
		damage string // see edit
		is     error
		want   string
	}{
		"link outside":     {"ln ..data/x " + outside, nil, other},
		"link inside":      {"ln ..data/x a", nil, other},
		"directory link":   {"ln ..data/x /", nil, other},
		"pipe":             {"mkfifo ..data/x", nil, other},
		"too large":        {"write ..data/d/b " + strings.Repeat("x", fileset.PageSize+101), fileset.ErrTooLarge, "is more than what is left of the limit, 4196 bytes"},
		"too large sparse": {"extend ..data/d/b", fileset.ErrTooLarge, `file "d/b" of 1099511627776 bytes`},
		"too many pages":   {"write ..data/e 1", fileset.ErrTooLarge, `file "e" of 1 bytes`},
		"too many":         {"write ..data/e/f", fileset.ErrTooLarge, "more files and directories than a volume may"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			dir.mustRefresh(t, newSet(t, nil, volumetest.File("a", "1"), volumetest.File("d/b", "2")), true)
			edit(t, dir.path, tc.damage)
			files, err := atomicdir.Read(dir.root, limits)
			if err == nil || files != nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("Read: %v, %v; want an error with %s", shown(files), err, tc.want)
			}
			if _, ok := errors.AsType[*fileset.FileError](err); ok == (tc.is != nil) || !errors.Is(err, tc.is) && tc.is != nil {
				t.Errorf("Read: %v is not %v", err, tc.is)
			}
		})
	}
}

// Whatever Read returns during refreshes is one of the sets that were written.
func TestRead_RefreshConcurrentSafe(t *testing.T) {
	t.Parallel()
	const reads = 2000
	dir := newDir(t)
	sets := make([]*fileset.Set, 2)
	for i, content := range []string{"1", "2"} {
		files := []fileset.File{volumetest.File("a", content), volumetest.File("z", content)}
		for n := range 10 * (i + 1) {
			files = append(files, volumetest.File(fmt.Sprintf("d%d/f", n), content))
		}
		sets[i] = newSet(t, nil, files...)
	}
	dir.mustRefresh(t, sets[0], true)
	var stop atomic.Bool
	var writer sync.WaitGroup
	refreshes := 0
	writer.Go(func() {
		for !stop.Load() {
			refreshes++
			if _, err := atomicdir.Refresh(dir.root, sets[refreshes%2], goOn); err != nil {
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
	for range reads {
		files, err := atomicdir.Read(dir.root, atomicdir.Limits{Bytes: 1 << 20, Inodes: 1000})
		if err != nil || len(files) == 0 {
			t.Fatalf("Read: %d files, %v", len(files), err)
		}
		content := string(files[0].Contents.Reveal())
		for _, f := range files {
			if got := string(f.Contents.Reveal()); got != content {
				t.Fatalf("Read: %q at %s and %q at %s", content, files[0].Path, got, f.Path)
			}
		}
		if want := map[string]int{"1": 12, "2": 22}[content]; len(files) != want {
			t.Fatalf("Read: %d files of set %s, want %d", len(files), content, want)
		}
	}
	finish()
	if refreshes < reads/100 {
		t.Errorf("only %d refreshes during %d reads", refreshes, reads)
	}
}
