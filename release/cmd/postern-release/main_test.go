package main

import (
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/postern-dev/postern/release/internal/git/gittest"
)

// call runs the command and returns what it writes.
func call(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, progress strings.Builder
	err = run(t.Context(), environment{
		args: args, stdout: &out, stderr: &progress,
		getenv: func(name string) string { return map[string]string{"SOURCE_DATE_EPOCH": "86400"}[name] },
	})
	return out.String(), progress.String(), err
}

func TestHelp(t *testing.T) {
	t.Parallel()
	stdout, _, err := call(t, "--help")
	if err != nil {
		t.Error(err)
	}
	for _, command := range []string{"images", "push", "check"} {
		if !strings.Contains(stdout, "\n  "+command+" ") {
			t.Errorf("help does not name %s:\n%s", command, stdout)
		}
		_, stderr, err := call(t, command, "--help")
		if !errors.Is(err, flag.ErrHelp) || !strings.Contains(stderr, "Usage: postern-release "+command) || !strings.Contains(stderr, "-root") {
			t.Errorf("%s --help: %v\n%s", command, err, stderr)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	root := gittest.New(t, gittest.Project()).Dir
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no command":      {nil, "which command?"},
		"unknown command": {[]string{"publish"}, `there is no command "publish"`},
		"unknown flag":    {[]string{"images", "--arch=x"}, "-arch"},
		"unknown image":   {[]string{"images", "--root", root, "vault"}, `there is no image "vault"`},
		"push whereto":    {[]string{"push", "--root", root}, "--repository is required"},
		"check of what":   {[]string{"check", "--root", root, "node"}, `check takes no arguments, but was given ["node"]`},
		"no tree":         {[]string{"check", "--root", t.TempDir()}, "versions.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, _, err := call(t, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSourceDateEpoch(t *testing.T) {
	t.Parallel()
	root := gittest.New(t, gittest.Project()).Dir
	err := run(t.Context(), environment{
		args: []string{"images", "--root", root}, stdout: io.Discard, stderr: io.Discard,
		getenv: func(string) string { return "yesterday" },
	})
	if err == nil || !strings.Contains(err.Error(), `SOURCE_DATE_EPOCH "yesterday"`) {
		t.Errorf("error = %v", err)
	}
}

// TestImagesAndPush builds images, pushes those files, and builds them again to
// push: the registry has them already.
func TestImagesAndPush(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // nobody is logged in
	root := gittest.New(t, gittest.Project()).Dir
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))))
	t.Cleanup(server.Close)
	repository := strings.TrimPrefix(server.URL, "http://") + "/postern"
	flags := []string{"--root", root, "--platform", "linux/" + runtime.GOARCH, "--repository", repository, "--version", "v1.2.3"}

	stdout, _, err := call(t, append([]string{"images"}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	var want string
	for _, name := range []string{"postern-driver", "postern-provider-x"} {
		file, rest, _ := strings.Cut(stdout, " ")
		if wanted := filepath.Join(root, "dist/images", name+"-v1.2.3.tar"); file != wanted {
			t.Errorf("file %s, want %s", file, wanted)
		}
		line, after, _ := strings.Cut(rest, "\n")
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[2] != repository+"/"+name+":v1.2.3" {
			t.Fatalf("line %q", line)
		}
		want += fields[2] + "@" + fields[3] + "\n"
		stdout = after
	}
	for _, extra := range []string{"--no-build", "--overwrite=false"} {
		stdout, stderr, err := call(t, append([]string{"push", extra}, flags...)...)
		if err != nil || stdout != want {
			t.Errorf("push %s: %v\n%s\nwant\n%s", extra, err, stdout, want)
		}
		done := map[string]string{"--no-build": ": pushed\n", "--overwrite=false": ": there already\n"}[extra]
		if strings.Count(stderr, done) != 2 {
			t.Errorf("push %s says\n%s", extra, stderr)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	tree := gittest.New(t, gittest.Project())
	stdout, _, err := call(t, "check", "--root", tree.Dir, "--repository", "example.com/p")
	if err != nil || !strings.Contains(stdout, "example.com/p/postern-driver:v0.2.0") {
		t.Errorf("error = %v; report:\n%s", err, stdout)
	}
	tree.Write(map[string]string{"new/go.mod": "module github.com/postern-dev/postern/new\n"})
	stdout, _, err = call(t, "check", "--root", tree.Dir)
	if err == nil || !strings.Contains(err.Error(), "1 problems") || !strings.Contains(stdout, "module new is in no set") {
		t.Errorf("error = %v; report:\n%s", err, stdout)
	}
}

// Inside the tree nobody has to say where it is.
func TestFindRoot(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if _, err := findRoot(); err == nil || !strings.Contains(err.Error(), "run this inside the repository") {
		t.Errorf("outside: %v", err)
	}
	tree := gittest.New(t, gittest.Project())
	t.Chdir(filepath.Join(tree.Dir, "driver", "cmd"))
	if root, err := findRoot(); err != nil || root != tree.Dir {
		t.Errorf("inside: %s, %v; want %s", root, err, tree.Dir)
	}
}
