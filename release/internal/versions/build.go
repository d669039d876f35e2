package versions

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/postern-dev/postern/release/internal/git"
)

// hashLength is how much of a commit's hash a version has.
const hashLength = 12

// Unknown is the commit of a tree without git.
const Unknown = "unknown"

// History is what git knows of tags.
type History interface {
	// Tagged returns the commit of a tag, "" if there is none.
	Tagged(ctx context.Context, tag string) (string, error)
	// LastTag returns the tag of the highest version, "" if there is none.
	LastTag(ctx context.Context, prefix string) (string, error)
	// CommitsSince counts the commits after a tag, or all if it is "".
	CommitsSince(ctx context.Context, tag string) (int, error)
}

var _ History = (*git.Repository)(nil)

// BuildVersion is the version of what is built of the set at the commit head. It
// is the set's version if that is what is tagged. Else it is one between the last
// release and the next, such as v0.1.0-dev.12.g0123456789ab, with "-dirty" if
// files are not as in the commit.
func (s *Set) BuildVersion(ctx context.Context, history History, head git.Commit) (string, error) {
	tagged, err := history.Tagged(ctx, s.Tag(s.Version))
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", s.Name, err)
	}
	if tagged == head.Hash && !head.Dirty {
		return s.Version, nil
	}
	last, err := s.LastTag(ctx, history)
	if err != nil {
		return "", err
	}
	commits, err := history.CommitsSince(ctx, last)
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", s.Name, err)
	}
	next := s.Version
	if tagged != "" {
		next = nextPatch(s.Version)
	}
	version := fmt.Sprintf("%s.%d.g%s", devBase(next), commits, head.Hash[:min(hashLength, len(head.Hash))])
	if head.Dirty {
		version += "-dirty"
	}
	return version, nil
}

// LastTag is the tag that stands for the set's last release, "" before the first.
func (s *Set) LastTag(ctx context.Context, history History) (string, error) {
	tag, err := history.LastTag(ctx, s.tagDirs()[0])
	if err != nil {
		return "", fmt.Errorf("last release of %s: %w", s.Name, err)
	}
	return tag, nil
}

// UntrackedVersion is the version of what is built from a tree without git.
func (s *Set) UntrackedVersion() string { return devBase(s.Version) }

// devBase is what development versions before a version begin with.
func devBase(version string) string {
	if semver.Prerelease(version) != "" {
		return version + ".dev" // after rc.1, before rc.2
	}
	return version + "-dev"
}

// nextPatch is the lowest version that sorts after a release, so that what is
// built after it is not taken for what was built before it.
func nextPatch(version string) string {
	if semver.Prerelease(version) != "" {
		return version // .dev sorts after it
	}
	minor := semver.MajorMinor(version)
	patch, err := strconv.Atoi(strings.TrimPrefix(version, minor+"."))
	if err != nil {
		return version // it is canonical, so the rest is a number
	}
	return fmt.Sprintf("%s.%d", minor, patch+1)
}
