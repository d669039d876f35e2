// Package gobuild builds the daemons as a release does: static, each module by
// itself, and so that the same commit and the same Go give the same bytes on
// every machine.
package gobuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// buildInfo is the package whose variables the linker sets.
const buildInfo = "github.com/postern-dev/postern/internal/daemon"

// Build is one binary.
type Build struct {
	// Dir is the module's directory, Package what to build in it.
	Dir, Package string
	// Platform such as "linux/arm64".
	Platform string
	// Version, Revision and Time are what the binary says with --version.
	Version, Revision string
	Time              time.Time
	// Output is the file to write.
	Output string
}

// Run builds. Its error holds what go printed.
func (b Build) Run(ctx context.Context) error {
	goos, goarch, ok := strings.Cut(b.Platform, "/")
	if !ok || strings.Contains(goarch, "/") {
		return fmt.Errorf("platform %q: want os/architecture, such as linux/amd64", b.Platform)
	}
	cmd := exec.CommandContext(ctx, "go", b.args()...) //nolint:gosec // what is built is a package of this repository
	cmd.Dir = b.Dir
	cmd.Env = append(os.Environ(), environment(goos, goarch)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("go is not installed, or not on PATH: %w", err)
	case err != nil:
		return fmt.Errorf("go build in %s: %w\n%s", b.Dir, err, output.String())
	}
	return nil
}

func (b Build) args() []string {
	ldflags := "-s -w" +
		" -X " + buildInfo + ".version=" + b.Version +
		" -X " + buildInfo + ".revision=" + b.Revision +
		" -X " + buildInfo + ".built=" + b.Time.UTC().Format(time.RFC3339)
	return []string{
		"build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		// It leaves out golang.org/x/net/trace, a fifth of each binary.
		"-tags=grpcnotrace",
		"-ldflags=" + ldflags, "-o", b.Output, b.Package,
	}
}

// environment is what of the caller's would change the binary.
func environment(goos, goarch string) []string {
	return []string{
		"GOOS=" + goos, "GOARCH=" + goarch, "GOAMD64=v1", "GOARM64=v8.0",
		"CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off",
	}
}
