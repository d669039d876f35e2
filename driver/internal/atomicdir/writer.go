package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/postern-dev/postern/driver/internal/fileset"
)

// Names of the writer's steps.
const (
	stepInspect     = "inspect volume"
	stepRevision    = "create revision"
	stepWrite       = "write file"
	stepSeal        = "open revision to readers"
	stepLink        = "link name"
	stepPrepareSwap = "prepare swap"
	stepSwap        = "swap revision"
	stepReplace     = "replace entry by link"
	stepRemove      = "remove stale entry"
	stepVerify      = "verify volume"
)

// timestampLayout is that of Kubernetes' atomic writer, without the random
// part.
const timestampLayout = "..2006_01_02_15_04_05."

// writer writes one set of files into a volume's directory.
type writer struct {
	root *os.Root
	set  *fileset.Set
	step Step
}

// refresh brings the volume below root to the set and verifies it. It reports
// whether a new revision was needed.
func (w *writer) refresh() (changed bool, err error) {
	if err := w.step(stepInspect); err != nil {
		return false, err
	}
	old, err := readLayout(w.root)
	if err != nil {
		return false, fmt.Errorf("read volume: %w", err)
	}
	same, err := w.matches(old.revision)
	if err != nil {
		return false, fmt.Errorf("compare volume: %w", err)
	}
	if err := w.own(w.root, "."); err != nil {
		return false, err
	}
	switch {
	case same && old.tidyFor(w.set):
		return false, nil
	case same:
		err = w.expose(old, old.revision)
	default:
		err = w.replace(old)
	}
	if err == nil {
		err = w.verify()
	}
	return !same, err
}

// verify reads all back: a volume that another driver left in an unknown state
// is reported as good only if it is.
func (w *writer) verify() error {
	if err := w.step(stepVerify); err != nil {
		return err
	}
	l, err := readLayout(w.root)
	if err != nil {
		return fmt.Errorf("verify volume: %w", err)
	}
	same, err := w.matches(l.revision)
	if err != nil {
		return fmt.Errorf("verify volume: %w", err)
	}
	if !same || !l.tidyFor(w.set) {
		return errors.New("verify volume: what was read back is not what was written: somebody else writes there")
	}
	return nil
}

// replace writes a new revision and makes it the volume's. The rename of ..data
// is the only instant at which readers notice.
func (w *writer) replace(old *layout) error {
	revision, err := w.prepare(old)
	if err != nil {
		return err
	}
	if err := w.swap(old, revision); err != nil {
		return errors.Join(err, w.discard(old, revision))
	}
	if old.revision != "" {
		old.strays = append(old.strays, old.revision)
	}
	return w.expose(old, revision)
}

// prepare does all that can be done before the swap without being noticed. If
// it fails, it undoes it.
func (w *writer) prepare(old *layout) (revision string, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, w.discard(old, revision))
		}
	}()
	if revision, err = w.writeRevision(); err != nil {
		return revision, err
	}
	// The links lead nowhere until the swap; after it there is no instant at
	// which a file of the new revision cannot be found.
	for _, name := range w.set.Tops {
		if old.has(name) {
			continue
		}
		if err := w.step(stepLink); err != nil {
			return revision, err
		}
		if err := w.root.Symlink(linkTarget(name), name); err != nil {
			return revision, w.explain("link file", err)
		}
	}
	return revision, nil
}

// writeRevision makes a directory with all files. Nobody but root can look into
// it before it is whole.
func (w *writer) writeRevision() (name string, err error) {
	if err := w.step(stepRevision); err != nil {
		return "", err
	}
	if name, err = w.makeRevisionDir(); err != nil {
		return "", err
	}
	dir, err := w.root.OpenRoot(name)
	if err != nil {
		return name, fmt.Errorf("open revision: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	for _, sub := range w.set.Dirs {
		if err := dir.Mkdir(sub, 0o700); err != nil {
			return name, w.explain("create directory", err)
		}
	}
	for i := range w.set.Files {
		if err := w.step(stepWrite); err != nil {
			return name, err
		}
		if err := w.writeFile(dir, &w.set.Files[i]); err != nil {
			return name, err
		}
	}
	if err := w.step(stepSeal); err != nil {
		return name, err
	}
	for _, sub := range slices.Backward(w.set.Dirs) {
		if err := w.own(dir, sub); err != nil {
			return name, err
		}
	}
	return name, w.own(dir, ".")
}

func (w *writer) makeRevisionDir() (string, error) {
	const attempts = 16
	prefix := time.Now().UTC().Format(timestampLayout)
	for range attempts {
		name := prefix + strconv.FormatUint(uint64(rand.Uint32()), 10) //nolint:gosec // a name, not a secret
		err := w.root.Mkdir(name, 0o700)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", w.explain("create revision", err)
		}
	}
	return "", fmt.Errorf("create revision: all of %d random names below %q are taken", attempts, prefix)
}

