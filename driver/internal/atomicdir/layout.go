package atomicdir

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-dev/postern/driver/internal/fileset"
)

// Names of the layout. All names that begin with reserved are the layout's own.
const (
	reserved = ".."
	dataLink = "..data"
	dataTemp = "..data_tmp"
	linkTemp = "..link_tmp"
)

// layout is what the top directory holds.
type layout struct {
	// revision is the directory that ..data names, or empty if there is none.
	revision string
	// tops are the names in revision.
	tops []string
	// names are those at the top which are not the layout's own: true for links
	// that lead into ..data as they should, false for all else.
	names map[string]bool
	// blocked tells that ..data is a directory, which no rename replaces.
	blocked bool
	// strays are names of the layout's own kind which are not in use.
	strays []string
}

func readLayout(root *os.Root) (*layout, error) {
	l := &layout{names: map[string]bool{}}
	var err error
	if l.revision, err = readRevision(root); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case name == dataLink:
			l.blocked = entry.IsDir()
		case name == l.revision:
		case strings.HasPrefix(name, reserved):
			l.strays = append(l.strays, name)
		default:
			l.names[name] = entry.Type() == fs.ModeSymlink && linksToData(root, name)
		}
	}
	if l.revision == "" {
		return l, nil
	}
	entries, err = fs.ReadDir(root.FS(), l.revision)
	for _, entry := range entries {
		l.tops = append(l.tops, entry.Name())
	}
	return l, err
}

// readRevision returns the directory that ..data names, or "" if ..data is
// missing or not as the atomic writer makes it.
func readRevision(root *os.Root) (string, error) {
	for {
		name, err := readDataLink(root)
		if name == "" || err != nil {
			return "", err
		}
		info, err := root.Lstat(name)
		if err == nil && info.IsDir() {
			return name, nil
		}
		if ignoreNotExist(err) != nil {
			return "", err
		}
		// A revision that is gone was dangling only if ..data still names it.
		if now, err := readDataLink(root); now == name || err != nil {
			return "", err
		}
	}
}

// readDataLink returns where ..data leads, or "" if that cannot be a revision.
func readDataLink(root *os.Root) (string, error) {
	name, err := root.Readlink(dataLink)
	if err != nil {
		if info, statErr := root.Lstat(dataLink); statErr == nil && info.Mode().Type() != fs.ModeSymlink {
			return "", nil
		}
		return "", ignoreNotExist(err)
	}
	if !strings.HasPrefix(name, reserved) || name == reserved || name == dataLink || strings.ContainsAny(name, `/\`) {
		return "", nil
	}
	return name, nil
}

func linksToData(root *os.Root, name string) bool {
	to, err := root.Readlink(name)
	return err == nil && to == linkTarget(name)
}

func linkTarget(name string) string { return filepath.Join(dataLink, name) }

// complete reports whether all of a revision can be seen.
func (l *layout) complete() bool {
	return l.revision != "" && len(l.tops) > 0 && l.links(l.tops)
}

// tidyFor reports whether the top directory holds all that the set needs and
// nothing else, given that the revision is the set's.
func (l *layout) tidyFor(set *fileset.Set) bool {
	return len(l.strays) == 0 && len(l.names) == len(set.Tops) && l.links(set.Tops)
}

// links reports whether all these names are links as they should be.
func (l *layout) links(tops []string) bool {
	return !slices.ContainsFunc(tops, func(name string) bool { return !l.names[name] })
}

// has reports whether there is anything of this name.
func (l *layout) has(name string) bool {
	_, ok := l.names[name]
	return ok
}
