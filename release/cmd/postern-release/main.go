// Command postern-release builds the project's images, pushes them, and says
// what a release would tag and publish.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/postern-dev/postern/release/internal/versions"
)

const usage = `postern-release builds the images of this source tree, pushes them, and says
what a release would tag and publish.

Usage: postern-release <command> [flags] [image...]

Commands:
  images  build images into tar files, without a container engine or a registry
  push    build images and push them to a registry
  check   say what a release would tag and publish; fail on what does not fit together

"postern-release <command> --help" lists a command's flags.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, environment{args: os.Args[1:], getenv: os.Getenv, stdout: os.Stdout, stderr: os.Stderr})
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "postern-release:", err)
		os.Exit(1)
	}
}

// environment is what a command gets from outside.
type environment struct {
	args           []string
	getenv         func(string) string
	stdout, stderr io.Writer
}

func run(ctx context.Context, env environment) error {
	if len(env.args) == 0 {
		fmt.Fprint(env.stderr, usage)
		return errors.New("which command?")
	}
	command := env.args[0]
	env.args = env.args[1:]
	switch command {
	case "images":
		return runImages(ctx, env)
	case "push":
		return runPush(ctx, env)
	case "check":
		return runCheck(ctx, env)
	case "help", "-h", "--help":
		fmt.Fprint(env.stdout, usage)
		return nil
	}
	return fmt.Errorf("there is no command %q; there are images, push and check", command)
}

// findRoot returns the source tree that this runs in.
func findRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the source tree: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, versions.FileName)); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no %s in %s or above it: run this inside the repository, or give --root", versions.FileName, start)
		}
	}
}
