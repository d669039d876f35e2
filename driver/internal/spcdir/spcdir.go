// Package spcdir reads SecretProviderClasses from the YAML files of a
// directory, where there is no Kubernetes API server to read them from.
//
// A file that is broken does not keep the classes of other files from being
// used, but nothing is guessed: a field that is not known, a class that is
// there twice, or one that is not found while a file cannot be read is an
// error which names file and line.
package spcdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/spc"
)

// maxFileSize bounds a file in bytes. An object in Kubernetes may have 1.5 MiB.
const maxFileSize = 4 << 20

// Source finds SecretProviderClasses in a directory.
//
// Invariants:
//  1. Every answer is of the files as they were during the call, as far as
//     their times and sizes tell.
//  2. What a caller gets is its own.
type Source struct {
	dir string

	mu    sync.Mutex
	files map[string]parsedFile // by path; what is gone from the directory is gone from here
}

// parsedFile is what a file held when it had this stamp.
type parsedFile struct {
	stamp   stamp
	classes []located
	err     error
}

// stamp tells versions of a file apart.
type stamp struct {
	modified time.Time
	size     int64
}

// located is a class and where it is from.
type located struct {
	class *apiv1.SecretProviderClass
	path  string
	line  int
}

func (l located) String() string { return fmt.Sprintf("%s:%d", l.path, l.line) }

// New returns a source of what is in dir: files that end in .yaml or .yml, not
// those of directories below it.
func New(dir string) (*Source, error) {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("use directory of SecretProviderClasses: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("use directory of SecretProviderClasses: %s is not a directory", dir)
	}
	return &Source{dir: dir}, nil
}

// SecretProviderClass returns the class as the files define it now. A class
// without a namespace is in namespace "default". It fails with the errors of
// package spc.
func (s *Source) SecretProviderClass(ctx context.Context, namespace, name string) (*apiv1.SecretProviderClass, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read it from directory %s: %w", s.dir, err)
	}
	files, err := s.read()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", spc.ErrUnavailable, err)
	}
	var found []located
	var broken []error
	for _, file := range files {
		if file.err != nil {
			broken = append(broken, file.err)
		}
		for _, candidate := range file.classes {
			if candidate.class.Namespace == namespace && candidate.class.Name == name {
				found = append(found, candidate)
			}
		}
	}
	switch {
	case len(found) == 1:
		return found[0].class.DeepCopy(), nil
	case len(found) > 1:
		return nil, fmt.Errorf("%w: it is defined at %s and at %s; remove one", spc.ErrInvalid, found[0], found[1])
	case len(broken) > 0:
		return nil, fmt.Errorf("%w: %w", spc.ErrInvalid, errors.Join(broken...))
	default:
		return nil, fmt.Errorf("%w in directory %s", spc.ErrNotFound, s.dir)
	}
}

// read returns all files, sorted by path; those that changed are read again.
func (s *Source) read() ([]parsedFile, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list directory of SecretProviderClasses: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := make(map[string]parsedFile, len(entries))
	files := make([]parsedFile, 0, len(entries))
	for _, entry := range entries {
		path := filepath.Join(s.dir, entry.Name())
		if !slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path)) {
			continue
		}
		// Not the entry's own info: a file may be a link, as in a ConfigMap volume.
		info, err := os.Stat(path)
		if err == nil && !info.Mode().IsRegular() {
			continue
		}
		file := parsedFile{err: err}
		if err == nil {
			file = s.parse(path, info)
		}
		now[path] = file
		files = append(files, file)
	}
	s.files = now
	return files, nil
}

// parse needs s.mu.
func (s *Source) parse(path string, info os.FileInfo) parsedFile {
	current := stamp{modified: info.ModTime(), size: info.Size()}
	if kept, ok := s.files[path]; ok && kept.stamp == current {
		return kept
	}
	parsed := parsedFile{stamp: current}
	if info.Size() > maxFileSize {
		parsed.err = fmt.Errorf("%s: larger than %d bytes", path, maxFileSize)
		return parsed
	}
	content, err := os.ReadFile(path)
	if err != nil {
		parsed.err = fmt.Errorf("read SecretProviderClasses: %w", err)
		return parsed
	}
	parsed.classes, parsed.err = parseFile(path, content)
	return parsed
}
