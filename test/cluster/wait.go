package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/cluster/node"
)

const (
	// pollInterval is how often a condition is looked at.
	pollInterval = 50 * time.Millisecond
	// stageTimeout is how long each step of a start may take, on a slow machine
	// that does other things too.
	stageTimeout = 4 * time.Minute
	// maxStarts is how often a component may be started before it counts as broken.
	maxStarts = 8
	// tailLines is how much of a log an error shows.
	tailLines, tailColumns = 12, 300
)

// poll calls check until it returns nil or ctx ends.
func poll(ctx context.Context, what string, check func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // else it failed because the time is over
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w; the last try: %w", what, context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// stage is a step of a start.
type stage struct {
	// done is what is so afterwards, as in "the API server is ready".
	done string
	// blame are the components to look at if it does not come to that.
	blame []string
	check func(context.Context) error
}

// failure is a stage that was not reached.
type failure struct {
	err   error
	blame []string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// reach waits for a stage. It gives up when a component cannot be kept running.
func (c *Cluster) reach(ctx context.Context, s stage) error {
	ctx, cancel := context.WithTimeout(ctx, stageTimeout)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	err := poll(ctx, s.done, func(ctx context.Context) error {
		err := s.check(ctx)
		if broken := c.broken(); err != nil && broken != nil {
			giveUp(broken)
		}
		return err
	})
	var broken *failure
	switch {
	case errors.As(err, &broken): // it knows better whom to blame
		return err
	case err != nil:
		return &failure{err: err, blame: s.blame}
	}
	c.say("%s", s.done)
	return nil
}

// broken returns what makes waiting pointless, or nil.
func (c *Cluster) broken() error {
	if _, err := c.initPID(); err != nil {
		return &failure{err: errors.New("the node has ended"), blame: []string{"node"}}
	}
	all, _ := node.ReadStatus(string(c.dir)) // fails as long as nothing was started
	for _, s := range all {
		if s.Starts >= maxStarts {
			err := fmt.Errorf("%s was started %d times; the last time it %s", s.Name, s.Starts, s.LastExit)
			return &failure{err: err, blame: []string{s.Name}}
		}
	}
	return nil
}

// tails returns the end of the named logs.
func tails(logDir string, names []string) string {
	var b strings.Builder
	for _, name := range names {
		path := filepath.Join(logDir, name+".log")
		contents, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintf(&b, "\n%s has no log: %v\n", name, err)
			continue
		}
		lines := slices.Collect(strings.Lines(string(contents)))
		fmt.Fprintf(&b, "\nthe end of %s:\n", path)
		for _, line := range lines[max(0, len(lines)-tailLines):] {
			b.WriteString("  " + shorten(strings.TrimSuffix(line, "\n")) + "\n")
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func shorten(line string) string {
	if len(line) <= tailColumns {
		return line
	}
	return line[:tailColumns] + "…"
}
