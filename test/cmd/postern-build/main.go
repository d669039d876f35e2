// Postern-build builds what the tests run: the daemons, the third-party servers
// that they talk to, and the doubles of clouds. With --print it says on stdout where
// each is.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/postern-dev/postern/test/build"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "postern-build:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("postern-build", flag.ContinueOnError)
	flags.SetOutput(stderr)
	printPaths := flags.Bool("print", false, "print name=path for each binary")
	if err := flags.Parse(args); err != nil {
		return err
	}
	builder, err := build.Here(os.Getenv, stderr)
	if err != nil {
		return err
	}
	paths := map[string]string{}
	var names []string
	add := func(name, path string) { names = append(names, name); paths[name] = path }
	for _, server := range build.Servers() {
		path, err := builder.Server(ctx, server)
		if err != nil {
			return err
		}
		add(server.Name, path)
	}
	dir, err := builder.Daemons(ctx)
	if err != nil {
		return err
	}
	daemons, err := filepath.Glob(filepath.Join(dir, "postern-*"))
	if err != nil {
		return err
	}
	for _, path := range daemons {
		add(filepath.Base(path), path)
	}
	for _, cloud := range []string{"aws", "azure", "gcp"} {
		double, err := builder.Double(ctx, cloud)
		if err != nil {
			return err
		}
		add(cloud, double)
	}
	if *printPaths {
		for _, name := range names {
			if _, err := fmt.Fprintf(stdout, "%s=%s\n", name, paths[name]); err != nil {
				return err
			}
		}
	}
	return nil
}
