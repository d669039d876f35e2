// Package gittest makes source trees for tests.
package gittest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Time is the time of each commit.
func Time() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }

// Tree is a git repository in a directory of the test's.
type Tree struct {
	t testing.TB
	// Dir is its root.
	Dir string
}

// New makes a repository with these files in its first commit.
func New(t testing.TB, files map[string]string) *Tree {
	t.Helper()
	tree := &Tree{t: t, Dir: t.TempDir()}
	tree.Write(files)
	tree.Git("init", "--quiet", "--initial-branch=main")
	tree.Commit()
	return tree
}

// Write writes files, without a commit.
func (tree *Tree) Write(files map[string]string) {
	tree.t.Helper()
	for name, contents := range files {
		file := filepath.Join(tree.Dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			tree.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(contents), 0o600); err != nil {
			tree.t.Fatal(err)
		}
	}
}

// Commit commits what there is, and returns the commit.
func (tree *Tree) Commit() string {
	tree.t.Helper()
	tree.Git("add", "--all")
	tree.Git("commit", "--quiet", "--allow-empty", "--message=change")
	return tree.Git("rev-parse", "HEAD")
}

// Tag tags what is checked out.
func (tree *Tree) Tag(names ...string) {
	tree.t.Helper()
	for _, name := range names {
		tree.Git("tag", "--annotate", "--message=release", name)
	}
}

// Git runs git, whatever the user has configured, and returns what it prints.
func (tree *Tree) Git(args ...string) string {
	tree.t.Helper()
	cmd := exec.CommandContext(tree.t.Context(), "git", args...) //nolint:gosec // a test says what to run
	cmd.Dir = tree.Dir
	when := Time().Format(time.RFC3339)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE="+when,
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_COMMITTER_DATE="+when)
	out, err := cmd.CombinedOutput()
	if err != nil {
		tree.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
