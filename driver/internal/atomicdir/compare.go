package atomicdir

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/postern-dev/postern/driver/internal/fileset"
)

// matches reports whether the directory called revision holds exactly the
// set's files: contents, modes, owners.
func (w *writer) matches(revision string) (same bool, err error) {
	if revision == "" {
		return false, nil
	}
	dir, err := w.root.OpenRoot(revision)
	if err != nil {
		return false, ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if same, err := w.sameDir(dir, "."); !same || err != nil {
		return false, err
	}
	for _, name := range w.set.Dirs {
		if same, err := w.sameDir(dir, name); !same || err != nil {
			return false, err
		}
	}
	buf := make([]byte, compareBuffer)
	defer clear(buf)
	for i := range w.set.Files {
		if same, err := sameFile(dir, &w.set.Files[i], w.set.GID, buf); !same || err != nil {
			return false, err
		}
	}
	return true, nil
}

// compareBuffer is how much of a file is compared at once, in bytes.
const compareBuffer = 16 << 10

// sameDir checks the directory itself and that it holds nothing that the set
// does not have. That it holds all of it comes out when the rest is opened.
func (w *writer) sameDir(revision *os.Root, dir string) (same bool, err error) {
	f, err := revision.Open(dir)
	if err != nil {
		return false, ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !info.IsDir() || !sameOwner(info, DirMode, w.set.GID) {
		return false, nil
	}
	entries, err := f.ReadDir(-1)
	if err != nil {
		return false, err
	}
	for _, entry := range entries {
		want := fs.FileMode(0)
		switch w.set.Kind(path.Join(dir, entry.Name())) {
		case fileset.Absent:
			return false, nil
		case fileset.IsDir:
			want = fs.ModeDir
		case fileset.IsFile:
		}
		if entry.Type() != want {
			return false, nil
		}
	}
	return true, nil
}

func sameFile(revision *os.Root, want *fileset.File, gid int, buf []byte) (same bool, err error) {
	f, err := revision.Open(want.Path)
	if err != nil {
		return false, ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if info.Size() != int64(want.Contents.Len()) || !sameOwner(info, want.Mode, gid) {
		return false, nil
	}
	for rest := want.Contents.Reveal(); ; {
		n, err := f.Read(buf)
		if n > len(rest) || !bytes.Equal(buf[:n], rest[:n]) {
			return false, nil
		}
		rest = rest[n:]
		if errors.Is(err, io.EOF) {
			return len(rest) == 0, nil
		}
		if err != nil {
			return false, err
		}
	}
}
