package fileset_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// spec is one of two pages at most.
func spec(files ...fileset.File) fileset.Spec {
	return fileset.Spec{Files: files, MaxBytes: 2 * fileset.PageSize, MaxInodes: 40}
}

func TestNew_RefusesFiles(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files []fileset.File
		want  string
	}{
		"no path":        {[]fileset.File{volumetest.File("", "")}, `file "" has no path: each file needs one`},
		"absolute":       {[]fileset.File{volumetest.File("/etc/passwd", "")}, `file "/etc/passwd" must be relative to the volume`},
		"parent":         {[]fileset.File{volumetest.File("..", "")}, `file ".." must not have ".." in its path`},
		"climbs":         {[]fileset.File{volumetest.File("a/../../b", "")}, `file "a/../../b" must not have ".." in its path`},
		"ends upwards":   {[]fileset.File{volumetest.File("a/..", "")}, `file "a/.." must not have ".." in its path`},
		"reserved":       {[]fileset.File{volumetest.File("..data", "")}, `file "..data" must not start with "..": such names are the volume's own`},
		"reserved dir":   {[]fileset.File{volumetest.File("..x/a", "")}, `file "..x/a" must not start with "..": such names are the volume's own`},
		"dot":            {[]fileset.File{volumetest.File(".", "")}, `file "." must have a clean path, without "." or empty elements`},
		"leading dot":    {[]fileset.File{volumetest.File("./a", "")}, `file "./a" must have a clean path, without "." or empty elements`},
		"double slash":   {[]fileset.File{volumetest.File("a//b", "")}, `file "a//b" must have a clean path, without "." or empty elements`},
		"trailing slash": {[]fileset.File{volumetest.File("a/", "")}, `file "a/" must have a clean path, without "." or empty elements`},
		"zero byte":      {[]fileset.File{volumetest.File("a\x00b", "")}, `file "a\x00b" has a zero byte in its path`},
		"long element": {
			[]fileset.File{volumetest.File("d/"+strings.Repeat("x", 256), "")},
			fmt.Sprintf("file %q has a name of more than 255 bytes in its path", "d/"+strings.Repeat("x", 254)+"..."),
		},
		"long path": {
			[]fileset.File{volumetest.File(strings.Repeat("x/", 2048)+"y", "")},
			fmt.Sprintf("file %q has a path of more than 4096 bytes", strings.Repeat("x/", 128)+"..."),
		},
		"twice":         {[]fileset.File{volumetest.File("a", "1"), volumetest.File("a", "2")}, `file "a" is given twice: give each object its own file name`},
		"file then dir": {[]fileset.File{volumetest.File("a", ""), volumetest.File("a/b/c", "")}, `file "a" is also the directory of another file: give it another name`},
		"dir then file": {[]fileset.File{volumetest.File("a/b/c", ""), volumetest.File("a/b", "")}, `file "a/b" is also the directory of another file: give it another name`},
		"setuid": {
			[]fileset.File{{Path: "a", Mode: 0o755 | fs.ModeSetuid}},
			`file "a" has mode urwxr-xr-x: only permission bits are allowed`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := fileset.New(spec(tc.files...))
			if err == nil || err.Error() != tc.want {
				t.Errorf("New: %v\nwant %s", err, tc.want)
			}
			if _, ok := errors.AsType[*fileset.FileError](err); !ok {
				t.Errorf("%T holds no *FileError", err)
			}
		})
	}
}

func TestNew_AcceptsUnusualPaths(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"a..b", ".hidden", "a/..b", "a/...", `with space`, "ü", strings.Repeat("x", 255),
		strings.TrimSuffix(strings.Repeat(strings.Repeat("x", 255)+"/", 16), "/"),
	} {
		s := spec(volumetest.File(path, ""))
		s.MaxInodes = 100
		if _, err := fileset.New(s); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestNew_RefusesSets(t *testing.T) {
	t.Parallel()
	negative, huge := int64(-1), int64(1<<32)
	many := make([]fileset.File, 14)
	for i := range many {
		many[i] = volumetest.File(fmt.Sprint(i), "")
	}
	for name, tc := range map[string]struct {
		mutate func(*fileset.Spec)
		is     error
		want   string
	}{
		"no files": {func(s *fileset.Spec) { s.Files = nil }, fileset.ErrNoFiles, fileset.ErrNoFiles.Error()},
		"too large": {
			func(s *fileset.Spec) {
				s.Files = []fileset.File{volumetest.File("a", strings.Repeat("x", fileset.PageSize+1)), volumetest.File("b", "y")}
			},
			fileset.ErrTooLarge,
			"volume is too large: 2 files take 12288 bytes in pages of 4096, the limit is 8192: " +
				"raise the driver's --volume-size, or split the SecretProviderClass",
		},
		"too many": {
			func(s *fileset.Spec) { s.Files = many },
			fileset.ErrTooLarge,
			"volume is too large: a refresh of 14 files and 0 directories needs 47 inodes, the limit is 40: " +
				"split the SecretProviderClass",
		},
		"negative group": {func(s *fileset.Spec) { s.GID = &negative }, nil, "fsGroup -1 is not a group id"},
		"huge group":     {func(s *fileset.Spec) { s.GID = &huge }, nil, "fsGroup 4294967296 is not a group id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec(volumetest.File("a", "b"))
			tc.mutate(&s)
			_, err := fileset.New(s)
			if err == nil || err.Error() != tc.want {
				t.Errorf("New: %v\nwant %s", err, tc.want)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("New: %v is not %v", err, tc.is)
			}
		})
	}
}

func TestNew_Order(t *testing.T) {
	t.Parallel()
	gid := int64(7)
	s := spec(
		fileset.File{Path: "z/y/x", Mode: 0}, fileset.File{Path: "a", Mode: 0o600}, fileset.File{Path: "z/b", Mode: 0o444},
	)
	given := slices.Clone(s.Files)
	s.GID = &gid
	set, err := fileset.New(s)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, f := range set.Files {
		files = append(files, fmt.Sprintf("%s %#o", f.Path, f.Mode))
	}
	kinds := []fileset.Kind{set.Kind("a"), set.Kind("z"), set.Kind("z/y"), set.Kind("z/y/x"), set.Kind("y")}
	for _, d := range []string{
		cmp.Diff([]string{"a 0640", "z/b 0444", "z/y/x 0440"}, files),
		cmp.Diff([]string{"z", "z/y"}, set.Dirs),
		cmp.Diff([]string{"a", "z"}, set.Tops),
		cmp.Diff(7, set.GID),
		cmp.Diff([]fileset.Kind{fileset.IsFile, fileset.IsDir, fileset.IsDir, fileset.IsFile, fileset.Absent}, kinds),
	} {
		if d != "" {
			t.Error(d)
		}
	}
	for i := range given {
		if s.Files[i].Path != given[i].Path || s.Files[i].Mode != given[i].Mode {
			t.Errorf("New changed the caller's file %d to %s %v", i, s.Files[i].Path, s.Files[i].Mode)
		}
	}
}
