package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestServerIsBuiltOnceAndKept(t *testing.T) {
	t.Parallel()
	b, progress := newBuilder(t, map[string]string{
		"srv/go.mod":  "module example.invalid/srv\n\ngo 1.26.0\n",
		"srv/main.go": "package main\n\nfunc main() { println(\"hello\") }\n",
	})
	server := Server{Name: "srv", What: "a server", Module: "srv", Package: ".", Cold: "a moment"}
	paths := make([]string, 3)
	var wait sync.WaitGroup
	for i := range paths { // at once: one builds, the others wait
		wait.Go(func() {
			path, err := b.Server(t.Context(), server)
			if err != nil {
				t.Errorf("Server() = %v", err)
			}
			paths[i] = path
		})
	}
	wait.Wait()
	if paths[0] == "" || paths[0] != paths[1] || paths[1] != paths[2] {
		t.Fatalf("paths %q, want the same three times", paths)
	}
	if output, err := exec.CommandContext(t.Context(), paths[0]).CombinedOutput(); err != nil || string(output) != "hello\n" {
		t.Errorf("the server says %q, %v", output, err)
	}
	if got := strings.Count(progress.String(), "not in the cache yet"); got != 1 {
		t.Errorf("built %d times, want once:\n%s", got, progress)
	}
	left, err := filepath.Glob(filepath.Join(b.cfg.Cache, "*-building-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in the cache: %v (%v)", left, err)
	}
}

func TestServerThatDoesNotCompile(t *testing.T) {
	t.Parallel()
	b, _ := newBuilder(t, map[string]string{
		"srv/go.mod":  "module example.invalid/srv\n\ngo 1.26.0\n",
		"srv/main.go": "package main\n\nfunc main() { undefinedFunction() }\n",
	})
	_, err := b.Server(t.Context(), Server{Name: "srv", Module: "srv", Package: "."})
	if err == nil || !strings.Contains(err.Error(), "undefinedFunction") {
		t.Errorf("Server() = %v, want what the compiler said", err)
	}
	entries, err := os.ReadDir(b.cfg.Cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			t.Errorf("%s is left in the cache", entry.Name())
		}
	}
}

func TestProgramsAreBuiltFromTheTree(t *testing.T) {
	t.Parallel()
	b, _ := newBuilder(t, map[string]string{
		"go.work":          "go 1.26.0\n\nuse ./a\n",
		"a/go.mod":         "module example.invalid/a\n\ngo 1.26.0\n",
		"a/cmd/it/main.go": "package main\n\nfunc main() { println(\"one\") }\n",
	})
	for _, want := range []string{"one", "two"} {
		write(t, b.cfg.Root, map[string]string{"a/cmd/it/main.go": "package main\n\nfunc main() { println(\"" + want + "\") }\n"})
		dir, err := b.Programs(t.Context(), "tools", "./a/cmd/it")
		if err != nil {
			t.Fatal(err)
		}
		output, err := exec.CommandContext(t.Context(), filepath.Join(dir, "it")).CombinedOutput()
		if err != nil || string(output) != want+"\n" {
			t.Errorf("the program says %q, %v, want %q", output, err, want)
		}
	}
	if _, err := b.Programs(t.Context(), "tools", "./a/cmd/other"); err == nil {
		t.Error("Programs() of a package that is not there = nil, want an error")
	}
}

func TestKeyDependsOnAllThatDecides(t *testing.T) {
	t.Parallel()
	files := map[string]string{"srv/go.mod": "module m\n", "srv/go.sum": "", "srv/main.go": "package main\n"}
	base := Server{Name: "srv", Module: "srv", Package: ".", LDFlags: "-s"}
	for name, test := range map[string]struct {
		change   map[string]string
		server   func(*Server)
		goWas    string
		wantSame bool
	}{
		"nothing":      {wantSame: true},
		"test data":    {change: map[string]string{"srv/README.md": "new"}, wantSame: true},
		"go.mod":       {change: map[string]string{"srv/go.mod": "module n\n"}},
		"go.sum":       {change: map[string]string{"srv/go.sum": "x"}},
		"source":       {change: map[string]string{"srv/main.go": "package main // new\n"}},
		"new source":   {change: map[string]string{"srv/more.go": "package main\n"}},
		"inner module": {change: map[string]string{"srv/inner/inner.go": "package inner\n"}},
		"flags":        {server: func(s *Server) { s.LDFlags = "-w" }},
		"package":      {server: func(s *Server) { s.Package = "./x" }},
		"go's version": {goWas: "go1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := newBuilder(t, files)
			before := key(t, b, base)
			changed := base
			if test.server != nil {
				test.server(&changed)
			}
			write(t, b.cfg.Root, test.change)
			if test.goWas != "" {
				b.goVersion = test.goWas
			}
			if same := key(t, b, changed) == before; same != test.wantSame {
				t.Errorf("the key is the same: %t, want %t", same, test.wantSame)
			}
		})
	}
}

func TestLockIsWaitedForUntilTheContextEnds(t *testing.T) {
	t.Parallel()
	b, progress := newBuilder(t, nil)
	unlock, err := b.lock(t.Context(), "srv")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.lock(ctx, "srv"); !errors.Is(err, context.Canceled) {
		t.Errorf("a second lock: %v, want canceled", err)
	}
	if !strings.Contains(progress.String(), "another process is building it") {
		t.Errorf("it waited without saying so: %q", progress)
	}
	unlock()
	again, err := b.lock(t.Context(), "srv")
	if err != nil {
		t.Fatalf("after the unlock: %v", err)
	}
	again()
}

func TestDaemonPackages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := daemonPackages(dir); err == nil {
		t.Error("nothing there: want an error")
	}
	write(t, dir, map[string]string{
		"driver/cmd/postern-driver/main.go":                     "package main",
		"gateway/cmd/other/main.go":                             "package main",
		"providers/vault/cmd/postern-provider-vault/main.go":    "package main",
		"providers/gcp/cmd/postern-provider-gcp/not-started.md": "",
	})
	got, err := daemonPackages(dir)
	want := []string{"./driver/cmd/postern-driver", "./providers/vault/cmd/postern-provider-vault"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("daemonPackages() error %v (-want +got):\n%s", err, diff)
	}
}

func TestDefaultCache(t *testing.T) {
	t.Parallel()
	got, err := DefaultCache(func(name string) string { return map[string]string{"POSTERN_CACHE_DIR": "/cache"}[name] })
	if err != nil || got != "/cache" {
		t.Errorf("DefaultCache() = %q, %v, want /cache", got, err)
	}
}

func TestFindRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"go.work": "go 1.26.0\n", "a/b/c.txt": ""})
	if got, err := FindRoot(filepath.Join(dir, "a/b")); err != nil || got != dir {
		t.Errorf("FindRoot() = %q, %v, want %q", got, err, dir)
	}
	if _, err := FindRoot("/"); err == nil {
		t.Error("FindRoot(/) = nil, want an error")
	}
}

func newBuilder(t *testing.T, files map[string]string) (*Builder, *syncBuffer) {
	t.Helper()
	root := t.TempDir()
	write(t, root, files)
	progress := &syncBuffer{}
	b, err := New(Config{Root: root, Cache: filepath.Join(t.TempDir(), "cache"), Progress: progress})
	if err != nil {
		t.Fatal(err)
	}
	return b, progress
}

func key(t *testing.T, b *Builder, s Server) string {
	t.Helper()
	got, err := b.key(s, filepath.Join(b.cfg.Root, s.Module))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, contents := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// syncBuffer is a buffer that several builds may write to.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
