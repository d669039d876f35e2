// Postern-bench compares Postern with the upstream driver, prints a table and
// writes it to docs/benchmarks.md.
//
// It runs as root, in a mount namespace of its own, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postern-dev/postern/test/bench"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/mountns"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	code, err := start(ctx)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "postern-bench:", err)
		code = 1
	}
	os.Exit(code)
}

// options are the command line.
type options struct {
	cfg   bench.Config
	out   string
	check bool
}

func start(ctx context.Context) (code int, err error) {
	o, err := parse(os.Args[1:])
	if err != nil {
		return 0, err
	}
	if os.Getuid() == 0 && !mountns.Inside(os.Getenv) {
		return mountns.Again(ctx)
	}
	return 0, run(ctx, o)
}

func parse(args []string) (options, error) {
	o := options{cfg: bench.Config{Progress: os.Stderr}}
	flags := flag.NewFlagSet("postern-bench", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "postern-bench compares Postern with the upstream driver. Run it as root.\n\n")
		flags.PrintDefaults()
	}
	only := flags.String("only", "", "`scenarios` to run, with commas between: "+strings.Join(bench.Names(), ","))
	flags.BoolVar(&o.cfg.Quick, "quick", false, "run everything with a few volumes, to see that it works")
	flags.StringVar(&o.out, "out", "", "`file` for the table (default docs/benchmarks.md after a whole run, none with --only or --quick)")
	flags.BoolVar(&o.check, "check", false, "fail if a target is missed")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	if *only != "" {
		o.cfg.Only = strings.Split(*only, ",")
	}
	return o, nil
}

func run(ctx context.Context, o options) error {
	builder, err := build.Here(os.Getenv, os.Stderr)
	if err != nil {
		return err
	}
	o.cfg.Builder = builder
	report, err := bench.Run(ctx, o.cfg)
	if err != nil {
		return err
	}
	report.Print(os.Stdout)
	if document := o.document(builder.Root()); document != "" {
		if err := os.WriteFile(document, []byte(report.Markdown()), 0o644); err != nil {
			return fmt.Errorf("write the table: %w", err)
		}
		fmt.Fprintln(os.Stdout, "written to", document)
	}
	if missed := report.Missed(); o.check && len(missed) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

// document is where the table is written to; "" is nowhere. What is not whole is
// written only where somebody says so.
func (o options) document(root string) string {
	if o.out == "" && !o.cfg.Quick && len(o.cfg.Only) == 0 {
		return filepath.Join(root, "docs/benchmarks.md")
	}
	return o.out
}
