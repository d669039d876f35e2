// Postern-aws is a test double of AWS; test/aws/README.md has its control API.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "postern-aws:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	cfg                             aws.Config
	issuer, jwks, caFile, tokenFile string
	seedFile, readyFile             string
	debug                           bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("postern-aws", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.cfg.Listen, "listen", "127.0.0.1:0", "`address` of the AWS endpoint")
	flags.StringVar(&o.cfg.Control, "control", "127.0.0.1:0", "`address` of the control API")
	flags.StringVar(&o.cfg.PodIdentity, "pod-identity", "127.0.0.1:0", "`address` of the Pod Identity agent, or off")
	flags.StringVar(&o.cfg.PodIdentity6, "pod-identity6", "", "its second `address`, such as [::1]:0")
	flags.StringVar(&o.cfg.Account, "account", "", "`account` of names that say none (111122223333)")
	flags.StringVar(&o.cfg.Partition, "partition", "", "`partition` of ARNs (aws)")
	flags.StringVar(&o.cfg.STSUpstream, "sts-upstream", "", "`URL` of a MinIO that verifies web identity tokens")
	flags.StringVar(&o.cfg.STSUpstreamRole, "sts-upstream-role", "", "MinIO's own role `ARN`")
	flags.StringVar(&o.issuer, "issuer", "", "`URL` of an OIDC issuer to trust")
	flags.StringVar(&o.jwks, "issuer-jwks", "", "`URL or file` of its keys")
	flags.StringVar(&o.caFile, "issuer-ca", "", "`file` of certificates to trust it by")
	flags.StringVar(&o.tokenFile, "issuer-token-file", "", "`file` of a bearer token to read its keys with")
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
	if o.issuer != "" {
		issuer, err := o.readIssuer()
		if err != nil {
			return err
		}
		o.cfg.Issuers = []control.Issuer{issuer}
	}
	if o.debug {
		o.cfg.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	server, err := aws.Start(ctx, o.cfg)
	if err != nil {
		return err
	}
	defer server.Close()
	if err := o.seed(server); err != nil {
		return err
	}
	if err := o.ready(server.Addresses, stdout); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (o options) readIssuer() (control.Issuer, error) {
	issuer := control.Issuer{URL: o.issuer}
	for _, file := range []struct {
		name string
		to   *string
	}{{o.caFile, &issuer.CAPEM}, {o.tokenFile, &issuer.BearerToken}} {
		if file.name == "" {
			continue
		}
		contents, err := os.ReadFile(file.name)
		if err != nil {
			return control.Issuer{}, fmt.Errorf("read about the issuer: %w", err)
		}
		*file.to = strings.TrimSpace(string(contents))
	}
	if strings.HasPrefix(o.jwks, "http://") || strings.HasPrefix(o.jwks, "https://") {
		issuer.JWKSURL = o.jwks
	} else if o.jwks != "" {
		keys, err := os.ReadFile(o.jwks)
		if err != nil {
			return control.Issuer{}, fmt.Errorf("read the issuer's keys: %w", err)
		}
		issuer.JWKS = keys
	}
	return issuer, nil
}

func (o options) seed(server *aws.Server) error {
	if o.seedFile == "" {
		return nil
	}
	contents, err := os.ReadFile(o.seedFile)
	if err != nil {
		return fmt.Errorf("read the seed: %w", err)
	}
	d, err := control.ReadDocument(contents)
	if err != nil {
		return fmt.Errorf("seed %s: %w", o.seedFile, err)
	}
	if _, err := server.Apply(d); err != nil {
		return fmt.Errorf("seed %s: %w", o.seedFile, err)
	}
	return nil
}

// ready tells where it listens. The file is there as a whole or not at all.
func (o options) ready(addresses control.Addresses, stdout io.Writer) error {
	line, err := json.Marshal(addresses)
	if err != nil {
		return err
	}
	if o.readyFile != "" {
		temporary := filepath.Join(filepath.Dir(o.readyFile), "."+filepath.Base(o.readyFile)+".tmp")
		if err := os.WriteFile(temporary, line, 0o644); err != nil {
			return fmt.Errorf("write the ready file: %w", err)
		}
		if err := os.Rename(temporary, o.readyFile); err != nil {
			return fmt.Errorf("write the ready file: %w", err)
		}
	}
	_, err = fmt.Fprintf(stdout, "%s\n", line)
	return err
}
