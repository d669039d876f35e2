// Package daemon is what the main functions of driver, gateway and providers
// share: signals and exit codes, flags, build information, and the HTTP server
// for probes and metrics.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Exit codes of Main.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// gcPercent is GOGC, unless the environment has it.
const gcPercent = 50

// Env is what a process gets from outside, so that tests can give it.
type Env struct {
	// Args are the arguments without the program's name.
	Args []string
	// Getenv returns an environment variable's value, or "".
	Getenv func(string) string
	// Stdout and Stderr are never nil in Main.
	Stdout, Stderr io.Writer
}

// Command tells whether the arguments begin with the words of a command's name,
// and returns the environment with those that follow.
func (e Env) Command(name string) (rest Env, ok bool) {
	words := strings.Fields(name)
	if len(e.Args) < len(words) || !slices.Equal(e.Args[:len(words)], words) {
		return e, false
	}
	e.Args = e.Args[len(words):]
	return e, true
}

// UsageError says that the command line or the environment is wrong.
type UsageError struct {
	Err error
	// Program is what to ask for help: the process' name, and the command's if
	// it was one's. Default: the name that Main has.
	Program string
}

// Error implements error.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// Main runs a process's whole life and returns its exit code: 0 for a clean end
// or help, 2 for a UsageError, 1 for any other error, which it prints once.
//
// The first SIGTERM or SIGINT cancels ctx, and run is to return in its own time;
// the second one kills the process.
func Main(name string, run func(ctx context.Context, env Env) error) int {
	// The heap is small beside the program itself: to let it grow by half
	// between collections instead of by all saves more than it costs.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// The root of all contexts: Main is the body of package main.
	ctx, stop := untilSignal(context.Background())
	defer stop()
	err := run(ctx, Env{
		Args:   os.Args[1:],
		Getenv: os.Getenv,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
	})
	return report(ctx, os.Stderr, name, err)
}

// untilSignal returns a context that the first signal cancels. By then the
// process handles signals no more, so the next one does what it does by default.
func untilSignal(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = context.WithCancel(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals)
		stop()
	}()
	return ctx, stop
}

// report prints err, if it is one, and returns the exit code.
func report(ctx context.Context, stderr io.Writer, name string, err error) int {
	var usage *UsageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(stderr, "%s: %v\nRun %q for help.\n", name, err, either(usage.Program, name)+" --help")
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitOK // the answer to a signal
	default:
		_, _ = fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return exitError
	}
}

// Group runs all functions at once and returns when all have returned. The
// first error cancels the context of the others, and is returned. A function
// that returns nil leaves the others running.
func Group(ctx context.Context, fns ...func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for _, fn := range fns {
		wg.Go(func() {
			if err := fn(ctx); err != nil {
				once.Do(func() {
					first = err
					cancel()
				})
			}
		})
	}
	wg.Wait()
	return first
}