func (w *writer) writeFile(dir *os.Root, file *fileset.File) (err error) {
	f, err := dir.OpenFile(file.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return w.explain("create file", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(file.Contents.Reveal()); err != nil {
		return w.explain("write file", err)
	}
	if err := setOwner(f, file.Mode, w.set.GID); err != nil {
		return fmt.Errorf("set owner and mode: %w", err)
	}
	return nil
}

// own gives a directory its owner and mode where they differ.
func (w *writer) own(dir *os.Root, name string) (err error) {
	f, err := dir.Open(name)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("examine directory: %w", err)
	}
	if sameOwner(info, DirMode, w.set.GID) {
		return nil
	}
	if err := setOwner(f, DirMode, w.set.GID); err != nil {
		return fmt.Errorf("set owner and mode: %w", err)
	}
	return nil
}

func (w *writer) swap(old *layout, revision string) error {
	if err := w.step(stepPrepareSwap); err != nil {
		return err
	}
	if err := w.makeLink(revision, dataTemp); err != nil {
		return err
	}
	if err := w.step(stepSwap); err != nil {
		return err
	}
	if old.blocked {
		if err := w.root.RemoveAll(dataLink); err != nil {
			return fmt.Errorf("remove directory in the way: %w", err)
		}
	}
	if err := moveLink(w.root, revision, dataTemp, dataLink); err != nil {
		return fmt.Errorf("swap revision: %w", err)
	}
	return nil
}

// expose makes the names at the top those of the set: it replaces what is in
// the way of a link, adds links that are missing and removes all else.
func (w *writer) expose(old *layout, revision string) error {
	for _, name := range w.set.Tops {
		if old.names[name] || (!old.has(name) && revision != old.revision) {
			continue // prepare made the latter
		}
		if err := w.step(stepReplace); err != nil {
			return err
		}
		if err := w.putLink(name); err != nil {
			return err
		}
	}
	stale := old.strays
	for name := range old.names {
		if !slices.Contains(w.set.Tops, name) {
			stale = append(stale, name)
		}
	}
	// Another driver that is being replaced can have swapped in a revision
	// which was a stray a moment ago.
	current, err := readRevision(w.root)
	if err != nil {
		return fmt.Errorf("read revision: %w", err)
	}
	for _, name := range stale {
		if name == current {
			continue
		}
		if err := w.step(stepRemove); err != nil {
			return err
		}
		if err := w.root.RemoveAll(name); err != nil {
			return fmt.Errorf("remove stale entry: %w", err)
		}
	}
	return nil
}

// putLink puts the link called name in the place of whatever is there. A file
// is replaced without a gap. A directory, which only a provider of the old kind
// makes, cannot be: it is moved aside first.
func (w *writer) putLink(name string) error {
	if info, err := w.root.Lstat(name); err == nil && info.IsDir() {
		return w.linkForDirectory(name)
	}
	if err := w.makeLink(linkTarget(name), linkTemp); err != nil {
		return err
	}
	if err := moveLink(w.root, linkTarget(name), linkTemp, name); err != nil {
		return fmt.Errorf("replace entry by link: %w", err)
	}
	return nil
}

func (w *writer) linkForDirectory(name string) error {
	if err := w.root.RemoveAll(linkTemp); err != nil {
		return fmt.Errorf("remove stale entry: %w", err)
	}
	if err := w.root.Rename(name, linkTemp); err != nil {
		return fmt.Errorf("move directory aside: %w", err)
	}
	if err := w.root.Symlink(linkTarget(name), name); err != nil {
		return w.explain("link file", err)
	}
	if err := w.root.RemoveAll(linkTemp); err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	return nil
}

// makeLink makes a link under a temporary name, over one that a writer which was
// killed may have left.
func (w *writer) makeLink(to, temp string) error {
	if err := w.root.RemoveAll(temp); err != nil {
		return fmt.Errorf("remove stale link: %w", err)
	}
	if err := w.root.Symlink(to, temp); err != nil {
		return w.explain("make link", err)
	}
	return nil
}

// discard takes back what prepare did.
func (w *writer) discard(old *layout, revision string) error {
	names := []string{dataTemp}
	if revision != "" {
		names = append(names, revision)
	}
	for _, name := range w.set.Tops {
		if !old.has(name) {
			names = append(names, name)
		}
	}
	var errs []error
	for _, name := range names {
		if err := w.root.RemoveAll(name); err != nil {
			errs = append(errs, fmt.Errorf("take back what was written: %w", err))
		}
	}
	return errors.Join(errs...)
}

// explain adds to an error what to do about it.
func (w *writer) explain(doing string, err error) error {
	if isNoSpace(err) {
		return fmt.Errorf("%s: %w: %d files of %d bytes do not fit beside what the volume holds (%w): "+
			"raise the driver's --volume-size, or split the SecretProviderClass",
			doing, fileset.ErrTooLarge, len(w.set.Files), w.set.Bytes, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
