// Postern-cluster runs a Kubernetes cluster of one node on this machine, to try
// things in: real components and real pods, in namespaces of their own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/cluster"
	"github.com/postern-dev/postern/test/postgres"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case interrupted:
		fmt.Fprintln(os.Stderr, "\npostern-cluster: interrupted:", err)
		os.Exit(130)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	default:
		fmt.Fprintln(os.Stderr, "postern-cluster:", err)
		os.Exit(1)
	}
}

const usage = `postern-cluster runs a Kubernetes cluster of one node on this machine. Run it as root.

Usage: postern-cluster [--dir DIR] COMMAND

  up [TARBALL...]      start the cluster, with the images in the tarballs, and wait until it is ready
  down                 end it and remove all that it had; also after a crash
  status               say how its components, its node and its pods are
  kubectl ARG...       run kubectl as the administrator
  shell [COMMAND...]   run a command or, without one, a shell inside the cluster's node
  logs [-f] [NAME]     print a component's log or, without a name, list the logs
  import TARBALL...    give the cluster more images
  reboot               end everything on the node at once, and start it again from its disk
  packages             print the Debian packages that this machine lacks to run a cluster and the tests

The cluster has a network of its own: only what runs in "kubectl" and "shell" reaches it.
The first "up" builds Kubernetes, which takes about 6 minutes; then it takes seconds.

`

// command is one invocation.
type command struct {
	dir  string
	args []string
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("postern-cluster", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	dir := flags.String("dir", "", "the cluster's `directory`; several clusters have several (default: \"cluster\" in the cache directory)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	commands := map[string]func(context.Context, command) error{
		"up": up, "down": down, "status": status, "kubectl": kubectl, "shell": shell, "logs": logs,
		"import": importImages, "reboot": reboot, "packages": packages,
	}
	do, known := commands[flags.Arg(0)]
	if !known {
		flags.Usage()
		return fmt.Errorf("no such command: %q", flags.Arg(0))
	}
	if *dir == "" {
		cache, err := build.DefaultCache(os.Getenv)
		if err != nil {
			return err
		}
		*dir = filepath.Join(cache, "cluster")
	}
	return do(ctx, command{dir: *dir, args: flags.Args()[1:]})
}

func up(ctx context.Context, c command) error {
	builder, err := build.Here(os.Getenv, os.Stderr)
	if err != nil {
		return err
	}
	_, err = cluster.Up(ctx, cluster.Config{Builder: builder, Dir: c.dir, Images: c.args, Progress: os.Stderr})
	if errors.Is(err, cluster.ErrRunning) {
		fmt.Fprintln(os.Stderr, "the cluster is up already")
		return nil
	}
	return err
}

func down(ctx context.Context, c command) error {
	if err := cluster.Remove(ctx, c.dir); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "the cluster is down and nothing of it is left")
	return nil
}

func kubectl(ctx context.Context, c command) error {
	return enter(ctx, c.dir, append([]string{"kubectl"}, c.args...))
}

func shell(ctx context.Context, c command) error {
	if len(c.args) > 0 {
		return enter(ctx, c.dir, c.args)
	}
	fmt.Fprintln(os.Stderr, "this shell is on the cluster's node, with its network, processes and mounts; kubectl is there; leave it with exit")
	program := os.Getenv("SHELL")
	if program == "" {
		program = "/bin/sh"
	}
	return enter(ctx, c.dir, []string{program})
}

// enter becomes a command in the cluster: the terminal and its signals are the
// command's from then on.
func enter(ctx context.Context, dir string, args []string) error {
	running, err := open(dir)
	if err != nil {
		return err
	}
	cmd := running.Command(ctx, args[0], args[1:]...)
	if cmd.Err != nil {
		return cmd.Err
	}
	if err := syscall.Exec(cmd.Path, cmd.Args, cmd.Env); err != nil {
		return fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	return nil
}

func importImages(ctx context.Context, c command) error {
	if len(c.args) == 0 {
		return errors.New("import which tarballs?")
	}
	running, err := open(c.dir)
	if err != nil {
		return err
	}
	return running.ImportImages(ctx, c.args...)
}

func reboot(ctx context.Context, c command) error {
	running, err := open(c.dir)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := running.Reboot(ctx); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "the node is Ready again, after %.1f s\n", time.Since(start).Seconds())
	return nil
}

func packages(context.Context, command) error {
	missing := cluster.MissingPackages()
	// What tests run besides.
	for program, name := range map[string]string{"gcore": "gdb", "openssl": "openssl", "prometheus": "prometheus", "promtool": "prometheus"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, name)
		}
	}
	if !postgres.Installed() { // its programs are not on PATH
		missing = append(missing, "postgresql")
	}
	slices.Sort(missing)
	missing = slices.Compact(missing)
	for _, name := range missing {
		fmt.Println(name)
	}
	return nil
}

func open(dir string) (*cluster.Cluster, error) {
	running, err := cluster.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("%w (postern-cluster up starts one)", err)
	}
	return running, nil
}
