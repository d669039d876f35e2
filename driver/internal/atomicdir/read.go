package atomicdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/internal/redact"
)

// Limits bound what Read takes into memory.
type Limits struct {
	// Bytes limits the contents; each file counts as whole pages.
	Bytes int64
	// Inodes limits files and directories.
	Inodes int64
}

// Read returns the files of a directory's revision as they are now, by path, or
// none if it holds no revision. They are of one revision, also if a Refresh runs
// meanwhile. Nothing is read from outside the revision, wherever its links lead.
// Errors: *fileset.FileError for what is no file of a volume,
// fileset.ErrTooLarge.
func Read(root *os.Root, limits Limits) ([]fileset.File, error) {
	for {
		revision, err := readRevision(root)
		if revision == "" || err != nil {
			return nil, err
		}
		files, err := readFiles(root, revision, limits)
		now, nowErr := readRevision(root)
		if now == revision && nowErr == nil && err == nil {
			return files, nil
		}
		wipe(files)
		if now == revision || nowErr != nil {
			return nil, errors.Join(err, nowErr)
		}
		// A refresh has swapped meanwhile, and took away what was just read.
		// Only as many rounds follow as there are refreshes.
	}
}

func wipe(files []fileset.File) {
	for i := range files {
		files[i].Contents.Wipe()
	}
}

// readFiles reads all that is in a revision. What it returns with an error is to
// be wiped.
func readFiles(root *os.Root, revision string, limits Limits) (files []fileset.File, err error) {
	dir, err := root.OpenRoot(revision)
	if err != nil {
		return nil, fmt.Errorf("open revision: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	r := reader{dir: dir, left: limits}
	if err := fs.WalkDir(dir.FS(), ".", r.visit); err != nil {
		return r.files, err
	}
	slices.SortFunc(r.files, func(a, b fileset.File) int { return strings.Compare(a.Path, b.Path) })
	return r.files, nil
}

// reader collects the files of a revision.
type reader struct {
	dir   *os.Root
	left  Limits // what may still come
	files []fileset.File
}

func (r *reader) visit(path string, entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if r.left.Inodes--; r.left.Inodes < 0 {
		return fmt.Errorf("%w: it holds more files and directories than a volume may", fileset.ErrTooLarge)
	}
	switch entry.Type() {
	case fs.ModeDir:
		return nil
	case 0:
		return r.readFile(path)
	default:
		return &fileset.FileError{Path: path, Problem: "is neither a file nor a directory: somebody else writes there"}
	}
}

func (r *reader) readFile(path string) (err error) {
	f, err := r.dir.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size > r.left.Bytes || fileset.Pages(size) > r.left.Bytes { // a sparse file can be of any size
		return fmt.Errorf("%w: file %q of %d bytes is more than what is left of the limit, %d bytes",
			fileset.ErrTooLarge, path, size, r.left.Bytes)
	}
	r.left.Bytes -= fileset.Pages(size)
	buf := make([]byte, size+1) // one more, to see the end
	n, err := io.ReadFull(f, buf)
	r.files = append(r.files, fileset.File{Path: path, Mode: info.Mode().Perm(), Contents: redact.NewBytes(buf[:n])})
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if int64(n) != size {
		return &fileset.FileError{Path: path, Problem: "changed while it was read: somebody else writes there"}
	}
	return nil
}
