// Postern-chaos mounts volumes on a node whose daemons are killed, stopped,
// replaced and frozen at random, and says whether every mount ended well and
// nothing was left behind. See package chaos. It runs as root and leaves nothing
// behind itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/chaos"
	"github.com/postern-dev/postern/test/mountns"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	enter := mountns.Again
	if mountns.Inside(os.Getenv) {
		enter = func(ctx context.Context) (int, error) { return 0, run(ctx, os.Args[1:]) }
	}
	code, err := enter(ctx)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "postern-chaos:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) error {
	cfg := chaos.Config{Progress: os.Stderr}
	flags := flag.NewFlagSet("postern-chaos", flag.ContinueOnError)
	flags.DurationVar(&cfg.Duration, "duration", chaos.DefaultDuration, "how long to mount; starting and settling come on top")
	flags.IntVar(&cfg.Rate, "rate", chaos.DefaultRate, "publish calls per second to aim at")
	flags.Uint64Var(&cfg.Seed, "seed", rand.Uint64N(1_000_000), "decides who is hit when; a random one if it is not given")
	flags.StringVar(&cfg.LogDir, "logs", "", "existing directory that gets the daemons' logs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: only flags are accepted", flags.Arg(0))
	}
	builder, err := build.Here(os.Getenv, os.Stderr)
	if err != nil {
		return err
	}
	cfg.Builder = builder
	report, err := chaos.Run(ctx, cfg)
	if report != nil {
		fmt.Print(report)
		err = errors.Join(err, report.Err())
	}
	return err
}
