package build

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

// progressInterval is how often a long build says that it is alive.
const progressInterval = 15 * time.Second

// tailLines is how much of a failed build's output its error shows.
const tailLines = 30

// goBuild is one run of "go build".
type goBuild struct {
	name, dir, output, ldflags string
	tags                       string
	packages                   []string
	workspace                  bool
}

func (g goBuild) args() []string {
	args := []string{"build", "-v", "-trimpath", "-buildvcs=false", "-o", g.output}
	if g.ldflags != "" {
		args = append(args, "-ldflags="+g.ldflags)
	}
	if g.tags != "" {
		args = append(args, "-tags="+g.tags)
	}
	return append(args, g.packages...)
}

func (g goBuild) env() []string {
	env := append(os.Environ(), "CGO_ENABLED=0")
	if !g.workspace {
		env = append(env, "GOWORK=off", "GOFLAGS=-mod=readonly")
	}
	return env
}

// run builds, and every 15 s says how far it is. Its error holds the end of
// what go printed.
func (b *Builder) run(ctx context.Context, g goBuild) error {
	cmd := exec.CommandContext(ctx, "go", g.args()...)
	cmd.Dir, cmd.Env = g.dir, g.env()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	output, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("build %s: %w", g.name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("build %s: start go: %w", g.name, err)
	}
	var compiled atomic.Int64
	stop := b.reportProgress(g.name, &compiled)
	tail := readOutput(output, &compiled)
	err = cmd.Wait()
	stop()
	if ctx.Err() != nil {
		return fmt.Errorf("build %s: %w", g.name, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("build %s in %s: %w\n%s", g.name, g.dir, err, strings.Join(tail, "\n"))
	}
	return nil
}

// reportProgress prints a line every progressInterval until the function that
// it returns is called.
func (b *Builder) reportProgress(name string, compiled *atomic.Int64) (stop func()) {
	start, done, ended := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				b.say("%s: still building after %s; %d packages compiled",
					name, time.Since(start).Round(time.Second), compiled.Load())
			}
		}
	}()
	return func() { close(done); <-ended }
}

// readOutput reads what "go build -v" prints: a line per compiled package, and
// errors. It returns the last lines.
func readOutput(r io.Reader, compiled *atomic.Int64) []string {
	var tail []string
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		if !strings.ContainsAny(line, " \t") {
			compiled.Add(1)
			continue
		}
		tail = append(tail, line)
		if len(tail) > tailLines {
			tail = tail[1:]
		}
	}
	_, _ = io.Copy(io.Discard, r) // a line too long for the scanner
	return tail
}
