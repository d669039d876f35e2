package double

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

	"github.com/postern-dev/postern/test/token"
)

// IssuerFlags say by flags which issuer of tokens is known from the start.
type IssuerFlags struct {
	url, jwks, caFile, tokenFile string
}

// Add adds the flags.
func (f *IssuerFlags) Add(flags *flag.FlagSet) {
	flags.StringVar(&f.url, "issuer", "", "`URL` of an OIDC issuer to trust")
	flags.StringVar(&f.jwks, "issuer-jwks", "", "`URL or file` of its keys")
	flags.StringVar(&f.caFile, "issuer-ca", "", "`file` of certificates to trust it by")
	flags.StringVar(&f.tokenFile, "issuer-token-file", "", "`file` of a bearer token to read its keys with")
}

// Read returns the issuer, if the flags say one.
func (f *IssuerFlags) Read() (issuer token.Issuer, ok bool, err error) {
	if f.url == "" {
		return token.Issuer{}, false, nil
	}
	issuer.URL = f.url
	for _, file := range []struct {
		name string
		to   *string
	}{{f.caFile, &issuer.CAPEM}, {f.tokenFile, &issuer.BearerToken}} {
		if file.name == "" {
			continue
		}
		contents, err := os.ReadFile(file.name)
		if err != nil {
			return token.Issuer{}, false, fmt.Errorf("read about the issuer: %w", err)
		}
		*file.to = strings.TrimSpace(string(contents))
	}
	if strings.HasPrefix(f.jwks, "http://") || strings.HasPrefix(f.jwks, "https://") {
		issuer.JWKSURL = f.jwks
	} else if f.jwks != "" {
		if issuer.JWKS, err = os.ReadFile(f.jwks); err != nil {
			return token.Issuer{}, false, fmt.Errorf("read the issuer's keys: %w", err)
		}
	}
	return issuer, true, nil
}

// Ready prints a double's addresses as a line of JSON, and writes them to a file
// if it has a name.
func Ready(addresses any, file string, stdout io.Writer) error {
	line, err := json.Marshal(addresses)
	if err != nil {
		return err
	}
	if file != "" {
		if err := WriteFile(file, line); err != nil {
			return fmt.Errorf("write the ready file: %w", err)
		}
	}
	_, err = fmt.Fprintf(stdout, "%s\n", line)
	return err
}

// WriteFile writes a file that is there as a whole or not at all.
func WriteFile(name string, contents []byte) error {
	temporary := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".tmp")
	if err := os.WriteFile(temporary, contents, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, name)
}

// Program is a double as a program of its own.
type Program struct {
	// Name is the command's.
	Name string
	// Flags adds the double's own flags.
	Flags func(*flag.FlagSet)
	// Start starts the double.
	Start func(ctx context.Context, with Given) (Running, error)
}

// Given is what the flags that all doubles have say.
type Given struct {
	// Issuers is the one that is known from the start, if there is one.
	Issuers []token.Issuer
	// Logger gets a line for each request. Nil: nobody wants that.
	Logger *slog.Logger
}

// Running is a double that listens.
type Running struct {
	// Addresses are where, for JSON.
	Addresses any
	// Seed puts a document of its control API into it.
	Seed  func(document []byte) error
	Close func()
}

// Main runs it until it is told to end by a signal, and returns its exit code.
func (p Program) Main(ctx context.Context) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := p.Run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		return 1
	}
	return 0
}

// Run runs it until ctx ends.
func (p Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	var issuerFlags IssuerFlags
	p.Flags(flags)
	issuerFlags.Add(flags)
	seedFile := flags.String("seed", "", "`file` with a document for POST /apply")
	readyFile := flags.String("ready-file", "", "`file` to write the addresses to")
	debug := flags.Bool("debug", false, "log each request")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 0 {
		return fmt.Errorf("unexpected arguments: %q", flags.Args())
	}
	var with Given
	issuer, ok, err := issuerFlags.Read()
	if err != nil {
		return err
	}
	if ok {
		with.Issuers = []token.Issuer{issuer}
	}
	if *debug {
		with.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	running, err := p.Start(ctx, with)
	if err != nil {
		return err
	}
	defer running.Close()
	if err := running.seed(*seedFile); err != nil {
		return err
	}
	if err := Ready(running.Addresses, *readyFile, stdout); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (r Running) seed(file string) error {
	if file == "" {
		return nil
	}
	contents, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the seed: %w", err)
	}
	if err := r.Seed(contents); err != nil {
		return fmt.Errorf("seed %s: %w", file, err)
	}
	return nil
}
