package atomicdir_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// A volume that somebody damaged is not complete, and is mended by the next
// update; where the revision is as it should be, without writing another.
func TestRefresh_Mends(t *testing.T) {
	t.Parallel()
	files := []fileset.File{volumetest.File("a", "1"), volumetest.File("d/b", "2")}
	for name, tc := range map[string]struct {
		damage   string // see edit
		complete bool
		changed  bool
	}{
		"link missing":        {"rm a", false, false},
		"link astray":         {"rm a; ln a x", false, false},
		"file for a link":     {"rm a; write a 9", false, false},
		"directory for link":  {"rm d; write d/b 9", false, false},
		"stale link":          {"ln z ..data/z", true, false},
		"stray file":          {"write z 9", true, false},
		"stray revision":      {"write ..2020/z 9", true, false},
		"swap interrupted":    {"ln ..data_tmp ..2020", true, false},
		"temporary in way":    {"rm a; write ..link_tmp/z 9", false, false},
		"no data link":        {"rm ..data", false, true},
		"data link astray":    {"rm ..data; ln ..data ..gone", false, true},
		"data link outside":   {"rm ..data; ln ..data ../..", false, true},
		"data link to file":   {"rm ..data; write ..file 9; ln ..data ..file", false, true},
		"data is a directory": {"rm ..data; write ..data/a 9", false, true},
		"data is a file":      {"rm ..data; write ..data 9", false, true},
		"file missing":        {"rm ..data/a", true, true},
		"all files missing":   {"rm ..data/a; rm ..data/d", false, true},
		"file changed":        {"write ..data/a 8", true, true},
		"file too many":       {"write ..data/d/c 8", true, true},
		"directory too many":  {"write ..data/d/e/c 8", true, true},
		"link for a file":     {"rm ..data/a; write ..2020/a 1; ln ..data/a ../..2020/a", true, true},
		"pipe for a file":     {"rm ..data/a; mkfifo ..data/a", true, true},
		"directory closed":    {"chmod ..data/d", true, true},
		"file given away":     {"chown ..data/a", true, true},
		"directory given":     {"chown ..data/d", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			set := newSet(t, nil, files...)
			dir.mustRefresh(t, set, true)
			want := volumetest.Tree(t, dir.path)
			edit(t, dir.path, tc.damage)
			dir.mustBeComplete(t, tc.complete)
			dir.mustRefresh(t, set, tc.changed)
			volumetest.MustBe(t, dir.path, want)
			dir.mustBeComplete(t, true)
		})
	}
}

// edit changes a volume by commands: rm, ln <name> <where to>, write <name>
// <contents>, mkfifo, chmod, which takes a directory from all but its owner, chown,
// which gives it to somebody else, and extend, which makes a file 1 TiB long.
func edit(t *testing.T, target, commands string) {
	t.Helper()
	for command := range strings.SplitSeq(commands, "; ") {
		if command == "" {
			continue
		}
		words := append(strings.Fields(command), "")
		path := filepath.Join(target, words[1])
		var err error
		switch words[0] {
		case "rm":
			err = os.RemoveAll(path)
		case "ln":
			err = os.Symlink(words[2], path)
		case "write":
			volumetest.WriteFile(t, path, words[2], 0o644)
		case "mkfifo":
			err = unix.Mkfifo(path, 0o644)
		case "extend":
			err = os.Truncate(path, 1<<40)
		case "chown":
			err = os.Chown(path, 99, 0)
		case "chmod":
			err = os.Chmod(path, 0o700)
		default:
			t.Fatalf("bad command %q", command)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
