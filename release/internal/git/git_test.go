package git_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/release/internal/git"
	"github.com/postern-dev/postern/release/internal/git/gittest"
)

func open(t *testing.T, tree *gittest.Tree) *git.Repository {
	t.Helper()
	repository, err := git.Open(t.Context(), tree.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return repository
}

func TestOpen_Errors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := git.Open(t.Context(), dir); !errors.Is(err, git.ErrNoRepository) {
		t.Errorf("without a repository: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, ".git"), 0o700); err != nil {
		t.Fatal(err)
	}
	// A broken repository is not a tree without one: its versions would be wrong.
	if _, err := git.Open(t.Context(), dir); err == nil || errors.Is(err, git.ErrNoRepository) {
		t.Errorf("with a broken one: %v", err)
	}
}

func TestRepository_Head(t *testing.T) {
	t.Parallel()
	tree := gittest.New(t, map[string]string{"a": "1", ".gitignore": "/built"})
	repository := open(t, tree)
	want := git.Commit{Hash: tree.Git("rev-parse", "HEAD"), Time: gittest.Time()}
	check := func(what string) {
		t.Helper()
		got, err := repository.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	tree.Write(map[string]string{"built": ""})
	check("clean")
	want.Dirty = true
	tree.Write(map[string]string{"new": ""})
	check("with a new file")
	want.Hash, want.Dirty = tree.Commit(), false
	check("committed")
	want.Dirty = true
	tree.Write(map[string]string{"a": "2"})
	check("with a changed file")
}

func TestRepository_Tags(t *testing.T) {
	t.Parallel()
	tree := gittest.New(t, nil)
	first := tree.Git("rev-parse", "HEAD")
	tree.Tag("a/v0.1.0-rc.1", "a/v0.1.0", "a/b/v0.9.0", "a/vnext", "c/vnext")
	tree.Git("tag", "light/v0.1.0")
	tree.Commit()
	tree.Tag("a/v0.10.0", "a/v0.9.0")
	tree.Commit()
	tree.Git("checkout", "--quiet", "-b", "other")
	tree.Commit()
	tree.Tag("a/v0.11.0")
	tree.Git("checkout", "--quiet", "main")

	repository := open(t, tree)
	for tag, want := range map[string]string{"a/v0.1.0": first, "light/v0.1.0": first, "a/v0.1": "", "none": ""} {
		if got, err := repository.Tagged(t.Context(), tag); got != want || err != nil {
			t.Errorf("Tagged(%s) = %q, %v; want %q", tag, got, err, want)
		}
	}
	for prefix, want := range map[string]string{"a": "a/v0.10.0", "a/b": "a/b/v0.9.0", "light": "light/v0.1.0", "b": "", "c": ""} {
		if got, err := repository.LastTag(t.Context(), prefix); got != want || err != nil {
			t.Errorf("LastTag(%s) = %q, %v; want %q", prefix, got, err, want)
		}
	}
	for tag, want := range map[string]int{"": 3, "a/v0.1.0": 2, "a/v0.10.0": 1} {
		if got, err := repository.CommitsSince(t.Context(), tag); got != want || err != nil {
			t.Errorf("CommitsSince(%q) = %d, %v; want %d", tag, got, err, want)
		}
	}
	if _, err := repository.CommitsSince(t.Context(), "none"); err == nil {
		t.Error("CommitsSince(none): no error")
	}
}

func TestRepository_ChangedSince(t *testing.T) {
	t.Parallel()
	tree := gittest.New(t, map[string]string{"a/kept": "1", "a/ü b": "1", "a/gone": "1", "b/c": "1", ".gitignore": "built"})
	tree.Tag("a/v0.1.0")
	tree.Write(map[string]string{"a/ü b": "2", "b/c": "2", "a/new": "1"})
	tree.Git("rm", "--quiet", "a/gone")
	tree.Commit()
	tree.Write(map[string]string{"a/newer": "", "a/built": "", "c": ""})
	repository := open(t, tree)
	for tag, want := range map[string][]string{
		"a/v0.1.0": {"a/gone", "a/new", "a/ü b", "a/newer"},
		"":         {"a/kept", "a/new", "a/ü b", "a/newer"},
	} {
		got, err := repository.ChangedSince(t.Context(), tag, []string{"a"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("since %q (-want +got):\n%s", tag, diff)
		}
	}
}
