package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoRevision says that the tree has no earlier revision to build.
var ErrNoRevision = errors.New("there is no earlier revision to build")

// releaseTags are those of the driver's and the gateway's releases.
const releaseTags = "driver/v*"

// PreviousRevision returns the commit of the last release before this one or,
// where there is none, the commit before this one. It fails with ErrNoRevision
// where the tree has no such history, or no daemons at that time.
func (b *Builder) PreviousRevision(ctx context.Context) (string, error) {
	head, err := b.Revision(ctx, "HEAD")
	if err != nil {
		return "", err
	}
	tags, err := b.git(ctx, "tag", "--list", releaseTags, "--merged", head, "--sort=-version:refname")
	if err != nil {
		return "", err
	}
	for _, name := range append(strings.Fields(tags), "HEAD~1") {
		revision, err := b.Revision(ctx, name)
		if err != nil {
			return "", fmt.Errorf("%w: %w (a shallow clone has one commit only: git fetch --deepen=1)", ErrNoRevision, err)
		}
		if revision == head {
			continue // the release is this commit
		}
		if missing := b.missingAt(ctx, revision); missing != "" {
			return "", fmt.Errorf("%w: %s (%s) has no %s", ErrNoRevision, name, short(revision), missing)
		}
		return revision, nil
	}
	return "", ErrNoRevision
}

// Revision returns the commit that a name of git's stands for.
func (b *Builder) Revision(ctx context.Context, name string) (string, error) {
	revision, err := b.git(ctx, "rev-parse", "--verify", "--quiet", name+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("%w: no commit %q: %w", ErrNoRevision, name, err)
	}
	return strings.TrimSpace(revision), nil
}

// missingAt says what a revision lacks of what the daemons are built from.
func (b *Builder) missingAt(ctx context.Context, revision string) string {
	for _, path := range []string{
		"go.work", "proto/go.mod", "internal/go.mod", "providers/sdk/go.mod",
		"driver/go.mod", "gateway/go.mod", "providers/file/go.mod", "providers/vault/go.mod",
	} {
		if _, err := b.git(ctx, "cat-file", "-e", revision+":"+path); err != nil {
			return path
		}
	}
	return ""
}

// DaemonsAt builds the daemons of an earlier revision, a commit's full name,
// unless the cache has them, and returns the directory that holds them.
func (b *Builder) DaemonsAt(ctx context.Context, revision string) (string, error) {
	name := "daemons-at-" + short(revision)
	dir := filepath.Join(b.cfg.Cache, name+"-"+hashString(revision+b.goVersion))
	if isDir(dir) {
		return dir, nil
	}
	unlock, err := b.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if isDir(dir) { // built by whoever held the lock
		return dir, nil
	}
	b.say("%s: the daemons of an earlier revision; the first build takes half a minute, then they are kept in %s", name, dir)
	tree, err := os.MkdirTemp(b.cfg.Cache, name+"-tree-")
	if err != nil {
		return "", fmt.Errorf("make a directory to build %s in: %w", name, err)
	}
	defer func() { _ = os.RemoveAll(tree) }()
	if err := b.buildAt(ctx, revision, name, tree); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(tree, name), dir); err != nil {
		return "", fmt.Errorf("put %s into the cache: %w", name, err)
	}
	return dir, nil
}

// buildAt writes a revision into tree and builds its daemons into tree/output.
func (b *Builder) buildAt(ctx context.Context, revision, output, tree string) error {
	archive := filepath.Join(tree, "tree.tar")
	if _, err := b.git(ctx, "archive", "--format=tar", "--output="+archive, revision); err != nil {
		return fmt.Errorf("get the files of %s: %w", revision, err)
	}
	source := filepath.Join(tree, "tree")
	if err := os.Mkdir(source, 0o755); err != nil {
		return fmt.Errorf("make a directory for the files of %s: %w", revision, err)
	}
	if _, err := b.command(ctx, "tar", "-xf", archive, "-C", source); err != nil {
		return fmt.Errorf("get the files of %s: %w", revision, err)
	}
	packages, err := daemonPackages(source)
	if err != nil {
		return err
	}
	return b.run(ctx, goBuild{
		name: output, dir: source, output: filepath.Join(tree, output) + string(filepath.Separator),
		packages: packages, workspace: true, ldflags: "-s -w", tags: "grpcnotrace",
	})
}

func (b *Builder) git(ctx context.Context, args ...string) (string, error) {
	return b.command(ctx, "git", args...)
}

// command runs a program in the repository's root and returns what it prints.
func (b *Builder) command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.cfg.Root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w %s", name, args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(output), nil
}

// short is a commit's name as people write it.
func short(revision string) string { return revision[:min(len(revision), 12)] }

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
