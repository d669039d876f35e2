package volume

import (
	"errors"
	"fmt"

	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/driver/internal/mount"
)

// Errors to match with errors.Is, besides those of packages fileset and mount.
var (
	// ErrTarget: the target path is not one to mount at.
	ErrTarget = errors.New("bad target path")
	// ErrNotMounted: there is no volume to read or update.
	ErrNotMounted = errors.New("no volume is mounted")
	// ErrIncomplete: the volume has no revision to read; see Incomplete.
	ErrIncomplete = errors.New("the volume holds no complete set of files: publish it again")
	// ErrForeignMount: something else is mounted at the target.
	ErrForeignMount = errors.New("another file system, not a tmpfs, is mounted there: unmount it first")
)

// File is one file of a volume.
type File = fileset.File

// Spec is a volume as it should be.
type Spec struct {
	// Target is where the volume goes: an absolute path below Config.Root.
	Target string
	// Files are the volume's files, at least one.
	Files []File
	// GID is the pod's fsGroup, if any. It becomes the group of all files and
	// directories and may read them, as kubelet does it for read-only volumes:
	// files get 0440 added to their mode.
	GID *int64
	// SELinuxContext labels the whole volume if not empty. It is ignored for a
	// volume that is mounted already, whose label cannot change.
	SELinuxContext string
}

// plan is a Spec that was checked.
type plan struct {
	files   *fileset.Set
	selinux string
}

func (m *Manager) plan(spec Spec) (*plan, error) {
	files, err := fileset.New(fileset.Spec{
		Files: spec.Files, GID: spec.GID, MaxBytes: m.cfg.Size, MaxInodes: m.cfg.Inodes,
	})
	if err != nil {
		return nil, err
	}
	label, err := mount.Label(spec.SELinuxContext)
	if err != nil {
		return nil, err
	}
	return &plan{files: files, selinux: label}, nil
}

// State is what there is at a target.
type State int

// The states of a target.
const (
	// NotMounted: nothing is mounted; the directory need not exist.
	NotMounted State = iota
	// Complete: a volume with a revision, all of which is linked.
	Complete
	// Incomplete: a volume without a full set of files, such as one that
	// another driver mounted and did not fill, or whose files a provider wrote
	// by itself.
	Incomplete
	// Broken: a mount that cannot be read. Publish replaces it.
	Broken
	// Foreign: a mount that is no tmpfs, hence no volume of ours or of the
	// upstream driver. Publish refuses to touch it; Unpublish unmounts it.
	Foreign
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case NotMounted:
		return "not mounted"
	case Complete:
		return "complete"
	case Incomplete:
		return "incomplete"
	case Broken:
		return "broken"
	case Foreign:
		return "foreign"
	default:
		return fmt.Sprintf("State(%d)", int(s))
	}
}
