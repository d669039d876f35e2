// Package fileset checks a set of files before any of them is written.
package fileset

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/postern-dev/postern/internal/redact"
)

// PageSize is what a file's size is rounded up to, in bytes, as tmpfs does it.
const PageSize = 4096

// Pages returns a size in bytes, rounded up to whole pages.
func Pages(size int64) int64 { return (size + PageSize - 1) / PageSize * PageSize }

// groupMode is what kubelet adds to the mode of files of a read-only volume for
// an fsGroup.
const groupMode fs.FileMode = 0o440

// File is one file of a volume.
type File struct {
	// Path is relative to the volume, with slashes, and clean.
	Path string
	// Mode holds permission bits only. The umask does not change them.
	Mode fs.FileMode
	// Contents is only read, and not kept.
	Contents redact.Bytes
}

// Spec is what a Set is made of.
type Spec struct {
	// Files are all files, at least one.
	Files []File
	// GID, if set, becomes the group of all files and directories and may read
	// them, as kubelet does it for read-only volumes: files get 0440 added to
	// their mode.
	GID *int64
	// MaxBytes limits the contents; each file counts as whole pages.
	MaxBytes int64
	// MaxInodes limits files, directories and links, during a refresh those of
	// both revisions.
	MaxInodes int64
}

// Set is a Spec that was checked. Only New makes one, and nobody changes it.
//
// Invariants:
//  1. No path leads out of the directory or begins with two dots, and none is a
//     file and a directory at once.
//  2. Dirs holds a parent before its children.
type Set struct {
	Files []File   // by path, modes as they will be
	Dirs  []string // all directories of files
	Tops  []string // the first elements of all paths
	GID   int      // group of all files and directories
	Bytes int64    // in whole pages

	kinds map[string]Kind
}

// Kind is what a set has at a path.
type Kind byte

// The kinds of a path.
const (
	Absent Kind = iota
	IsFile
	IsDir
)

// Kind tells what there is at a clean path.
func (s *Set) Kind(path string) Kind { return s.kinds[path] }

// New checks spec by the rules of the upstream driver and its own limits.
// The errors are *FileError, ErrNoFiles, ErrTooLarge, and one for the group.
func New(spec Spec) (*Set, error) {
	s := &Set{
		Files: slices.Clone(spec.Files),
		kinds: make(map[string]Kind, len(spec.Files)),
	}
	if len(s.Files) == 0 {
		return nil, ErrNoFiles
	}
	if spec.GID != nil {
		if *spec.GID < 0 || *spec.GID >= math.MaxUint32 {
			return nil, fmt.Errorf("fsGroup %d is not a group id", *spec.GID)
		}
		s.GID = int(*spec.GID)
	}
	for i := range s.Files {
		f := &s.Files[i]
		if err := s.add(f); err != nil {
			return nil, err
		}
		if spec.GID != nil {
			f.Mode |= groupMode
		}
		s.Bytes += Pages(int64(f.Contents.Len()))
	}
	s.sort()
	if err := s.checkLimits(spec); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Set) checkLimits(spec Spec) error {
	if s.Bytes > spec.MaxBytes {
		return fmt.Errorf("%w: %d files take %d bytes in pages of %d, the limit is %d: "+
			"raise the driver's --volume-size, or split the SecretProviderClass",
			ErrTooLarge, len(s.Files), s.Bytes, PageSize, spec.MaxBytes)
	}
	if need := s.inodes(); need > spec.MaxInodes {
		return fmt.Errorf("%w: a refresh of %d files and %d directories needs %d inodes, the limit is %d: "+
			"split the SecretProviderClass",
			ErrTooLarge, len(s.Files), len(s.Dirs), need, spec.MaxInodes)
	}
	return nil
}

// add checks f and enters it and its directories into kinds.
func (s *Set) add(f *File) error {
	if problem := pathProblem(f.Path); problem != "" {
		return &FileError{Path: f.Path, Problem: problem}
	}
	if f.Mode&^fs.ModePerm != 0 {
		return &FileError{Path: f.Path, Problem: fmt.Sprintf("has mode %v: only permission bits are allowed", f.Mode)}
	}
	switch s.kinds[f.Path] {
	case IsFile:
		return &FileError{Path: f.Path, Problem: "is given twice: give each object its own file name"}
	case IsDir:
		return &FileError{Path: f.Path, Problem: "is also the directory of another file: give it another name"}
	}
	s.kinds[f.Path] = IsFile
	for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
		if s.kinds[dir] == IsFile {
			return &FileError{Path: dir, Problem: "is also the directory of another file: give it another name"}
		}
		if s.kinds[dir] == IsDir {
			break // and so are those above
		}
		s.kinds[dir] = IsDir
	}
	return nil
}

func (s *Set) sort() {
	slices.SortFunc(s.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, name := range slices.Sorted(maps.Keys(s.kinds)) {
		if s.kinds[name] == IsDir {
			s.Dirs = append(s.Dirs, name) // a parent sorts before its children
		}
		if !strings.Contains(name, "/") {
			s.Tops = append(s.Tops, name)
		}
	}
}

// inodes is what a refresh needs that replaces a volume of the same shape: two
// revisions, the links, the top directory, ..data and its successor.
func (s *Set) inodes() int64 {
	return int64(2*(len(s.Files)+len(s.Dirs)+1) + len(s.Tops) + 3)
}

// Errors to match with errors.Is.
var (
	// ErrNoFiles: a volume without files is refused, since a pod would start
	// on an empty directory; and the files that it has stay.
	ErrNoFiles = errors.New("no files were given: a volume must hold at least one; " +
		"check that the SecretProviderClass lists objects and that the provider returns their contents")
	// ErrTooLarge: the files do not fit in a volume.
	ErrTooLarge = errors.New("volume is too large")
)

// FileError says why a file cannot be part of a volume.
type FileError struct {
	// Path is the file's path, as given.
	Path string
	// Problem completes "file <path> ...".
	Problem string
}

// Error implements error. However long the path is, the message is not.
func (e *FileError) Error() string {
	const most = 256
	path := e.Path
	if len(path) > most {
		path = path[:most] + "..."
	}
	return fmt.Sprintf("file %q %s", path, e.Problem)
}
