// Package atomicdir keeps a set of files in a directory and replaces all of
// them at once. It knows the directory only by an *os.Root and does not care
// what it is on.
//
// The layout is that of Kubernetes' atomic writer, which the upstream Secrets
// Store CSI driver uses too, so that either driver can take over the other's
// volumes:
//
//	..2026_01_31_12_00_00.4026531/      one revision of all files
//	..data -> ..2026_01_31_12_00_00.4026531
//	password -> ..data/password         one link per top-level name
//
// All names that begin with two dots are the layout's own.
package atomicdir

import (
	"errors"
	"io/fs"
	"os"

	"github.com/postern-dev/postern/driver/internal/fileset"
)

// DirMode is the mode of all directories of a volume. Files decide by their own
// mode who reads them; and it holds the 0550 that kubelet gives an fsGroup on
// directories.
const DirMode fs.FileMode = 0o755

// Step is called before each step of a write with the step's name. An error
// ends the write there.
type Step = func(name string) error

// Fill writes files into an empty directory which nobody looks at yet.
func Fill(root *os.Root, files *fileset.Set, step Step) error {
	w := writer{root: root, set: files, step: step}
	return w.replace(&layout{})
}

// Refresh makes a directory, whatever is in it, hold these files, and reads it
// back. It reports whether the set of files, their contents, modes or owners differed;
// if not, and all can be found under its name, nothing is written.
//
// Readers see all of the old revision up to one rename, and all of the new one
// from then on. An error before the rename leaves what was there and nothing
// else; fileset.ErrTooLarge is one if the file system has no room for both revisions.
// There must be one writer at a time.
func Refresh(root *os.Root, files *fileset.Set, step Step) (changed bool, err error) {
	w := writer{root: root, set: files, step: step}
	return w.refresh()
}

// Complete reports whether a directory holds a revision, all of which is
// linked. A Refresh of a complete directory may run meanwhile.
func Complete(root *os.Root) (bool, error) {
	for {
		l, err := readLayout(root)
		if err == nil && l.complete() {
			return true, nil
		}
		now, nowErr := readRevision(root)
		if l == nil || nowErr != nil || now == l.revision {
			return false, errors.Join(err, nowErr)
		}
		// A refresh has swapped meanwhile, and took away what was just read.
		// Only as many rounds follow as there are refreshes.
	}
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
