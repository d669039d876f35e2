// Package build makes the binaries that the tests run: the project's daemons
// from this tree, and the third-party servers that they talk to.
//
// The servers take minutes to build, so they are kept outside the tree, each in
// a directory whose name is the hash of all that went into it. The daemons are
// built anew each time, which costs a second when the Go build cache is warm.
// Whatever takes long says what it does, why, and how long it may be.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Config is what a Builder needs.
type Config struct {
	// Root is the repository's root; see FindRoot. Required.
	Root string
	// Cache is where binaries are kept; see DefaultCache. Required.
	Cache string
	// Progress gets a line whenever something takes long. Required.
	Progress io.Writer
}

// Builder builds targets. Several processes may use one cache at once: a lock
// per target lets one of them build while the others wait and say so.
type Builder struct {
	cfg       Config
	goVersion string
}

// New returns a Builder, or an error that says which field is missing.
func New(cfg Config) (*Builder, error) {
	switch {
	case cfg.Root == "":
		return nil, errors.New("build: Root is not set")
	case cfg.Cache == "":
		return nil, errors.New("build: Cache is not set")
	case cfg.Progress == nil:
		return nil, errors.New("build: Progress is not set")
	}
	return &Builder{cfg: cfg, goVersion: runtime.Version()}, nil
}

// Here returns a Builder of the repository around the working directory, with the
// cache that the environment asks for.
func Here(getenv func(string) string, progress io.Writer) (*Builder, error) {
	root, err := FindRoot(".")
	if err != nil {
		return nil, err
	}
	cache, err := DefaultCache(getenv)
	if err != nil {
		return nil, err
	}
	return New(Config{Root: root, Cache: cache, Progress: progress})
}

// DefaultCache returns $POSTERN_CACHE_DIR, or else the directory "postern" in
// the user's cache directory ($XDG_CACHE_HOME, ~/.cache).
func DefaultCache(getenv func(string) string) (string, error) {
	if dir := getenv("POSTERN_CACHE_DIR"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache directory (set POSTERN_CACHE_DIR): %w", err)
	}
	return filepath.Join(dir, "postern"), nil
}

// FindRoot returns the directory of the go.work file in dir or above it.
func FindRoot(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", dir, err)
	}
	for at := start; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.work")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no go.work in %s or above it: run this inside the repository", start)
		}
	}
}

// Server returns the path of a third-party server, and builds it if this very
// build of it is not in the cache.
func (b *Builder) Server(ctx context.Context, s Server) (string, error) {
	moduleDir := filepath.Join(b.cfg.Root, s.Module)
	key, err := b.key(s, moduleDir)
	if err != nil {
		return "", fmt.Errorf("hash the sources of %s: %w", s.Name, err)
	}
	dir := filepath.Join(b.cfg.Cache, s.Name+"-"+key)
	binary := filepath.Join(dir, s.Name)
	if isFile(binary) {
		return binary, nil
	}
	unlock, err := b.lock(ctx, s.Name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if isFile(binary) { // built by whoever held the lock
		return binary, nil
	}
	b.say("%s: %s; not in the cache yet. The first build takes %s, then it is kept in %s",
		s.Name, s.What, s.Cold, dir)
	staging, err := os.MkdirTemp(b.cfg.Cache, s.Name+"-building-")
	if err != nil {
		return "", fmt.Errorf("make a directory to build %s in: %w", s.Name, err)
	}
	defer func() { _ = os.RemoveAll(staging) }()
	if err := b.run(ctx, goBuild{
		name: s.Name, dir: moduleDir, output: filepath.Join(staging, s.Name), ldflags: s.LDFlags,
		packages: []string{s.Package}, workspace: false,
	}); err != nil {
		return "", err
	}
	if err := os.Chmod(staging, 0o755); err != nil {
		return "", fmt.Errorf("open the directory of %s: %w", s.Name, err)
	}
	if err := os.Rename(staging, dir); err != nil {
		return "", fmt.Errorf("put %s into the cache: %w", s.Name, err)
	}
	return binary, nil
}

// FaultInjection is a tag for Daemons: a driver that tests can have killed at
// each of its steps.
const FaultInjection = "faultinjection"

// Daemons builds the project's daemons from the tree, as "make build" does but
// for further tags, and returns the directory that holds them.
func (b *Builder) Daemons(ctx context.Context, tags ...string) (string, error) {
	packages, err := daemonPackages(b.cfg.Root)
	if err != nil {
		return "", err
	}
	return b.tree(ctx, "daemons", packages, append([]string{"grpcnotrace"}, tags...))
}

// Programs builds main packages of the tree that are no daemons, given relative
// to the root, and returns the directory that holds them. Name is for messages
// and for the directory.
func (b *Builder) Programs(ctx context.Context, name string, packages ...string) (string, error) {
	return b.tree(ctx, name, packages, []string{"grpcnotrace"})
}

// Double builds the test double of a cloud, aws, azure or gcp, and returns the
// program's path.
func (b *Builder) Double(ctx context.Context, cloud string) (string, error) {
	dir, err := b.Programs(ctx, cloud, "./test/cmd/postern-"+cloud)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "postern-"+cloud), nil
}

// tree builds packages of the workspace into a directory of their own.
func (b *Builder) tree(ctx context.Context, name string, packages, tags []string) (string, error) {
	dir := filepath.Join(b.cfg.Cache, name+"-"+hashString(b.cfg.Root+strings.Join(tags, ",")))
	unlock, err := b.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the directory of the %s: %w", name, err)
	}
	start := time.Now()
	if err := b.run(ctx, goBuild{
		name: name, dir: b.cfg.Root, output: dir + string(filepath.Separator),
		packages: packages, workspace: true, ldflags: "-s -w", tags: strings.Join(tags, ","),
	}); err != nil {
		return "", err
	}
	b.say("%s: built from the tree in %s", name, time.Since(start).Round(100*time.Millisecond))
	return dir, nil
}

// Root returns the repository's root.
func (b *Builder) Root() string { return b.cfg.Root }

// Cache returns the directory in which what was built is kept.
func (b *Builder) Cache() string { return b.cfg.Cache }

func (b *Builder) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.cfg.Progress, "build: "+format+"\n", args...)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
