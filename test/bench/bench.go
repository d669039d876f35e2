// Package bench compares Postern with the upstream driver 1.6.0, side by side in
// one run: both get the same calls that kubelet would make, from the same
// program, with the same kube-apiserver, and call the same provider, whose store
// has the same latency and the same limits for both.
//
// One runs after the other, never both at once, but where it is said. Each
// scenario starts them anew.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/build"
)

// Config is what Run needs.
type Config struct {
	// Builder finds or builds the programs. Required.
	Builder *build.Builder
	// Only are the names of the scenarios to run; none is all.
	Only []string
	// Quick runs each with a few volumes, to see that it works: what it
	// measures means nothing.
	Quick bool
	// Progress gets a line for each step. Required.
	Progress io.Writer
}

// Report is what came of a run.
type Report struct {
	Machine Machine
	Started time.Time
	Took    time.Duration
	Quick   bool
	Results []Result
}

// Result is what came of one scenario.
type Result struct {
	// Name of the scenario, its title, and what was done, in sentences.
	Name, Title, About string
	Measures           []Measure
	// Notes are figures that others were derived from.
	Notes []string
}

// scenario is one comparison.
type scenario struct {
	name, title, about string
	run                func(context.Context, *environment) (Result, error)
}

// Names returns the scenarios' names, in order.
func Names() []string {
	var names []string
	for _, s := range scenarios(full()) {
		names = append(names, s.name)
	}
	return names
}

// Run runs the scenarios. It needs root and a mount namespace of its own.
func Run(ctx context.Context, cfg Config) (report *Report, err error) {
	switch {
	case cfg.Builder == nil || cfg.Progress == nil:
		return nil, errors.New("bench: Builder and Progress are required")
	case os.Getuid() != 0:
		return nil, errors.New("both drivers mount filesystems: run this as root")
	}
	for _, name := range cfg.Only {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("there is no scenario %q: there are %s", name, strings.Join(Names(), ", "))
		}
	}
	report = &Report{Started: time.Now(), Quick: cfg.Quick}
	if report.Machine, err = thisMachine(); err != nil {
		return nil, err
	}
	e, err := newEnvironment(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	for _, s := range scenarios(e.sizes) {
		if len(cfg.Only) > 0 && !slices.Contains(cfg.Only, s.name) {
			continue
		}
		e.say("%s: %s", s.name, s.title)
		result, err := s.run(ctx, e)
		if err != nil {
			return nil, fmt.Errorf("scenario %s: %w", s.name, err)
		}
		result.Name, result.Title, result.About = s.name, s.title, s.about
		report.Results = append(report.Results, result)
	}
	report.Took = time.Since(report.Started)
	return report, nil
}
