// Postern-demo shows a pod getting its secrets, in two minutes and without a
// cluster: it starts the real daemons on this machine, plays kubelet, and prints
// what it does and what comes of it. With --vault it does so with a real
// Kubernetes API server and a real OpenBao (Vault's API), and with --cluster in a
// real cluster of one node.
//
// It runs as root and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/postern-dev/postern/test/demo"
	"github.com/postern-dev/postern/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case interrupted && !errors.Is(err, harness.ErrLeft):
		fmt.Fprintln(os.Stderr, "\nstopped; everything was cleaned up")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "\npostern-demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("postern-demo", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "postern-demo shows a pod getting its secrets. Run it as root.\n\n")
		flags.PrintDefaults()
	}
	vault := flags.Bool("vault", false, "with a real Kubernetes API server and a real OpenBao; the first run builds them")
	inCluster := flags.Bool("cluster", false, "in a real Kubernetes cluster of one node, with Helm; the first run builds it")
	keep := flags.Bool("keep", false, "with --cluster: leave the cluster up, and say how to look around")
	pause := flags.Bool("pause", false, "wait before cleaning up, to look around; Ctrl-C goes on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg := demo.Config{Out: os.Stdout, Progress: os.Stderr, Pause: *pause, Keep: *keep, Getenv: os.Getenv}
	switch {
	case *keep && !*inCluster:
		return errors.New("--keep is for --cluster")
	case *inCluster:
		return demo.Cluster(ctx, cfg)
	case *vault:
		return demo.Vault(ctx, cfg)
	default:
		return demo.File(ctx, cfg)
	}
}
