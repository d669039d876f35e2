// Package git asks a git repository what a release has to know of it. It changes
// nothing.
package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// ErrNoRepository is returned for a tree that git does not know, such as an
// unpacked source archive.
var ErrNoRepository = errors.New("not a git repository")

// Repository is a working tree.
type Repository struct{ dir string }

// Commit is what is checked out.
type Commit struct {
	Hash string
	Time time.Time
	// Dirty: files differ from the commit, or are not in it.
	Dirty bool
}

// Open returns the repository whose top is dir.
func Open(ctx context.Context, dir string) (*Repository, error) {
	// Asked of the file system: git's own answer looks the same when it refuses
	// a repository that belongs to somebody else.
	if _, err := os.Stat(filepath.Join(dir, ".git")); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoRepository)
	}
	r := &Repository{dir: dir}
	if _, err := r.run(ctx, "rev-parse", "--verify", "HEAD"); err != nil {
		return nil, fmt.Errorf("find the commit of %s: %w", dir, err)
	}
	return r, nil
}

// Head returns the commit that is checked out.
func (r *Repository) Head(ctx context.Context) (Commit, error) {
	out, err := r.run(ctx, "show", "--no-patch", "--format=%H %ct", "HEAD")
	if err != nil {
		return Commit{}, err
	}
	hash, seconds, _ := strings.Cut(out, " ")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return Commit{}, fmt.Errorf("time of commit %s: %w", hash, err)
	}
	status, err := r.run(ctx, "status", "--porcelain")
	if err != nil {
		return Commit{}, err
	}
	return Commit{Hash: hash, Time: time.Unix(unix, 0).UTC(), Dirty: status != ""}, nil
}

// Tagged returns the commit that a tag is on, "" if there is no such tag.
func (r *Repository) Tagged(ctx context.Context, tag string) (string, error) {
	return r.run(ctx, "for-each-ref", "--format=%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)", "refs/tags/"+tag)
}

// LastTag returns the tag of the highest version, <prefix>/v1.2.3, among the
// ancestors of what is checked out, "" if there is none.
func (r *Repository) LastTag(ctx context.Context, prefix string) (string, error) {
	out, err := r.run(ctx, "tag", "--merged", "HEAD", "--list", prefix+"/v*")
	if err != nil {
		return "", err
	}
	last := ""
	for _, tag := range lines(out) {
		version := strings.TrimPrefix(tag, prefix+"/")
		if semver.IsValid(version) && (last == "" || semver.Compare(version, strings.TrimPrefix(last, prefix+"/")) > 0) {
			last = tag
		}
	}
	return last, nil
}

// CommitsSince counts the commits since a tag, or all of them if it is "".
func (r *Repository) CommitsSince(ctx context.Context, tag string) (int, error) {
	commits := "HEAD"
	if tag != "" {
		commits = "refs/tags/" + tag + "..HEAD"
	}
	out, err := r.run(ctx, "rev-list", "--count", commits)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(out)
}

// ChangedSince lists the files below dirs that differ from a tag's, and those
// that git does not track yet. Without a tag these are all files.
func (r *Repository) ChangedSince(ctx context.Context, tag string, dirs []string) ([]string, error) {
	tracked := []string{"ls-files", "--"}
	if tag != "" {
		tracked = []string{"diff", "--name-only", "--no-renames", "refs/tags/" + tag, "--"}
	}
	known, err := r.run(ctx, append(tracked, dirs...)...)
	if err != nil {
		return nil, err
	}
	untracked, err := r.run(ctx, append([]string{"ls-files", "--others", "--exclude-standard", "--"}, dirs...)...)
	if err != nil {
		return nil, err
	}
	return append(lines(known), lines(untracked)...), nil
}

// run returns what git prints, without the last newline.
func (r *Repository) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "core.quotePath=false"}, args...)...) //nolint:gosec // constant commands
	cmd.Dir = r.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimRight(stdout.String(), "\n"), nil
}

// lines splits what git printed.
func lines(out string) []string {
	return slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool { return line == "" })
}
