// Postern-gcp is a test double of Google Cloud; test/gcp/README.md has its control API.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "postern-gcp:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	cfg                 gcp.Config
	issuer              double.IssuerFlags
	seedFile, readyFile string
	debug               bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("postern-gcp", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.cfg.Proxy, "proxy", "127.0.0.1:0", "`address` of the proxy, for HTTPS_PROXY")
	flags.StringVar(&o.cfg.Control, "control", "127.0.0.1:0", "`address` of the control API")
	flags.StringVar(&o.cfg.Metadata, "metadata", "127.0.0.1:0", "`address` of the metadata server, for GCE_METADATA_HOST, or off")
	flags.StringVar(&o.cfg.CAFile, "ca-file", "", "`file` to write the certificate of its authority to")
	o.issuer.Add(flags)
	flags.StringVar(&o.seedFile, "seed", "", "`file` with a document for POST /apply")
	flags.StringVar(&o.readyFile, "ready-file", "", "`file` to write the addresses to")
	flags.BoolVar(&o.debug, "debug", false, "log each request")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() != 0 {
		return options{}, fmt.Errorf("unexpected arguments: %q", flags.Args())
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	issuer, ok, err := o.issuer.Read()
	if err != nil {
		return err
	}
	if ok {
		o.cfg.Issuers = []control.Issuer{issuer}
	}
	if o.debug {
		o.cfg.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	server, err := gcp.Start(ctx, o.cfg)
	if err != nil {
		return err
	}
	defer server.Close()
	if err := o.seed(server); err != nil {
		return err
	}
	if err := double.Ready(server.Addresses, o.readyFile, stdout); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (o options) seed(server *gcp.Server) error {
	if o.seedFile == "" {
		return nil
	}
	contents, err := os.ReadFile(o.seedFile)
	if err != nil {
		return fmt.Errorf("read the seed: %w", err)
	}
	d, err := control.ReadDocument(contents)
	if err == nil {
		_, err = server.Apply(d)
	}
	if err != nil {
		return fmt.Errorf("seed %s: %w", o.seedFile, err)
	}
	return nil
}
