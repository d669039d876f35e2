package images

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Layer is a set of files. Directories above them are made, with mode 0755 and
// root as their owner.
type Layer struct {
	Files []File
	// Links are symbolic links, from the path to what it points to.
	Links map[string]string
	// Comment says in the image's history what the layer is.
	Comment string
	// Fast compresses for speed: for layers that no network carries.
	Fast bool
}

// File is a file, or a directory if Mode says so.
type File struct {
	// Path in the image, such as "/bin/app". Required.
	Path string
	// Source is the file of this machine with the contents, if Contents is nil.
	Source string
	// Contents of a file without a Source.
	Contents []byte
	// Mode, with fs.ModeDir for a directory. Without permissions: 0755 for a
	// directory and for an executable Source, 0644 for others.
	Mode fs.FileMode
	// UID and GID of the owner.
	UID, GID int
}

// entry is a file of the layer in the making.
type entry struct {
	header *tar.Header
	open   func() (io.ReadCloser, error)
}

// build makes the layer. Its compressed bytes are kept in memory, so that they
// are made once.
func (l Layer) build(created time.Time) (v1.Layer, error) {
	entries, err := l.entries(created)
	if err != nil {
		return nil, err
	}
	level := gzip.DefaultCompression // the best takes four times as long, for 0.3% less
	if l.Fast {
		level = gzip.BestSpeed
	}
	opener := func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeTar(w, entries)) }()
		return r, nil
	}
	layer, err := tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(level), tarball.WithCompressedCaching)
	if err != nil {
		return nil, fmt.Errorf("make a layer: %w", err)
	}
	return layer, nil
}

// entries returns what the layer holds, sorted, with the directories above.
func (l Layer) entries(created time.Time) ([]entry, error) {
	found := map[string]entry{}
	add := func(e entry) error {
		name := strings.TrimSuffix(e.header.Name, "/")
		_, file := found[name]
		_, directory := found[name+"/"]
		if file || directory {
			return fmt.Errorf("/%s is in a layer twice", name)
		}
		e.header.ModTime = created
		found[e.header.Name] = e
		return nil
	}
	for _, file := range l.Files {
		e, err := file.entry()
		if err != nil {
			return nil, err
		}
		if err := add(e); err != nil {
			return nil, err
		}
	}
	for at, target := range l.Links {
		name, err := entryName(at)
		if err != nil {
			return nil, err
		}
		link := &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
		if err := add(entry{header: link}); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Collect(maps.Keys(found)) {
		for dir := path.Dir(strings.TrimSuffix(name, "/")); dir != "."; dir = path.Dir(dir) {
			if other, ok := found[dir]; ok {
				return nil, fmt.Errorf("/%s is not a directory, but /%s is below it", other.header.Name, name)
			}
			if _, ok := found[dir+"/"]; !ok {
				header := &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: created}
				found[dir+"/"] = entry{header: header}
			}
		}
	}
	return sorted(found), nil
}

func sorted(found map[string]entry) []entry {
	entries := make([]entry, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		entries = append(entries, found[name])
	}
	return entries
}

// entryName is a path as tar has it: relative to the root.
func entryName(file string) (string, error) {
	name := strings.TrimPrefix(file, "/")
	if !fs.ValidPath(name) || name == "." {
		return "", fmt.Errorf("path %q in an image: want an absolute path without . or .. as a part", file)
	}
	return name, nil
}

func (f File) entry() (entry, error) {
	name, err := entryName(f.Path)
	if err != nil {
		return entry{}, err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: tarMode(f.Mode), Uid: f.UID, Gid: f.GID}
	switch {
	case f.Mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
		if header.Mode == 0 {
			header.Mode = 0o755
		}
		return entry{header: header}, nil
	case f.Source != "" && f.Contents != nil:
		return entry{}, fmt.Errorf("%s in an image has both a source and contents", f.Path)
	case f.Source != "":
		return f.fromSource(header)
	}
	header.Size = int64(len(f.Contents))
	if header.Mode == 0 {
		header.Mode = 0o644
	}
	contents := string(f.Contents) // the caller may change its slice
	return entry{header: header, open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(contents)), nil
	}}, nil
}

// fromSource takes size and permissions of a file of this machine. Of the
// permissions only "executable" counts: the rest is the umask of who made it.
func (f File) fromSource(header *tar.Header) (entry, error) {
	info, err := os.Stat(f.Source)
	if err != nil {
		return entry{}, fmt.Errorf("put %s into an image: %w", f.Path, err)
	}
	if !info.Mode().IsRegular() {
		return entry{}, fmt.Errorf("put %s into an image: %s is not a regular file", f.Path, f.Source)
	}
	header.Size = info.Size()
	if header.Mode == 0 {
		header.Mode = 0o644
		if info.Mode()&0o111 != 0 {
			header.Mode = 0o755
		}
	}
	return entry{header: header, open: func() (io.ReadCloser, error) { return os.Open(f.Source) }}, nil
}

// tarMode is a mode as tar has it: the permissions, and the three bits above.
func tarMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	for bit, value := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&bit != 0 {
			bits |= value
		}
	}
	return bits
}

func writeTar(w io.Writer, entries []entry) error {
	archive := tar.NewWriter(w)
	for _, e := range entries {
		if err := e.write(archive); err != nil {
			return fmt.Errorf("/%s: %w", e.header.Name, err)
		}
	}
	return archive.Close()
}

func (e entry) write(archive *tar.Writer) (err error) {
	header := *e.header // the writer changes it
	if err := archive.WriteHeader(&header); err != nil {
		return err
	}
	if e.open == nil {
		return nil
	}
	contents, err := e.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, contents.Close()) }()
	_, err = io.Copy(archive, contents)
	return err
}
