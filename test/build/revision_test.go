package build

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// history is a repository of the test's own.
type history struct {
	t *testing.T
	b *Builder
}

func newHistory(t *testing.T) *history {
	t.Helper()
	b, _ := newBuilder(t, nil)
	h := &history{t: t, b: b}
	h.git("init", "--quiet")
	return h
}

func (h *history) git(args ...string) string {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), "git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.invalid"}, args...)...)
	cmd.Dir = h.b.cfg.Root
	output, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("git %v: %v\n%s", args, err, output)
	}
	return strings.TrimSpace(string(output))
}

// commit writes files and returns the commit that has them.
func (h *history) commit(files map[string]string) string {
	h.t.Helper()
	write(h.t, h.b.cfg.Root, files)
	h.git("add", ".")
	h.git("commit", "--quiet", "--allow-empty", "-m", "x")
	return h.git("rev-parse", "HEAD")
}

// daemonModules is the least that the daemons are built from; each prints a word.
func daemonModules(word string) map[string]string {
	files := map[string]string{}
	work := "go 1.26.0\n"
	for _, dir := range []string{"proto", "internal", "providers/sdk", "providers/file", "providers/vault", "gateway", "driver"} {
		files[dir+"/go.mod"] = "module example.invalid/" + dir + "\n\ngo 1.26.0\n"
		work += "use ./" + dir + "\n"
	}
	files["go.work"] = work
	for dir, name := range map[string]string{"driver": "driver", "gateway": "gateway", "providers/vault": "provider-vault"} {
		files[dir+"/cmd/postern-"+name+"/main.go"] = "package main\n\nfunc main() { println(\"" + word + "\") }\n"
	}
	return files
}

func TestPreviousRevision(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	check := func(want, wantError string) {
		t.Helper()
		got, err := h.b.PreviousRevision(t.Context())
		if got != want || (wantError == "") != (err == nil) {
			t.Errorf("PreviousRevision() = %s, %v, want %s", got, err, want)
		}
		if err != nil && (!errors.Is(err, ErrNoRevision) || !strings.Contains(err.Error(), wantError)) {
			t.Errorf("error %v, want ErrNoRevision with %q", err, wantError)
		}
	}
	check("", `no commit "HEAD"`)
	h.commit(map[string]string{"go.work": "go 1.26.0\n"})
	check("", "git fetch --deepen=1")
	first := h.commit(daemonModules("first"))
	check("", "has no proto/go.mod")
	second := h.commit(nil)
	check(first, "")
	h.git("tag", "driver/v0.1.0", first)
	h.git("tag", "driver/v0.10.0", second)
	check(first, "") // v0.10.0 is this commit
	h.commit(nil)
	h.commit(nil)
	check(second, "")
	h.git("tag", "providers/vault/v9.0.0")
	h.commit(nil)
	check(second, "")
}

func TestDaemonsAt(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	first := h.commit(daemonModules("first"))
	h.commit(daemonModules("second"))
	for range 2 {
		dir, err := h.b.DaemonsAt(t.Context(), first)
		if err != nil {
			t.Fatal(err)
		}
		output, err := exec.CommandContext(t.Context(), filepath.Join(dir, "postern-gateway")).CombinedOutput()
		if err != nil || string(output) != "first\n" {
			t.Errorf("the gateway says %q, %v", output, err)
		}
	}
	entries, err := os.ReadDir(h.b.cfg.Cache)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 { // the daemons and the lock
		t.Errorf("in the cache: %v", entries)
	}
	if _, err := h.b.DaemonsAt(t.Context(), strings.Repeat("0", 40)); err == nil {
		t.Error("daemons of a commit that is not there: no error")
	}
}

func TestRevision_NoRepository(t *testing.T) {
	t.Parallel()
	b, _ := newBuilder(t, nil)
	if _, err := b.PreviousRevision(t.Context()); !errors.Is(err, ErrNoRevision) {
		t.Errorf("error %v, want ErrNoRevision", err)
	}
}
